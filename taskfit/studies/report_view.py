"""Everything the report shows, gathered from a study's folder: texts, plain records and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.confusion import Confusion, confusion_of
from taskfit.studies.elsewhere import Elsewhere, elsewhere
from taskfit.studies.evidence import Evidence, Pair, evidence_of
from taskfit.studies.interval_bar import scale_of
from taskfit.studies.losses import Losses, losses_of
from taskfit.studies.report_calibration import Panel, calibration_panels
from taskfit.studies.report_cascade import CascadeRange, cascade_ranges
from taskfit.studies.report_charts import Charts, charts_of
from taskfit.studies.report_choices import Choice, choices_by_volume
from taskfit.studies.report_curves import Curve, curve_chart, learning_curves
from taskfit.studies.report_forgetting import Forgotten, forgetting_of
from taskfit.studies.report_methods import methods_text, references
from taskfit.studies.report_rows import Disagreement, disagreements
from taskfit.studies.report_run import Recipe, facts_of, failures_of, recipes_of, skipped_of
from taskfit.studies.report_sides import Sided, sides_of
from taskfit.studies.report_table import (
    Cell,
    Column,
    candidate_cells,
    candidate_columns,
    cost_amounts,
    cost_titles,
    pair_cells,
    pair_titles,
    strip_of,
    there_cells,
    there_titles,
    trial_cells,
    trial_columns,
)
from taskfit.studies.result import read_trial_predictions
from taskfit.studies.table import TableRow, table_of
from taskfit.studies.test_rows import read_test_rows
from taskfit.studies.volumes import VolumeCosts, costs_at_volumes
from taskfit.studies.words import figure, metric_name, money

if TYPE_CHECKING:
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.recommend import Recommendation

__all__ = ["VERDICTS", "ReportView", "report_view"]

VERDICTS = {
    "recommended": "◆ recommended",
    "tied": "● cannot be told apart from the best",
    "worse": "○ worse than the best",
    "over": "□ over a limit",
    "unranked": "○ not ranked",
}


@dataclass(frozen=True)
class ReportView:
    """Everything on the page, as text or plain records.

    Attributes:
        charts: quality against cost, and cost against volume; None when nothing has finished.
        choices: which candidate is recommended at which volumes; empty when nothing is.
        rows: one record a candidate, the best first.
        verdicts: verdict to the words for it.
        columns, cells, strips: the table of candidates: headings, cells, and each one's interval as SVG.
        trial_columns, trials: the table of trials.
        curve_wide, curve_narrow: SVG of the learning curves; empty where there is one training size.
        forgetting: empty where no trial measured it.
        sided: candidates seen from seven sides; empty where no such view is kept.
        panels: calibration of those that give probabilities.
        disagreements: rows that the candidates of ``shown`` answer differently.
        shown: key to label of the candidates whose answers are shown: one a strategy and model.
        recipes: how each candidate was made.
        facts: what was run, as pairs of name and text.
        methods, references: for a paper.
        volume_costs: what the candidates of ``shown`` cost in all at volumes from a thousand to ten million.
        elsewhere: forecasts for other machines.
        leaks: whether test rows stand in those learnt from, and the figures without them.
        alike: those that are not shown to be further than a point from the best, each with what is known.
        pairs: label of each but the best, and cells below ``pair_titles``: rows that only one of the two has right.
        doubling: what twice the training rows would buy, a sentence a strategy.
        cascades: what each would cost and how often be right, at every threshold.
        losses: answers that could not be read, and worked examples without room.
        absent: sections that the study has no data for, in words.
    """

    title: str
    recommendation: Recommendation
    metric: str
    charts: Charts | None
    choices: tuple[Choice, ...]
    rows: tuple[TableRow, ...]
    verdicts: Mapping[str, str]
    columns: tuple[Column, ...]
    cells: tuple[tuple[Cell, ...], ...]
    strips: tuple[str, ...]
    trial_columns: tuple[Column, ...]
    trials: tuple[tuple[Cell, ...], ...]
    failures: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    curves: tuple[Curve, ...]
    curve_wide: str
    curve_narrow: str
    forgetting: tuple[Forgotten, ...]
    panels: tuple[Panel, ...]
    sided: tuple[Sided, ...]
    confusion: Confusion | None
    disagreements: tuple[Disagreement, ...]
    shown: Mapping[str, str]
    recipes: tuple[Recipe, ...]
    facts: tuple[tuple[str, str], ...]
    methods: tuple[str, ...]
    references: tuple[str, ...]
    volume_costs: tuple[VolumeCosts, ...]
    elsewhere: tuple[Elsewhere, ...]
    leaks: tuple[str, ...]
    alike: tuple[tuple[str, str], ...]
    pairs: tuple[tuple[str, tuple[Cell, ...]], ...]
    doubling: tuple[str, ...]
    cascades: tuple[CascadeRange, ...] = ()
    losses: tuple[Losses, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def cost_titles(self) -> tuple[str, ...]:
        """Headings of the table of total costs, after the strategy's."""
        return cost_titles()

    @property
    def cost_rows(self) -> list[tuple[str, list[Cell]]]:
        """Rows of that table: a candidate's label, and its amounts."""
        return [(one.label, [Cell(money(usd), usd) for usd in cost_amounts(one)]) for one in self.volume_costs]

    @property
    def pair_titles(self) -> tuple[str, ...]:
        """Headings of the table of pairs, after the strategy's."""
        return pair_titles()

    @property
    def there_titles(self) -> tuple[str, ...]:
        """Headings of the tables of ``elsewhere``, after the strategy's."""
        return there_titles()

    def there_rows(self, there: Elsewhere) -> list[tuple[str, tuple[str, ...]]]:
        """Rows of such a table: a candidate's label, and its cells."""
        return [(one.label, there_cells(one)) for one in there.candidates]

    def key_of(self, label: str) -> str:
        """Return the letters that stand for a candidate."""
        return next(row.key for row in self.rows if row.label == label)


def report_view(
    comparison: Comparison, recommendation: Recommendation, machines: Sequence[str] | None = None
) -> ReportView:
    """Gather what the report shows; it depends on the study's folder and, for other machines, on the price table.

    Args:
        comparison: what the study found.
        recommendation: made of it.
        machines: of the price table; None: those that the study names.

    Raises:
        ConfigError: a machine is unknown.
    """
    config = comparison.study.plan.config
    evidence = evidence_of(comparison)
    rows, metrics = table_of(comparison, recommendation), comparison.definition.metrics
    keys = {row.label: row.key for row in rows}
    main = main_candidates(comparison, recommendation)
    keyed = [(keys[candidate.label], candidate) for candidate in main]
    first = {
        c.label: read_trial_predictions(comparison.study.folder, c.results[0].spec.id) for c in comparison.candidates
    }
    chosen, curves = recommendation.chosen, learning_curves(comparison, evidence.curves)
    choices = () if chosen is None else choices_by_volume(comparison, recommendation.limits, recommendation.volume)
    shown = {candidate.label: keys[candidate.label] for candidate in main}
    panels, forgetting = calibration_panels(keyed), forgetting_of(keyed)
    sided = sides_of(comparison.study.folder, keyed)
    methods = methods_text(comparison, has_calibration=bool(panels), has_forgetting=bool(forgetting))
    has_search = any(row.search is not None for row in rows)
    scale = scale_of([end for row in rows for end in (row.low, row.high)]) if rows else None
    seeds = [[r.metrics[comparison.metric] for r in c.results] for c in comparison.candidates]
    return ReportView(
        title=comparison.definition.name,
        recommendation=recommendation,
        metric=metric_name(comparison.metric),
        charts=charts_of(comparison, rows, set(shown), choices, recommendation.volume),
        choices=choices,
        rows=rows,
        verdicts=VERDICTS,
        columns=candidate_columns(comparison, recommendation.volume, has_search=has_search),
        cells=tuple(candidate_cells(row, metrics, has_search=has_search) for row in rows),
        strips=() if scale is None else tuple(strip_of(row, s, scale) for row, s in zip(rows, seeds, strict=True)),
        trial_columns=trial_columns(comparison),
        trials=trial_cells(comparison),
        failures=failures_of(comparison),
        skipped=skipped_of(comparison),
        curves=curves,
        curve_wide=curve_chart(curves, metric_name(comparison.metric), is_wide=True) if curves else "",
        curve_narrow=curve_chart(curves, metric_name(comparison.metric), is_wide=False) if curves else "",
        forgetting=forgetting,
        panels=panels,
        sided=sided,
        confusion=None if chosen is None else confusion_of(chosen.label, comparison.definition.labels, chosen.runs),
        disagreements=disagreements(shown, first, read_test_rows(comparison.study.folder), comparison.definition.kind),
        shown={key: label for label, key in shown.items()},
        recipes=recipes_of(comparison, keys),
        facts=facts_of(comparison),
        methods=methods,
        references=references(methods),
        volume_costs=costs_at_volumes(main),
        elsewhere=tuple(
            elsewhere(comparison, name, config.prices)
            for name in dict.fromkeys(config.machines if machines is None else machines)
        ),
        leaks=_leaks(evidence),
        alike=tuple((pair.label, pair.equivalence.text) for pair in evidence.pairs if not _is_apart(pair)),
        pairs=tuple(pair_cells(pair) for pair in evidence.pairs),
        doubling=tuple(curve.text for curve in evidence.curves),
        cascades=cascade_ranges(keyed, comparison.study.plan.price.usd_per_hour),
        losses=losses_of(comparison.candidates, first),
        absent=()
        if not rows
        else tuple(_absent(curves=bool(curves), forgetting=bool(forgetting), panels=bool(panels), sided=bool(sided))),
    )


def _is_apart(pair: Pair) -> bool:
    found = pair.equivalence
    return found.low > found.margin or found.high < -found.margin


def _leaks(evidence: Evidence) -> tuple[str, ...]:
    without = (
        f"{label}: {figure(found.all_rows.value)} on all rows, {figure(found.clean.value)} without them"
        for label, found in evidence.clean.items()
        if found.clean is not None
    )
    return (evidence.leaks.text, *without)


def _absent(*, curves: bool, forgetting: bool, panels: bool, sided: bool) -> list[str]:
    missing = {
        "Learning curves: all trials had as many training rows; --train-sizes 32,128,all draws them.": curves,
        "Forgetting: no trial of this study measured it.": forgetting,
        "Calibration: no strategy gave a probability for every row.": panels,
        "Robustness, fairness, bias, toxicity: taskfit evaluate on the predictor of a trial, with --holistic --save, "
        "keeps them for this report.": sided,
    }
    return [sentence for sentence, is_there in missing.items() if not is_there]


def main_candidates(comparison: Comparison, recommendation: Recommendation) -> list[Candidate]:
    """Return one candidate a strategy and model, that with the most training rows; and the recommended one."""
    most: dict[tuple[str, str | None], Candidate] = {}
    for candidate in comparison.candidates:
        of = (candidate.strategy, candidate.model)
        if of not in most or _size(candidate) > _size(most[of]):
            most[of] = candidate
    labels = {candidate.label for candidate in most.values()}
    if recommendation.chosen is not None:
        labels.add(recommendation.chosen.label)
    return [candidate for candidate in comparison.candidates if candidate.label in labels]


def _size(candidate: Candidate) -> float:
    return float("inf") if candidate.train_rows is None else candidate.train_rows
