"""What a study knows beyond its table: pairs, costs at every volume, learning curves, leaks; and ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, cast

from taskfit.studies.elsewhere import elsewhere
from taskfit.studies.folder import write_json
from taskfit.studies.leaked_rows import LeakedRows, clean_scores, read_leaked_rows
from taskfit.studies.learning_curve import LearningCurve, curves_of, overtakes_at
from taskfit.studies.ranking import LEVEL
from taskfit.studies.table import table_of
from taskfit.studies.volumes import VOLUMES, BreakEven, VolumeCosts, break_evens, costs_at_volumes

if TYPE_CHECKING:
    from taskfit.evaluation.equivalence import Equivalence
    from taskfit.evaluation.leaks import CleanScore
    from taskfit.evaluation.paired import McNemar
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.recommend import Recommendation
    from taskfit.tasks.task import Value

__all__ = ["MARGIN", "RESULT_FILE", "Evidence", "Overtaking", "Pair", "evidence_of", "write_result"]

RESULT_FILE = "result.json"
_FORMAT = 2

MARGIN = 0.01
"""Differences up to this share of the metric's range are too small to matter: one point."""


@dataclass(frozen=True)
class Pair:
    """A candidate beside the best one.

    Attributes:
        label, best: of the two.
        mcnemar: rows that only one of them has right, by the first run of each; a is the candidate.
        equivalence: whether they cannot be told apart within a point.
        is_same: true where both gave the same answer to every row, in their first runs.
    """

    label: str
    best: str
    mcnemar: McNemar
    equivalence: Equivalence
    is_same: bool


@dataclass(frozen=True)
class Overtaking:
    """From how many training rows a learnt strategy is expected above one that learns from none.

    Attributes:
        rows: None where it never is, by the fitted law.
    """

    label: str
    prompt: str
    rows: float | None


@dataclass(frozen=True)
class Evidence:
    """All of it.

    Attributes:
        pairs: each but the best beside the best, in the order of the table.
        costs: each at the volumes of ``taskfit.studies.volumes.VOLUMES``.
        break_evens: where the cheapest of those that cannot be told apart changes.
        curves: of strategies that ran with several numbers of training rows.
        overtaking: each curve beside the best prompt.
        leaks: test rows that stand in the rows that strategies learn from.
        clean: figure with and without those rows, by label; empty where there are none.
    """

    pairs: tuple[Pair, ...]
    costs: tuple[VolumeCosts, ...]
    break_evens: tuple[BreakEven, ...]
    curves: tuple[LearningCurve, ...]
    overtaking: tuple[Overtaking, ...]
    leaks: LeakedRows
    clean: Mapping[str, CleanScore]


def evidence_of(comparison: Comparison) -> Evidence:
    """Gather the evidence of a comparison.

    Raises:
        StudyError: the study's folder is damaged.
    """
    candidates, metric = comparison.candidates, comparison.metric
    leaks = read_leaked_rows(comparison.study.folder)
    rows = comparison.study.plan.data.get("rows")
    train = rows.get("train", 0) if isinstance(rows, dict) else 0
    curves = curves_of(candidates, metric, int(cast("int", train))) if train else ()
    return Evidence(
        pairs=_pairs(candidates, metric) if comparison.has_enough_rows else (),
        costs=costs_at_volumes(candidates),
        break_evens=break_evens([c for c in candidates if c.is_tied] if comparison.has_enough_rows else []),
        curves=curves,
        overtaking=_overtaking(curves, candidates, metric),
        leaks=leaks,
        clean=clean_scores(candidates, metric, leaks),
    )


def write_result(comparison: Comparison, recommendation: Recommendation, evidence: Evidence) -> None:
    """Write ``result.json`` into the study's folder: everything that was found, for reports and other programs.

    Raises:
        ResourceError: the disk is full.
    """
    chosen, winner, config = recommendation.chosen, comparison.winner, comparison.study.plan.config
    values = {
        "format": _FORMAT,
        "task": comparison.definition.name,
        "metric": comparison.metric,
        "test_rows": comparison.rows,
        "level": LEVEL,
        "detectable_difference": comparison.study.plan.detectable_difference,
        "volume": recommendation.volume,
        "limits": recommendation.limits,
        "chosen": None if chosen is None else chosen.label,
        "verdict": recommendation.verdict,
        "reasons": recommendation.reasons,
        "caveats": recommendation.caveats,
        "candidates": table_of(comparison, recommendation),
        "winner": winner,
        "pairs": [asdict(pair) | {"finding": pair.equivalence.text} for pair in evidence.pairs],
        "volumes": VOLUMES,
        "costs": evidence.costs,
        "break_evens": evidence.break_evens,
        "learning_curves": [asdict(curve) | {"finding": curve.text} for curve in evidence.curves],
        "overtaking": evidence.overtaking,
        "leaks": asdict(evidence.leaks) | {"finding": evidence.leaks.text},
        "without_leaks": evidence.clean,
        "missing_trials": comparison.missing,
        "budget": config.budget,
        "spent": asdict(comparison.spent) | {"usd": comparison.spent.usd(comparison.study.plan.price.usd_per_hour)},
        "left_out": comparison.left_out,
        "elsewhere": [elsewhere(comparison, name, config.prices) for name in config.machines],
    }
    write_json(comparison.study.folder / RESULT_FILE, cast("Mapping[str, Value]", _plain(values)))


def _pairs(candidates: Sequence[Candidate], metric: str) -> tuple[Pair, ...]:
    from taskfit.evaluation.equivalence import equivalent_within
    from taskfit.evaluation.metrics import metric as entry_of
    from taskfit.evaluation.paired import mcnemar, pooled_seed_noise

    if len(candidates) < 2:
        return ()
    best, entry = candidates[0], entry_of(metric)
    noise = pooled_seed_noise(metric, [one.runs for one in candidates])
    margin = MARGIN * (entry.highest - entry.lowest)
    return tuple(
        Pair(
            one.label,
            best.label,
            mcnemar(one.runs[0], best.runs[0]),
            equivalent_within(
                metric, one.runs, best.runs, margin=margin, seed_noise=noise, has_luck=(one.has_luck, best.has_luck)
            ),
            one.runs[0].answers == best.runs[0].answers,
        )
        for one in candidates[1:]
    )


def _overtaking(
    curves: Sequence[LearningCurve], candidates: Sequence[Candidate], metric: str
) -> tuple[Overtaking, ...]:
    from taskfit.evaluation.metrics import metric as entry_of

    prompts = [one for one in candidates if one.cost.tokens_in_per_row > 0 and one.train_rows is None]
    named = {curve.label for curve in curves}
    prompts = [one for one in prompts if one.label not in named]
    if not prompts:
        return ()
    best, highest = prompts[0], entry_of(metric).highest
    figure = best.metrics[metric].value
    return tuple(Overtaking(curve.label, best.label, overtakes_at(curve, figure, highest=highest)) for curve in curves)


def _plain(value: object) -> object:
    """Return plain JSON values of records, tuples, sets and mappings."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
