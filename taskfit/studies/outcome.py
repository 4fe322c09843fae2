"""What came of a trial whose process has ended without a result, or is ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskfit.studies.process import Raised
from taskfit.studies.result import Status, TrialResult

if TYPE_CHECKING:
    from taskfit.studies.process import Child
    from taskfit.studies.spec import TrialSpec

__all__ = ["failed_result", "late_result"]

_OUTSIDE_SIGNALS = frozenset({"SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"})
_MEMORY_HINT = "most often the machine ran out of memory: take --jobs 1, a smaller model, or a larger machine"
_LOST_EXIT_CODE = 255
"""What multiprocessing gives when the fork server itself is gone."""


def late_result(spec: TrialSpec, wall_s: float, timeout_s: float | None) -> TrialResult:
    """Return the result of a trial that was stopped by the time-out."""
    message = f"stopped after {wall_s:.0f} s; the limit is {timeout_s:g} s"
    hint = "raise --timeout-s: the trial then goes on from its last checkpoint"
    return TrialResult(spec, "timed-out", "TimeOut", message, hint, wall_s=wall_s, timeout_s=timeout_s)


def failed_result(spec: TrialSpec, child: Child[None], wall_s: float, timeout_s: float | None) -> TrialResult:
    """Return the result of a trial whose process ended without one: an error, a crash, a kill for want of memory.

    Args:
        spec: of the trial.
        child: its ended process.
        wall_s: seconds that it ran.
        timeout_s: that it ran under.
    """

    def result(status: Status, reason: str, message: str, hint: str | None) -> TrialResult:
        return TrialResult(spec, status, reason, message, hint, wall_s=wall_s, timeout_s=timeout_s)

    outcome, name, code = child.outcome, child.signal_name, child.exit_code
    if isinstance(outcome, Raised):
        return result("failed", outcome.reason, outcome.message, outcome.hint)
    if name in _OUTSIDE_SIGNALS:
        return result("killed", str(name), f"killed from outside by {name} after {wall_s:.0f} s", _MEMORY_HINT)
    if name is not None:
        return result("failed", name, f"crashed with {name} after {wall_s:.0f} s", "log.txt holds the traceback")
    if code == _LOST_EXIT_CODE:
        return result("killed", "lost", f"its process was lost after {wall_s:.0f} s", _MEMORY_HINT)
    return result("failed", "exit", f"its process ended with code {code} and wrote no result", "log.txt may say why")
