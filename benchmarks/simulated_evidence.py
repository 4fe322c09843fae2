"""Do intervals cover, do tests keep their level, is the winner's figure unbiased? By simulation, where truth is known.

Every figure has the 95 % interval of its own share in ``low`` and ``high``. One command:
``python benchmarks/simulated_evidence.py`` (``--quick``: a twentieth of the simulations).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
from common import arguments, finish

from taskfit.evaluation import uncertainty
from taskfit.evaluation.equivalence import equivalent_within, worse_beyond_noise
from taskfit.evaluation.intervals import Interval, bootstrap_interval, hierarchical_interval, metric_interval, wilson
from taskfit.evaluation.metrics import score
from taskfit.evaluation.outcomes import Outcomes, outcomes
from taskfit.evaluation.paired import compare_paired, mcnemar, pooled_seed_noise
from taskfit.evaluation.winner import corrected_winner
from taskfit.studies.candidate import Candidate, Cost
from taskfit.studies.candidates import with_intervals
from taskfit.studies.ranking import open_pair, rank
from taskfit.studies.schedule import is_hopeless
from taskfit.studies.spec import StudyConfig, TrialSpec

Generator = np.random.Generator
LABELS = {
    "3 labels, 60/30/10 %": [0.6, 0.3, 0.1],
    "2 labels, one of 3 %": [0.97, 0.03],
    "8 labels": [1 / 8] * 8,
    "30 labels, by 1/rank": [1 / rank for rank in range(1, 31)],
    "77 labels": [1 / 77] * 77,
}


def classified(shares: Sequence[float], rows: int, right: float, generator: Generator) -> Outcomes:
    """Draw right labels, and answers that are right by chance, with probabilities that are well calibrated."""
    chances = np.array(shares) / np.sum(shares)
    gold = generator.choice(len(chances), rows, p=chances)
    sure = generator.beta(8 * right, 8 * (1 - right), rows)
    other = (gold + generator.integers(1, len(chances), rows)) % len(chances)
    answer = np.where(generator.random(rows) < sure, gold, other)
    names = [f"label-{code}" for code in range(len(chances))]
    rest = (1 - sure) / (len(chances) - 1)
    given = [
        {name: float(here if code == chosen else spread) for code, name in enumerate(names)}
        for chosen, here, spread in zip(answer, sure, rest, strict=True)
    ]
    return outcomes(
        "classification",
        [f"r{row:07d}" for row in range(rows)],
        [(names[code],) for code in gold],
        [names[code] for code in answer],
        labels=names,
        probabilities=given if len(names) < 10 else None,
    )


def chosen(right: np.ndarray, groups: Sequence[str] | None = None) -> Outcomes:
    """Return outcomes of rows that are right or wrong."""
    answers = ["a" if each else "b" for each in right]
    return outcomes(
        "choice", [f"r{row:06d}" for row in range(len(right))], [("a",)] * len(right), answers, groups=groups
    )


def strategy(ease: np.ndarray, skill: float, luck: float, seeds: int, generator: Generator) -> list[Outcomes]:
    """Draw the runs of a strategy: right where the row's ease, the skill, the seed's luck and noise are above 0."""
    draws = (ease + skill + generator.normal(0, luck) + generator.normal(0, 0.5, len(ease)) for _ in range(seeds))
    return [chosen(total > 0) for total in draws]


def share(hits: int, trials: int) -> dict[str, float]:
    """Return a share with its interval."""
    found = wilson(hits, trials)
    return {"share": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3)}


def covers(interval: Interval, truth: float) -> bool:
    """Say whether an interval holds the truth."""
    return interval.low <= truth <= interval.high


def coverage_of_metrics(studies: int) -> list[dict[str, object]]:
    """One run: the printed interval, and BCa's of macro F1."""
    table: list[dict[str, object]] = []
    for what, shares in LABELS.items():
        names = ["accuracy", "macro_f1", "mcc", "balanced_accuracy"]
        names += ["nll", "brier", "ece_10", "aurc"] if len(shares) < 10 else []
        large = classified(shares, 40_000 if len(shares) < 10 else 200_000, 0.75, np.random.default_rng(10**6))
        truths = {name: score(name, large) for name in names}
        for rows in (60, 300):
            hits, other = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
            for study in range(studies):
                run = classified(shares, rows, 0.75, np.random.default_rng([study, rows]))
                for name in names:
                    hits[name] += covers(metric_interval(name, [run]), truths[name])
                    if name == "macro_f1":
                        other[name] += covers(bootstrap_interval(name, run, resamples=200, seed=study), truths[name])
            for name in names:
                row = {"task": what, "rows": rows, "metric": name, **share(hits[name], studies)}
                table.append(row | ({"bca": round(other[name] / studies, 3)} if name == "macro_f1" else {}))
    return table


def coverage_over_seeds(studies: int) -> list[dict[str, object]]:
    """Two to five seeds whose luck varies, and groups of rows: the printed interval beside the bootstrap's."""
    table: list[dict[str, object]] = []
    for seeds in (2, 3, 5):
        for luck in (0.0, 0.1, 0.3):
            hits, other = 0, 0
            truth = float(np.mean(np.random.default_rng(0).normal(0, np.sqrt(1 + luck**2 + 0.25), 10**6) > -0.6))
            for study in range(studies):
                generator = np.random.default_rng([study, seeds])
                runs = strategy(generator.normal(size=150), 0.6, luck, seeds, generator)
                hits += covers(metric_interval("accuracy", runs), truth)
                other += covers(hierarchical_interval("accuracy", runs, resamples=200, seed=study), truth)
            table.append({"seeds": seeds, "luck": luck, **share(hits, studies), "bootstrap": round(other / studies, 3)})
    for groups in (8, 15, 40):
        names, hits, other = [str(row // 10) for row in range(groups * 10)], 0, 0
        for study in range(studies):
            generator = np.random.default_rng([study, groups, 1])
            skills = np.repeat(generator.beta(3, 2, groups), 10)
            run = chosen(generator.random(groups * 10) < skills, names)
            hits += covers(metric_interval("accuracy", [run]), 0.6)
            other += covers(bootstrap_interval("accuracy", run, resamples=200, seed=study), 0.6)
        table.append({"groups": groups, **share(hits, studies), "bootstrap": round(other / studies, 3)})
    return table


def tests_over_seeds(studies: int) -> list[dict[str, object]]:
    """Level and power of the paired comparison, five strategies a study, with and without their pooled noise."""
    table: list[dict[str, object]] = []
    lucks = {"none": [0.0] * 5, "some": [0.1] * 5, "much": [0.3] * 5, "one strategy": [0.4, 0.03, 0.05, 0.05, 0.05]}
    for seeds in (1, 2, 3, 5):
        for what, luck in lucks.items():
            counts = {"level": [0, 0], "power": [0, 0]}
            for aim, gap in (("level", 0.0), ("power", 0.5)):
                for study in range(studies):
                    generator = np.random.default_rng([study, seeds])
                    ease = generator.normal(size=160)
                    skills = (0.6 + gap, 0.6, 0.3, 0.9, 0.5)
                    runs = [strategy(ease, s, each, seeds, generator) for s, each in zip(skills, luck, strict=True)]
                    for place, noise in enumerate((None, pooled_seed_noise("accuracy", runs))):
                        found = compare_paired("accuracy", runs[0], runs[1], permutations=300, seed_noise=noise)
                        counts[aim][place] += found.p_value < 0.05
            row = {
                f"{aim}_{how}": round(n / studies, 3)
                for aim, c in counts.items()
                for how, n in zip(("pair", "study"), c, strict=True)
            }
            table.append({"seeds": seeds, "luck": what, **row})
    return table


def tests_with_shared_luck(studies: int) -> list[dict[str, object]]:
    """Level and power where runs of a seed learn from the same rows, with and without looking at seeds in pairs."""
    table: list[dict[str, object]] = []
    for seeds in (4, 5):
        for shared, own in ((0.0, 0.05), (0.0, 0.2), (0.2, 0.05), (0.2, 0.1)):
            row: dict[str, object] = {"seeds": seeds, "shared_luck": shared, "own_luck": own}
            for aim, gap in (("level", 0.0), ("power", 0.15)):
                for how, fewest in (("unpaired", seeds + 1), ("paired", uncertainty.PAIRED_SEEDS)):
                    told = sum(_is_told(study, gap, seeds, shared, own, fewest) for study in range(studies))
                    row[f"{aim}_{how}"] = share(told, studies)
            table.append(row)
    return table


def _is_told(study: int, gap: float, seeds: int, shared: float, own: float, fewest: int) -> bool:
    generator = np.random.default_rng([study, seeds, 23])
    ease, luck = generator.normal(size=800), generator.normal(0, shared, seeds)
    runs = [[strategy(ease, skill + each, own, 1, generator)[0] for each in luck] for skill in (gap, 0.0, -0.5, -0.5)]
    before, uncertainty.PAIRED_SEEDS = uncertainty.PAIRED_SEEDS, fewest
    try:
        noise = pooled_seed_noise("accuracy", runs)
        found = compare_paired("accuracy", runs[0], runs[1], permutations=300, seed_noise=noise)
    finally:
        uncertainty.PAIRED_SEEDS = before
    return found.p_value < 0.05


def one_candidate(name: str, usd: float, runs: Sequence[Outcomes]) -> Candidate:
    """Return a candidate of a study that costs so much a row."""
    cost = Cost(0.0, usd, 0.0, 0.0, 0, 0, 0.0, 0.0, None, None, 0)
    mean = float(np.mean([score("accuracy", run) for run in runs]))
    figure = {"accuracy": Interval(mean, mean, mean, 0.95, "")}
    return Candidate(name, None, None, None, (), 0, figure, cost, tuple(runs), has_luck=True)


def spend_seeds(
    skills: Sequence[float], lucks: Sequence[float], generator: Generator
) -> tuple[list[Candidate], list[int], int]:
    """Run one study by the rules of ``studies.schedule``: its candidates, who was stopped, and the trials it took."""
    ease = generator.normal(size=160)
    runs = [strategy(ease, s, luck, 5, generator) for s, luck in zip(skills, lucks, strict=True)]

    def candidates(seeds: Sequence[int]) -> list[Candidate]:
        return [
            one_candidate(str(n), float(n + 1), run[:k]) for n, (run, k) in enumerate(zip(runs, seeds, strict=True))
        ]

    first = candidates([1] * len(runs))
    best = max(first, key=lambda c: c.metrics["accuracy"].value)
    stopped = [n for n, one in enumerate(first) if is_hopeless("accuracy", one, best)]
    seeds = [1 if n in stopped else 3 for n in range(len(runs))]
    extra = tuple(TrialSpec(str(seed), "", None, None, seed, None) for seed in (3, 4))
    plan = SimpleNamespace(config=StudyConfig(seeds=3, volume=1), extra_trials=extra)
    while True:
        pair = open_pair(plan, candidates(seeds), "accuracy")  # type: ignore[arg-type]
        more = [n for n in (int(one.strategy) for one in pair) if seeds[n] < 5]
        if not more:
            return candidates(seeds), stopped, sum(seeds)
        for n in more:
            seeds[n] += 1


def seeds_where_open(studies: int) -> list[dict[str, object]]:
    """The whole rule: does it call equal strategies different, stop good ones, cover the truth, and save trials?"""
    table: list[dict[str, object]] = []
    lucks = {"none": [0.0] * 5, "some": [0.1] * 5, "much": [0.3] * 5, "hopeless ones": [0.1, 0.1, 0.1, 0.4, 0.4]}
    for what, luck in lucks.items():
        for aim, gap in (("level", 0.0), ("power", 0.5)):
            skills = (0.6, 0.6 + gap, 0.5, -0.9, -1.2)
            truths = [chance_of_right(s, each) for s, each in zip(skills, luck, strict=True)]
            apart = wrong = trials = covered = 0
            for study in range(studies):
                found, stopped, spent = spend_seeds(skills, luck, np.random.default_rng([study, 9]))
                ranked = rank(found, "accuracy", (3, 4, 5))
                by_name = {one.strategy: one for one in ranked}
                apart += by_name["0"].is_tied != by_name["1"].is_tied
                wrong += bool({0, 1} & set(stopped)) if aim == "level" else 1 in stopped
                trials += spent
                measured = {one.strategy: one.metrics["accuracy"] for one in with_intervals(found, ["accuracy"])}
                covered += sum(covers(measured[str(n)], truth) for n, truth in enumerate(truths))
            row = {"luck": what, "aim": aim, "called_apart": share(apart, studies), "wrongly_stopped": wrong / studies}
            table.append(row | {"coverage": share(covered, 5 * studies), "trials_of_15": trials / studies})
    return table


def chance_of_right(skill: float, luck: float) -> float:
    """Return the share of rows that a strategy of that skill has right, over all seeds."""
    return NormalDist(0, math.sqrt(1 + luck**2 + 0.25)).cdf(skill)


def row_tests(studies: int) -> dict[str, object]:
    """Level of McNemar's two forms, of a fall, and of equivalence at its margin; power of equivalence without a gap."""

    def rate(gap: float, is_called: Callable[[Outcomes, Outcomes], bool], rows: int = 1000) -> dict[str, float]:
        called = 0
        for study in range(studies):
            kind = np.random.default_rng([study, 3]).random(rows)
            only_a, only_b = kind < 0.05 + gap, (kind >= 0.05 + gap) & (kind < 0.1 + gap)
            both = (kind >= 0.1 + gap) & (kind < 0.8)
            called += is_called(chosen(only_a | both), chosen(only_b | both))
        return share(called, studies)

    return {
        "mcnemar_exact_level": rate(0.0, lambda a, b: mcnemar(a, b).p_value < 0.05, 200),
        "mcnemar_mid_p_level": rate(0.0, lambda a, b: mcnemar(a, b).mid_p < 0.05, 200),
        "fall_level": rate(0.0, lambda a, b: worse_beyond_noise("accuracy", [a], [b]).is_worse, 200),
        "fall_power": rate(0.1, lambda a, b: worse_beyond_noise("accuracy", [b], [a]).is_worse, 200),
        "equivalence_level": rate(
            0.03, lambda a, b: equivalent_within("accuracy", [a], [b], margin=0.03).is_equivalent
        ),
        "equivalence_power": rate(0.0, lambda a, b: equivalent_within("accuracy", [a], [b], margin=0.03).is_equivalent),
    }


def winners(studies: int) -> list[dict[str, object]]:
    """Bias of the best of several equals, as measured and corrected."""
    table: list[dict[str, object]] = []
    for candidates in (2, 8, 20):
        errors = []
        for study in range(studies):
            generator = np.random.default_rng([study, candidates])
            runs = {f"c{number}": [chosen(generator.random(120) < 0.7)] for number in range(candidates)}
            found = corrected_winner("accuracy", runs, resamples=200, seed=study)
            errors.append((found.value - 0.7, found.corrected - 0.7))
        measured, corrected = np.mean(errors, axis=0)
        table.append(
            {"candidates": candidates, "bias": round(float(measured), 4), "bias_corrected": round(float(corrected), 4)}
        )
    return table


def main() -> None:
    """Run all simulations and print them."""
    quick = arguments("Simulations of intervals, tests and the winner's figure.").quick
    studies, started = (10 if quick else 200), time.perf_counter()
    parts: dict[str, object] = {
        "metrics": coverage_of_metrics(studies),
        "seeds_and_groups": coverage_over_seeds(studies),
        "paired": tests_over_seeds(studies),
        "paired_with_shared_luck": tests_with_shared_luck(studies),
        "seeds_where_open": seeds_where_open(studies),
        "rows": row_tests(studies * 3),
        "winner": winners(studies // 2),
    }
    for name, part in parts.items():
        print(name)
        for line in part if isinstance(part, list) else [part]:
            print("  ", line)
    finish("simulated_evidence", [0], {"studies": studies, "wall_s": round(time.perf_counter() - started, 1), **parts})


if __name__ == "__main__":
    main()
