"""The two tables of the report, candidates and trials: each cell as text, with the number it is sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taskfit.studies.interval_bar import Scale, interval_bar
from taskfit.studies.volumes import VOLUMES, VolumeCosts
from taskfit.studies.words import bytes_text, figure, metric_name, money, seconds

if TYPE_CHECKING:
    from taskfit.studies.compare import Comparison
    from taskfit.studies.elsewhere import There
    from taskfit.studies.evidence import Pair
    from taskfit.studies.table import TableRow

__all__ = [
    "Cell",
    "Column",
    "candidate_cells",
    "candidate_columns",
    "cost_amounts",
    "cost_titles",
    "pair_cells",
    "pair_titles",
    "strip_of",
    "there_cells",
    "there_titles",
    "trial_cells",
    "trial_columns",
]


@dataclass(frozen=True)
class Column:
    """A column's heading; figures stand on the right, texts on the left."""

    title: str
    is_text: bool = False


@dataclass(frozen=True)
class Cell:
    """A text, and the number that it is sorted by; None: by the text."""

    text: str
    sort: float | None = None


def candidate_columns(comparison: Comparison, volume: int, *, has_search: bool = False) -> tuple[Column, ...]:
    """Return the headings of the table of candidates; ``has_search`` adds what searches bought."""
    others = [metric_name(name) for name in comparison.definition.metrics[1:]]
    titles = (
        f"{metric_name(comparison.metric)} (95 % interval)",
        "difference to the best, points",
        f"cost in all, {volume:,} rows",
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
        *(["search bought, points on validation"] if has_search else []),
    )
    return (Column("", is_text=True), Column("strategy", is_text=True), *map(Column, titles))


def candidate_cells(row: TableRow, metrics: Sequence[str], *, has_search: bool = False) -> tuple[Cell, ...]:
    """Return the cells of one candidate.

    Args:
        row: of the table of candidates.
        metrics: the task's; the first decides.
        has_search: of some candidate of the table the parameters were searched.
    """
    amounts = (row.usd_total, row.usd_fit, row.usd_per_thousand_rows)
    latency = seconds(row.latency_ms / 1000) if row.latency_ms >= 1000 else _milliseconds(row.latency_ms)
    memory = f"{bytes_text(row.fit_memory_bytes)} / {bytes_text(row.predict_memory_bytes)}"
    operations = f"{_operations(row.flops_fit)} / {_operations(row.flops_per_row)}"
    return (
        Cell(row.key, -row.value),
        Cell(row.label),
        Cell(f"{figure(row.value)} ({figure(row.low)}–{figure(row.high)})", row.value),
        Cell(_difference(row), row.difference or 0.0),
        *(Cell(money(usd).replace("under ", "<"), usd) for usd in amounts),
        Cell(seconds(row.fit_s), row.fit_s),
        Cell(latency, row.latency_ms),
        *(Cell(figure(row.others[name]), row.others[name]) for name in metrics[1:]),
        Cell(str(row.seeds), row.seeds),
        Cell(memory, max(row.fit_memory_bytes, row.predict_memory_bytes)),
        Cell(f"{row.tokens_in_per_row:.0f} / {row.tokens_out_per_row:.0f}", row.tokens_in_per_row),
        Cell(operations, -1.0 if row.flops_per_row is None else row.flops_per_row),
        Cell(bytes_text(row.artefact_bytes), row.artefact_bytes),
        *([_search_cell(row)] if has_search else []),
    )


def _search_cell(row: TableRow) -> Cell:
    found = row.search
    if found is None:
        return Cell("not searched", 0.0)
    text = f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})".replace("-", "−")
    return Cell(f"{text}, {found.tries:.0f} tries", found.value)


def cost_titles() -> tuple[str, ...]:
    """Return the headings of the table of total costs, after the strategy's."""
    return "labels", "fit", "evaluation", "per 1,000 rows", *(f"{volume:,} rows" for volume in VOLUMES)


def cost_amounts(costs: VolumeCosts) -> tuple[float, ...]:
    """Return the amounts below ``cost_titles``, in US dollars."""
    return costs.usd_labels, costs.usd_fit, costs.usd_evaluate, 1000 * costs.usd_per_row, *costs.totals


def pair_titles() -> tuple[str, ...]:
    """Return the headings of the table of pairs, after the strategy's."""
    return "rows that it alone has right", "rows that the best alone has right", "McNemar's mid-p"


def pair_cells(pair: Pair) -> tuple[str, tuple[Cell, ...]]:
    """Return a candidate's label and the cells below ``pair_titles``."""
    found = pair.mcnemar
    odds = "< 0.001" if found.mid_p < 0.001 else f"{found.mid_p:.2g}"
    counts = (Cell(f"{number:,}", number) for number in (found.only_a_right, found.only_b_right))
    return pair.label, (*counts, Cell("same answers everywhere" if pair.is_same else odds, found.mid_p))


def there_titles() -> tuple[str, ...]:
    """Return the headings of the table of costs on another machine, after the strategy's."""
    return "time to fit", "per row", "to fit", *(f"{volume:,} rows" for volume in VOLUMES), "how it was found"


def there_cells(there: There) -> tuple[str, ...]:
    """Return the texts below ``there_titles``."""
    basis = f"{there.basis}; it needs more memory than the machine has" if there.is_too_large else there.basis
    latency = seconds(there.latency_ms / 1000) if there.latency_ms >= 1000 else _milliseconds(there.latency_ms)
    return seconds(there.fit_s), latency, money(there.costs.usd_fit), *map(money, there.costs.totals), basis


def strip_of(row: TableRow, seeds: Sequence[float], scale: Scale) -> str:
    """Draw a candidate's figure with its interval, and each seed's as a dot."""
    dots = seeds if len(seeds) > 1 else ()
    return interval_bar(row.value, row.low, row.high, dots, scale, is_best=row.verdict in ("recommended", "tied"))


def trial_columns(comparison: Comparison) -> tuple[Column, ...]:
    """Return the headings of the table of trials."""
    texts = (Column("strategy", is_text=True), Column("model", is_text=True))
    metrics = map(metric_name, comparison.definition.metrics)
    return (*texts, *map(Column, ("training rows", "seed", *metrics, "seconds", "id")))


def trial_cells(comparison: Comparison) -> tuple[tuple[Cell, ...], ...]:
    """Return the rows of the table of trials, the best candidate's first."""
    names, rows = comparison.definition.metrics, []
    for candidate in comparison.candidates:
        for result in candidate.results:
            spec = result.spec
            size = (
                Cell("all", float("1e12")) if spec.train_rows is None else Cell(str(spec.train_rows), spec.train_rows)
            )
            rows.append(
                (
                    Cell(spec.strategy),
                    Cell(candidate.model_shown or "–"),
                    size,
                    Cell(str(spec.seed), spec.seed),
                    *(Cell(figure(result.metrics[name]), result.metrics[name]) for name in names),
                    Cell(f"{result.wall_s:.1f}", result.wall_s),
                    Cell(spec.id),
                )
            )
    return tuple(rows)


def _difference(row: TableRow) -> str:
    if row.difference is None or row.difference_low is None or row.difference_high is None:
        return "best" if row.verdict != "unranked" else "–"
    low, high = 100 * row.difference_low, 100 * row.difference_high
    odds = "" if row.p_value is None else (", p < 0.001" if row.p_value < 0.001 else f", p = {row.p_value:.2g}")
    return f"{100 * row.difference:+.1f} ({low:+.1f} to {high:+.1f}{odds})".replace("-", "−")


def _milliseconds(value: float) -> str:
    return f"{value:.2g} ms" if value < 10 else f"{value:.0f} ms"


def _operations(flops: float | None) -> str:
    if flops is None:
        return "unknown"
    return "0" if flops == 0 else f"{flops:.1e}"
