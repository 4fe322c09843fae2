"""What the report shows, gathered from a study's folder: figures as text, rows where candidates disagree, prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taskfit.studies.losses import Losses, losses_of
from taskfit.studies.plot import Point, cost_plot
from taskfit.studies.result import read_trial_predictions, trial_folder
from taskfit.studies.spec import short_names
from taskfit.studies.table import TableRow, table_of
from taskfit.studies.test_rows import TestRow, read_test_rows
from taskfit.studies.words import bytes_text, figure, metric_name, money, seconds

if TYPE_CHECKING:
    from taskfit.evaluation.outcomes import Outcomes
    from taskfit.studies.candidate import Candidate
    from taskfit.studies.compare import Comparison
    from taskfit.studies.predictions import StoredPrediction
    from taskfit.studies.recommend import Recommendation
    from taskfit.studies.result import TrialResult
    from taskfit.studies.spec import Price
    from taskfit.tasks.task import Value

__all__ = ["Confusion", "Disagreement", "ReportView", "Said", "confusion_of", "cut_text", "report_view"]

_MOST_LABELS = 12
_MOST_ROWS = 8
_MOST_TEXT = 400
_MOST_ANSWER = 160
_MOST_PROMPT = 4000

_VERDICTS = {
    "recommended": "◆ recommended",
    "tied": "● cannot be told apart from the best",
    "worse": "○ worse than the best",
    "unranked": "○ not ranked",
}


@dataclass(frozen=True)
class Confusion:
    """How often each right label was answered with each label, all seeds together.

    Attributes:
        answers: the labels, and "(none)" where some answers could not be parsed.
        counts: one row a right label, in the order of ``labels``.
    """

    candidate: str
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Said:
    """One candidate's answer to one row; its first seed's.

    Attributes:
        is_right: None for generated text, which is more or less right.
    """

    key: str
    answer: str
    is_right: bool | None


@dataclass(frozen=True)
class Disagreement:
    """A test row that candidates answer differently."""

    row_id: str
    text: str
    gold: str
    said: tuple[Said, ...]


@dataclass(frozen=True)
class ReportView:
    """Everything on the page, as text or plain records.

    Attributes:
        is_priced: false when the machine costs nothing: seconds stand in for money.
        plot_wide, plot_narrow: SVG; empty when nothing has finished.
        columns, cells: the table of candidates: heads, and one row of texts each.
        trials: heads and rows of the table of trials.
        facts: what exactly was run, as pairs of name and text.
        prompts: candidate to one rendered prompt.
        notes: candidate to what its strategy reported while fitting.
        losses: answers that could not be read, and worked examples without room.
    """

    title: str
    recommendation: Recommendation
    metric: str
    is_priced: bool
    plot_wide: str
    plot_narrow: str
    rows: tuple[TableRow, ...]
    verdicts: Mapping[str, str]
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    trial_columns: tuple[str, ...]
    trials: tuple[tuple[str, ...], ...]
    failures: tuple[tuple[str, str], ...]
    skipped: tuple[tuple[str, str], ...]
    confusion: Confusion | None
    disagreements: tuple[Disagreement, ...]
    facts: tuple[tuple[str, str], ...]
    prompts: Mapping[str, str]
    notes: Mapping[str, tuple[str, ...]]
    losses: tuple[Losses, ...] = ()


def report_view(comparison: Comparison, recommendation: Recommendation) -> ReportView:
    """Gather what the report shows; it depends on the study's folder alone."""
    rows = table_of(comparison, recommendation)
    folder = comparison.study.folder
    is_priced = all(row.usd_total > 0 for row in rows)
    first = {c.label: read_trial_predictions(folder, c.results[0].spec.id) for c in comparison.candidates}
    test = read_test_rows(folder)
    return ReportView(
        title=comparison.definition.name,
        recommendation=recommendation,
        metric=metric_name(comparison.metric),
        is_priced=is_priced,
        plot_wide=_plot(comparison, rows, "wide", is_priced),
        plot_narrow=_plot(comparison, rows, "narrow", is_priced),
        rows=rows,
        verdicts=_VERDICTS,
        columns=_columns(comparison, recommendation),
        cells=tuple(_cells(row, comparison) for row in rows),
        trial_columns=("strategy", "model", "training rows", "seed", metric_name(comparison.metric), "seconds", "id"),
        trials=tuple(_trial(r, c, comparison) for c in comparison.candidates for r in c.results),
        failures=tuple((r.spec.label, _failure(r)) for r in comparison.failures),
        skipped=_skipped(comparison),
        confusion=None
        if recommendation.chosen is None
        else confusion_of(recommendation.chosen.label, comparison.definition.labels, recommendation.chosen.runs),
        disagreements=_disagreements(comparison, rows, first, test),
        facts=_facts(comparison),
        prompts=_prompts(comparison),
        notes={c.label: c.results[0].notes for c in comparison.candidates if c.results[0].notes},
        losses=losses_of(comparison.candidates, first),
    )


def _plot(comparison: Comparison, rows: Sequence[TableRow], name: str, is_priced: bool) -> str:
    if not rows:
        return ""
    volume = comparison.volume
    totals = {
        c.label: (c.cost.total_usd(volume) if is_priced else c.cost.total_s(volume)) for c in comparison.candidates
    }
    drawn = [_point(row, max(totals[row.label], 1e-12), name == "wide", is_priced) for row in rows]
    unit = "US dollars" if is_priced else "seconds"
    width, height = (820, 420) if name == "wide" else (380, 360)
    cost_title = f"{unit} to fit and predict {volume:,} rows" + (" (each step ten times)" if name == "wide" else "")
    value_title = metric_name(comparison.metric)
    return cost_plot(
        drawn, cost_title=cost_title, value_title=value_title, name=f"plot-{name}", width=width, height=height
    )


def _point(row: TableRow, cost: float, is_wide: bool, is_priced: bool) -> Point:
    amount = money(cost) if is_priced else seconds(cost)
    title = f"{row.key} {row.label}: {figure(row.value)} ({figure(row.low)} to {figure(row.high)}), {amount}"
    label = f"{row.key} {row.label}" if is_wide else row.key
    return Point(label, cost, row.value, row.low, row.high, row.verdict, row.is_pareto, title)


def _columns(comparison: Comparison, recommendation: Recommendation) -> tuple[str, ...]:
    others = [metric_name(name) for name in comparison.definition.metrics[1:]]
    return (
        "",
        "strategy",
        f"{metric_name(comparison.metric)} (95 % interval)",
        "difference to the best, points",
        f"cost in all, {recommendation.volume:,} rows",
        "to fit",
        "per 1,000 rows",
        "time to fit",
        "per row",
        *others,
        "seeds",
        "memory to fit / predict",
        "tokens per row in / out",
        "operations to fit / per row",
        "artefact",
    )


def _cells(row: TableRow, comparison: Comparison) -> tuple[str, ...]:
    return (
        row.key,
        row.label,
        f"{figure(row.value)} ({figure(row.low)}–{figure(row.high)})",
        _difference(row),
        *(money(usd).replace("under ", "<") for usd in (row.usd_total, row.usd_fit, row.usd_per_thousand_rows)),
        seconds(row.fit_s),
        f"{row.latency_ms:.2g} ms" if row.latency_ms < 1000 else seconds(row.latency_ms / 1000),
        *(figure(row.others[name]) for name in comparison.definition.metrics[1:]),
        str(row.seeds),
        f"{bytes_text(row.fit_memory_bytes)} / {bytes_text(row.predict_memory_bytes)}",
        f"{row.tokens_in_per_row:.0f} / {row.tokens_out_per_row:.0f}",
        f"{_operations(row.flops_fit)} / {_operations(row.flops_per_row)}",
        bytes_text(row.artefact_bytes),
    )


def _difference(row: TableRow) -> str:
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return "best" if row.verdict != "unranked" else "–"
    low, high = 100 * row.difference_low, 100 * row.difference_high
    odds = "" if row.p_value is None else (", p < 0.001" if row.p_value < 0.001 else f", p = {row.p_value:.2g}")
    return f"{100 * row.difference:+.1f} ({low:+.1f} to {high:+.1f}{odds})".replace("-", "−")


def _operations(flops: float | None) -> str:
    if flops is None:
        return "unknown"
    return "0" if flops == 0 else f"{flops:.1e}"


def _trial(result: TrialResult, candidate: Candidate, comparison: Comparison) -> tuple[str, ...]:
    spec = result.spec
    return (
        spec.strategy,
        candidate.model_shown or "–",
        "all" if spec.train_rows is None else str(spec.train_rows),
        str(spec.seed),
        figure(result.metrics[comparison.metric]),
        f"{result.wall_s:.1f}",
        spec.id,
    )


def _skipped(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    skipped = comparison.study.plan.skipped
    shown = short_names(entry.model for entry in skipped if entry.model is not None)
    return tuple(
        (entry.strategy if entry.model is None else f"{entry.strategy} on {shown[entry.model]}", entry.reason)
        for entry in skipped
    )


def _failure(result: TrialResult) -> str:
    hint = "" if result.hint is None else f" ({result.hint})"
    return f"{result.status}: {result.reason}: {result.message}{hint}"


def confusion_of(name: str, labels: Sequence[str], runs: Sequence[Outcomes]) -> Confusion | None:
    """Count right labels by given answers over all runs; None where there are too few labels or too many for a page."""
    if not 2 <= len(labels) <= _MOST_LABELS:
        return None
    counts = {label: dict.fromkeys([*labels, "(none)"], 0) for label in labels}
    for run in runs:
        for gold, answer, is_parsed in zip(run.golds, run.answers, run.is_parsed, strict=True):
            counts[gold[0]][answer if is_parsed and answer in counts else "(none)"] += 1
    has_none = any(row["(none)"] for row in counts.values())
    answers = (*labels, "(none)") if has_none else tuple(labels)
    table = tuple(tuple(counts[label][answer] for answer in answers) for label in labels)
    return Confusion(name, tuple(labels), answers, table)


def _disagreements(
    comparison: Comparison,
    rows: Sequence[TableRow],
    predictions: Mapping[str, Sequence[StoredPrediction]],
    test: Sequence[TestRow],
) -> tuple[Disagreement, ...]:
    """Pick the rows that split the candidates most evenly into right and wrong; of equal ones the first."""
    found: list[tuple[int, int, Disagreement]] = []
    for place, row in enumerate(test):
        given = [(line.key, predictions[line.label][place]) for line in rows]
        said = tuple(_said(key, prediction, comparison.definition.kind) for key, prediction in given)
        right = sum(bool(one.is_right) for one in said)
        if len({one.answer for one in said}) > 1:
            shown = Disagreement(
                row.row_id, cut_text(row.text, _MOST_TEXT), cut_text(" | ".join(row.gold), _MOST_ANSWER), said
            )
            found.append((abs(2 * right - len(said)), place, shown))
    found.sort(key=lambda item: item[:2])
    return tuple(shown for _, _, shown in found[:_MOST_ROWS])


def _said(key: str, prediction: StoredPrediction, kind: str) -> Said:
    answer = prediction.answer if prediction.is_parsed else "(none)"
    is_right = None if kind == "generation" else prediction.is_parsed and answer in prediction.gold
    return Said(key, cut_text(answer, _MOST_ANSWER), is_right)


def cut_text(text: str, most: int) -> str:
    """Put a text on one line and keep its first ``most`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _facts(comparison: Comparison) -> tuple[tuple[str, str], ...]:
    study, plan = comparison.study, comparison.study.plan
    definition, machine, config = comparison.definition, study.machine, plan.config
    where = (f"{machine.get('processor')}", f"{machine.get('cores')} cores", _memory_text(machine.get("memory_bytes")))
    facts = [
        (
            "Task",
            f"{definition.name} ({definition.kind}), {plan.task_path.name}, fingerprint {plan.task_fingerprint[:16]}",
        ),
        ("Rows", _rows_text(plan.data)),
        ("Data", _data_text(plan.data)),
        ("Metrics", ", ".join(metric_name(name) for name in definition.metrics) + "; the first decides"),
        ("Strategies", ", ".join(config.strategies)),
        ("Models", "; ".join(f"{m.name} ({m.architecture}, {m.fingerprint[:12]})" for m in plan.models) or "none"),
        ("Seeds", f"{config.seeds} (0 to {config.seeds - 1}); strategies without chance run once"),
        ("Volume", f"{comparison.volume:,} rows"),
        ("Limits", _limits_text(comparison)),
        ("Machine", f"{', '.join(where)}, {machine.get('system')}"),
        ("Price", _price_text(plan.price)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in study.versions.items())),
        (
            "Seconds",
            f"{config.workers} trial(s) at a time" + ("; they shared the machine" if config.workers > 1 else ""),
        ),
    ]
    facts += [("Note", note) for note in plan.notes]
    return tuple(facts)


def _rows_text(data: Mapping[str, Value]) -> str:
    rows = data.get("rows")
    return ", ".join(f"{split} {number:,}" for split, number in rows.items()) if isinstance(rows, dict) else "unknown"


def _data_text(data: Mapping[str, Value]) -> str:
    parts = [
        f"{data.get('duplicate_rows', 0)} duplicate rows dropped",
        f"{data.get('moved_rows', 0)} rows dropped because another split holds their text",
        f"{data.get('conflicting_rows', 0)} pairs with the same input and different answers",
    ]
    made, notes = data.get("made_splits"), data.get("notes")
    if isinstance(made, list) and made:
        parts.append(f"splits cut by taskfit: {', '.join(map(str, made))}")
    parts += [str(note) for note in notes] if isinstance(notes, list) else []
    return "; ".join(parts)


def _limits_text(comparison: Comparison) -> str:
    limits = comparison.study.plan.config.limits
    parts = [
        "" if limits.usd is None else f"at most {money(limits.usd)} in total",
        "" if limits.latency_ms is None else f"at most {limits.latency_ms:g} ms a row",
        "" if limits.memory_gb is None else f"at most {limits.memory_gb:g} GB to predict",
    ]
    return ", ".join(part for part in parts if part) or "none"


def _memory_text(memory: Value) -> str:
    return bytes_text(memory) if isinstance(memory, int | float) else "memory unknown"


def _price_text(price: Price) -> str:
    return f"{price.machine}: {price.usd_per_hour:g} USD an hour (of {price.date}); the whole machine is charged"


def _prompts(comparison: Comparison) -> dict[str, str]:
    prompts = {}
    for candidate in comparison.candidates:
        folder = trial_folder(comparison.study.folder, candidate.results[0].spec.id)
        path = Path(folder / "predictor" / "prompt.txt")
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            prompts[candidate.label] = text if len(text) <= _MOST_PROMPT else f"{text[:_MOST_PROMPT]}…"
    return prompts
