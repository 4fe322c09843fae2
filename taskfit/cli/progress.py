"""How a running study is shown: a bar with time left on a terminal, plain lines elsewhere; always standard error."""

from __future__ import annotations

from types import TracebackType

from taskfit.cli.bar import Bar
from taskfit.studies.events import (
    CandidateStopped,
    Event,
    StudyPlanned,
    StudySaid,
    TrialEnded,
    TrialFound,
    TrialLeftOut,
    TrialSaid,
    TrialStarted,
)
from taskfit.studies.words import count, figure, metric_name, seconds

__all__ = ["Progress"]


class Progress:
    """Shows a study's events; use it as a context."""

    def __init__(self) -> None:
        self._bar = Bar("planning")

    def __enter__(self) -> Progress:
        """Start the bar where there is a terminal."""
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        self._bar.__exit__(kind, error, trace)

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case StudyPlanned(plan):
                for note in plan.notes:
                    self._bar.line(note)
                for skipped in plan.skipped:
                    on = f" on {skipped.model}" if skipped.model else ""
                    self._bar.line(f"left out: {skipped.strategy}{on}: {skipped.reason}")
                known = [trial.forecast_s for trial in plan.trials if trial.forecast_s is not None]
                forecast = f", about {seconds(sum(known))}" if len(known) == len(plan.trials) else ""
                self._bar.line(f"{count(len(plan.trials), 'trial')}{forecast}")
            case StudySaid(line):
                self._bar.line(line)
            case TrialLeftOut(spec, why):
                self._bar.line(f"{spec.label}: left out: {why}")
            case TrialFound(result, done, total):
                self._bar.line(f"[{done}/{total}] {result.spec.label}: found, {result.status}")
                self._advance(done, total, None)
            case TrialStarted(spec, number, total, left_s):
                if not self._bar.is_drawn:
                    left = f" ({seconds(left_s)} left)" if left_s is not None else ""
                    self._bar.line(f"[{number}/{total}] {spec.label}{left}")
                self._describe(spec.label, left_s)
            case CandidateStopped(spec, why):
                self._bar.line(f"{spec.label}: {why}")
            case TrialSaid(spec, line):
                self._bar.line(f"    {line}")
            case TrialEnded(result, done, total, left_s):
                self._bar.line(
                    f"[{done}/{total}] {result.spec.label}: {self._outcome(event)} in {seconds(result.wall_s)}"
                )
                self._advance(done, total, left_s)

    @staticmethod
    def _outcome(event: TrialEnded) -> str:
        result = event.result
        if result.is_done:
            figures = [f"{metric_name(name)} {figure(value)}" for name, value in list(result.metrics.items())[:1]]
            return ", ".join(figures) or "done"
        return f"{result.status}: {result.message}"

    def _describe(self, label: str, left_s: float | None) -> None:
        left = f"  {seconds(left_s)} left" if left_s is not None else ""
        self._bar.describe(f"{label}{left}")

    def _advance(self, done: int, total: int, left_s: float | None) -> None:
        self._bar.advance(done, total, f"{seconds(left_s)} left" if left_s is not None else "")
