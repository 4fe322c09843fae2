"""How fragile a prompt is: its score in every wording, and with other draws of its worked examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, cast

from taskfit.prompting.validating import row_scores, validation_rows

if TYPE_CHECKING:
    from taskfit.inference.requests import Engine
    from taskfit.strategy.contract import Program
    from taskfit.tasks.task import Task

__all__ = ["Spread", "prompt_spread", "spread_line"]


@dataclass(frozen=True)
class Spread:
    """Validation scores of one program's variants, each a mean over the same rows.

    Attributes:
        wordings: one a wording of the task, in its order, with the same seed; one value where a program has no
            parameter ``wording``.
        draws: one a draw of worked examples, in the program's own wording; the first is the given seed's. One value
            where nothing is drawn.
        rows: how many rows each score is the mean of.
    """

    wordings: tuple[float, ...]
    draws: tuple[float, ...]
    rows: int

    @property
    def low(self) -> float:
        """The least score."""
        return min(*self.wordings, *self.draws)

    @property
    def high(self) -> float:
        """The highest score."""
        return max(*self.wordings, *self.draws)

    @property
    def wording_sd(self) -> float:
        """Standard deviation over wordings; 0 for a single one."""
        return _sd(self.wordings)

    @property
    def draw_sd(self) -> float:
        """Standard deviation over draws; 0 for a single one."""
        return _sd(self.draws)

    def lines(self) -> tuple[str, ...]:
        """Return one sentence for the wordings and one for the draws, where there are several."""
        parts = [("wordings", self.wordings), ("draws of examples", self.draws)]
        return tuple(spread_line(name, scores, self.rows) for name, scores in parts if len(scores) > 1)


def prompt_spread(
    program: Program, task: Task, engine: Engine, *, seed: int = 0, draws: int = 5, rows: int = 200
) -> Spread:
    """Score a program on validation rows in every wording, and with several draws of its examples.

    A score is the share of right answers; for generated text the mean word overlap with the best reference. Weights
    are those of the engine's model; calibration that a program would choose is not chosen again for each variant.

    Args:
        program: with or without a parameter ``wording``.
        task: validation rows are asked, training rows where there are none; test rows never.
        engine: answers.
        seed: of the first draw; the others take the seeds after it.
        draws: how many draws; 1 where the program draws nothing.
        rows: most rows asked for each variant.

    Raises:
        TaskfitError: whatever preparing the program raises.
    """
    chosen = validation_rows(task, rows, seed)

    def score(variant: Program, draw: int) -> float:
        return fmean(row_scores(task.definition, variant.prepare(task, seed=draw), chosen, engine))

    has_wording = any(field.name == "wording" for field in fields(cast("Any", program)))
    own = score(program, seed)
    wordings = [own]
    if has_wording:
        mine = cast("Any", program).wording
        numbers = range(len(task.definition.wordings))
        wordings = [own if n == mine else score(replace(cast("Any", program), wording=n), seed) for n in numbers]
    others = range(seed + 1, seed + draws) if getattr(program, "uses_seed", True) else ()
    return Spread(tuple(wordings), (own, *(score(program, other) for other in others)), len(chosen))


def spread_line(name: str, scores: Sequence[float], rows: int) -> str:
    """Return a sentence on the scores of variants: lowest, highest, standard deviation."""
    return (
        f"{len(scores)} {name} score {min(scores):.3f} to {max(scores):.3f} on {rows} validation rows "
        f"(standard deviation {_sd(scores):.3f})"
    )


def _sd(scores: Sequence[float]) -> float:
    return stdev(scores) if len(scores) > 1 else 0.0
