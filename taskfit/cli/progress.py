"""How a running study is shown: a bar with time left on a terminal, plain lines elsewhere; always standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from taskfit.cli.output import is_terminal, say
from taskfit.studies.events import Event, StudyPlanned, TrialEnded, TrialFound, TrialSaid, TrialStarted
from taskfit.studies.words import count, figure, metric_name, seconds

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["Progress"]


class Progress:
    """Shows a study's events; use it as a context."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task_id = 0

    def __enter__(self) -> Progress:
        """Start the bar where there is a terminal."""
        if is_terminal():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task_id = int(self._bar.add_task("planning", total=None))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case StudyPlanned(plan):
                for note in plan.notes:
                    self._line(note)
                for skipped in plan.skipped:
                    on = f" on {skipped.model}" if skipped.model else ""
                    self._line(f"left out: {skipped.strategy}{on}: {skipped.reason}")
                known = [trial.forecast_s for trial in plan.trials if trial.forecast_s is not None]
                forecast = f", about {seconds(sum(known))}" if len(known) == len(plan.trials) else ""
                self._line(f"{count(len(plan.trials), 'trial')}{forecast}")
            case TrialFound(result, done, total):
                self._line(f"[{done}/{total}] {result.spec.label}: found, {result.status}")
                self._advance(done, total, None)
            case TrialStarted(spec, number, total, left_s):
                if self._bar is None:
                    left = f" ({seconds(left_s)} left)" if left_s is not None else ""
                    self._line(f"[{number}/{total}] {spec.label}{left}")
                self._describe(spec.label, left_s)
            case TrialSaid(spec, line):
                self._line(f"    {line}")
            case TrialEnded(result, done, total, left_s):
                self._line(f"[{done}/{total}] {result.spec.label}: {self._outcome(event)} in {seconds(result.wall_s)}")
                self._advance(done, total, left_s)

    @staticmethod
    def _outcome(event: TrialEnded) -> str:
        result = event.result
        if result.is_done:
            figures = [f"{metric_name(name)} {figure(value)}" for name, value in list(result.metrics.items())[:1]]
            return ", ".join(figures) or "done"
        return f"{result.status}: {result.message}"

    def _line(self, line: str) -> None:
        if self._bar is None:
            say(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False)

    def _describe(self, label: str, left_s: float | None) -> None:
        if self._bar is not None:
            left = f"  {seconds(left_s)} left" if left_s is not None else ""
            self._bar.update(self._task_id, description=f"{label}{left}")  # type: ignore[arg-type]

    def _advance(self, done: int, total: int, left_s: float | None) -> None:
        if self._bar is not None:
            left = f"{seconds(left_s)} left" if left_s is not None else ""
            self._bar.update(self._task_id, completed=done, total=total, description=left)  # type: ignore[arg-type]
