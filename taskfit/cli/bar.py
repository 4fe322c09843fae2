"""How long work is shown: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from taskfit.cli import output
from taskfit.cli.output import say

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["Bar"]


class Bar:
    """A bar where there is a terminal; use it as a context.

    Args:
        text: what stands beside the bar until something else does.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._bar: Progress | None = None
        self._task_id = 0

    def __enter__(self) -> Bar:
        """Start the bar where there is a terminal."""
        if output.is_terminal():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task_id = int(self._bar.add_task(self._text, total=None))
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def is_drawn(self) -> bool:
        """True where there is a terminal."""
        return self._bar is not None

    def line(self, text: str) -> None:
        """Write a line; above the bar where there is one."""
        if self._bar is None:
            say(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False)

    def describe(self, text: str) -> None:
        """Put a text beside the bar; without one, nothing."""
        if self._bar is not None:
            self._bar.update(self._task_id, description=text)  # type: ignore[arg-type]

    def advance(self, done: int, total: int, text: str) -> None:
        """Move the bar; without one, nothing."""
        if self._bar is not None:
            self._bar.update(self._task_id, completed=done, total=total, description=text)  # type: ignore[arg-type]
