"""How the study was done, in sentences that a paper could use, with the works they rest on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskfit.studies.ranking import LEVEL
from taskfit.studies.words import count, metric_name, points

if TYPE_CHECKING:
    from taskfit.studies.compare import Comparison

__all__ = ["methods_text", "references"]

_WORKS = {
    "Wilson 1927": "Wilson, E. B. Probable inference, the law of succession, and statistical inference. JASA 22.",
    "Tukey 1958": "Tukey, J. W. Bias and confidence in not-quite large samples. Annals of Mathematical Statistics 29.",
    "Miller 1974": "Miller, R. G. The jackknife: a review. Biometrika 61.",
    "Fisher 1935": "Fisher, R. A. The Design of Experiments. Oliver and Boyd.",
    "Noreen 1989": "Noreen, E. W. Computer-Intensive Methods for Testing Hypotheses. Wiley.",
    "Holm 1979": "Holm, S. A simple sequentially rejective multiple test procedure. Scand. J. Statistics 6.",
    "Tsamardinos, Greasidou and Borboudakis 2018": (
        "Tsamardinos, I., Greasidou, E. and Borboudakis, G. Bootstrapping the out-of-sample predictions for efficient "
        "and accurate cross-validation. Machine Learning 107."
    ),
    "Connor 1987": (
        "Connor, R. J. Sample size for testing differences in proportions for the paired-sample design. Biometrics 43."
    ),
    "Fagerland, Lydersen and Laake 2013": (
        "Fagerland, M. W., Lydersen, S. and Laake, P. The McNemar test for binary matched-pairs data. "
        "BMC Medical Research Methodology 13."
    ),
    "Guo et al. 2017": "Guo, C. et al. On calibration of modern neural networks. ICML.",
    "Brier 1950": "Brier, G. W. Verification of forecasts expressed in terms of probability. Mon. Weather Rev. 78.",
    "Geifman and El-Yaniv 2017": "Geifman, Y. and El-Yaniv, R. Selective classification for deep networks. NeurIPS.",
}
"""The works behind the statistics; those behind a strategy are named with it."""


def methods_text(comparison: Comparison, *, has_calibration: bool, has_forgetting: bool) -> tuple[str, ...]:
    """Return the paragraphs of the methods section.

    Args:
        comparison: what the study found.
        has_calibration: whether the report tells of calibration.
        has_forgetting: whether it tells of forgetting.
    """
    paragraphs = [_data(comparison), _runs(comparison), _figures(comparison), _tests(comparison), _costs(comparison)]
    if has_calibration:
        paragraphs.append(
            "Calibration compares the probability of the answer given with how often it was right, in ten bins of one "
            "width for the diagrams (Guo et al. 2017); the Brier score sums squared distances over all answers "
            "(Brier 1950), and selective accuracy is that of the tenth of rows answered most surely "
            "(Geifman and El-Yaniv 2017)."
        )
    if has_forgetting:
        paragraphs.append(
            "Forgetting was measured before and after every change of weights on the same texts and tasks, paired by "
            "document or row; a text's loss is the share by which its perplexity rose, a task's the fall of its metric."
        )
    return tuple(paragraphs)


def references(paragraphs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the works that the paragraphs name, in order of the alphabet."""
    named = [text for key, text in _WORKS.items() if any(key in paragraph for paragraph in paragraphs)]
    return tuple(sorted(named))


def _data(comparison: Comparison) -> str:
    data, definition = comparison.study.plan.data, comparison.definition
    rows = data.get("rows")
    sizes = rows if isinstance(rows, dict) else {}
    split = ", ".join(f"{number:,} {name}" for name, number in sizes.items())
    return (
        f"All strategies were fitted and tested on the same rows of the task {definition.name} "
        f"({definition.kind}; {split} rows; fingerprint {comparison.study.plan.task_fingerprint[:16]}). "
        "Training rows fit, validation rows choose (prompts, worked examples, steps of training, calibration), and "
        "each fitted predictor answered the test rows once."
    )


def _runs(comparison: Comparison) -> str:
    config = comparison.study.plan.config
    sizes = sorted({c.train_rows for c in comparison.candidates if c.train_rows is not None})
    rows = comparison.study.plan.data.get("rows")
    has_all = not {None, rows.get("train") if isinstance(rows, dict) else None}.isdisjoint(config.train_sizes)
    listed = ", ".join(map(str, sizes)) + (" and all" if has_all else "")
    subsets = f", with {listed} training rows" if sizes else ""
    named = dict.fromkeys(source for source in _sources(comparison) if source)
    sources = f" They follow {'; '.join(named)}." if named else ""
    return (
        f"Each strategy ran with {count(config.seeds, 'seed')}{subsets}; strategies without chance in them ran once. "
        f"{_stopping(comparison)}Each run had a process of its own.{sources}"
    )


def _stopping(comparison: Comparison) -> str:
    """Say which seeds were saved, and which were added, where the study did so."""
    config = comparison.study.plan.config
    stopped = sum(bool(candidate.stopped) for candidate in comparison.candidates)
    parts = []
    if stopped:
        parts.append(
            f"{count(stopped, 'candidate')} got one seed alone: further behind the best, or over a limit, than a 99 % "
            "interval over rows and the luck of seeds explain. "
        )
    if config.most_seeds > config.seeds > 1:
        parts.append(
            f"Up to {config.most_seeds} seeds were given to the two between whom the decision was open, and p-values "
            "adjusted for looking more than once. "
        )
    return "".join(parts)


def _sources(comparison: Comparison) -> list[str]:
    from taskfit.errors import ConfigError
    from taskfit.strategy.table import strategy_entry

    found = []
    for candidate in comparison.candidates:
        for part in candidate.strategy.split("+"):
            try:
                entry = strategy_entry(part.partition("(")[0])
            except ConfigError:
                continue
            found.append(f"{part.partition('(')[0]}: {entry.source}" if entry.source else "")
    return found


def _figures(comparison: Comparison) -> str:
    names = ", ".join(metric_name(name) for name in comparison.definition.metrics)
    return (
        f"Figures ({names}; the first decides) are means over seeds, with 95 % intervals over rows and seeds together: "
        "Wilson's for the share of right rows of a single run (Wilson 1927), otherwise the jackknife on the logit "
        "scale (Tukey 1958; Miller 1974), whose coverage was checked by simulation."
    )


def _tests(comparison: Comparison) -> str:
    if not comparison.has_enough_rows:
        return f"The test set has {count(comparison.rows, 'row')}; nothing was compared."
    detectable = comparison.study.plan.detectable_difference
    power = (
        ""
        if detectable is None
        else f" With {count(comparison.rows, 'test row')}, a difference in accuracy of {points(detectable)} can be "
        "shown with 80 % power (Connor 1987)."
    )
    return (
        "Each strategy was compared with the best one, row by row, by a permutation test that swaps the two answers to "
        "a row (Fisher 1935; Noreen 1989) and carries the variance between seeds, from four seeds on also that of the "
        "differences seed by seed, whose runs learn from the same rows; p-values were adjusted for all "
        f"comparisons (Holm 1979). Two are told apart when p is below {LEVEL:g} and the interval of their difference "
        "leaves out 0. The best one's figure was corrected for having been picked: chosen on resampled rows, scored on "
        f"the rows left out (Tsamardinos, Greasidou and Borboudakis 2018). Rows that only one of two first seeds "
        f"has right are put to McNemar's test in its mid-p form (Fagerland, Lydersen and Laake 2013).{power}"
    )


def _costs(comparison: Comparison) -> str:
    plan, price = comparison.study.plan, comparison.study.plan.price
    seconds = "seconds on the clock"
    if plan.jobs > 1:
        seconds = f"processor seconds over the number of cores, for up to {plan.jobs} trials ran side by side,"
    return (
        f"Costs are measured {seconds} at the price of the whole machine "
        f"({price.machine}, {price.usd_per_hour:g} US dollars an hour of {price.date}), with a service's tokens where "
        f"one answered; the total is the labels, one fit, its evaluation and {comparison.volume:,} predicted rows."
    )
