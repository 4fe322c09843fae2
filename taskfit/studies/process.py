"""One function in its own process: a crash, a kill or a time-out costs that process and nothing else.

Processes come from a fork server that has the heavy libraries loaded, so that a further one starts in well under a
second. A child leads its own process group, dies when its parent dies, and writes what it prints into a log.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import taskfit.errors
from taskfit.errors import ResourceError, TaskfitError
from taskfit.threads import spin_briefly

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

__all__ = ["Child", "Raised", "Returned", "Said", "call", "start", "start_server", "wait_any"]

Argument = TypeVar("Argument")
Result = TypeVar("Result")
Work = Callable[[Argument, Callable[[str], None]], Result]

_PRELOAD = "taskfit.studies.preload"
_PRELOAD_MODELS = "taskfit.studies.preload_models"


@dataclass(frozen=True)
class Began:
    """The child runs; the fork server's own start-up is over."""


@dataclass(frozen=True)
class Said:
    """A line that the child reports."""

    line: str


@dataclass(frozen=True)
class Returned(Generic[Result]):
    """The child's function has returned."""

    value: Result


@dataclass(frozen=True)
class Raised:
    """The child's function has raised.

    Attributes:
        reason: class of the error.
        message: the error's message.
        hint: what to do about it; None where nothing is known.
        is_bug: true unless the error is one a user can mend.
    """

    reason: str
    message: str
    hint: str | None
    is_bug: bool

    def error(self) -> TaskfitError:
        """Return the same error, to be raised in the parent."""
        kind = getattr(taskfit.errors, self.reason, TaskfitError)
        return kind(self.message, self.hint) if not self.is_bug else TaskfitError(f"{self.reason}: {self.message}")


class Child(Generic[Result]):
    """A running function, seen from its parent.

    Attributes:
        outcome: what the function returned or raised; None as long as it runs, and for ever when it was killed.
        began_at: ``time.monotonic()`` when the child began to work; None before.
    """

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self.outcome: Returned[Result] | Raised | None = None
        self.began_at: float | None = None

    @property
    def sentinel(self) -> int:
        """A handle that becomes ready when the process ends."""
        return self._process.sentinel

    @property
    def connection(self) -> Connection:
        """The child's messages."""
        return self._connection

    @property
    def has_ended(self) -> bool:
        """True when the process is gone."""
        return not self._process.is_alive()

    @property
    def signal_name(self) -> str | None:
        """Name of the signal that ended the process; None when it ended by itself."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return None
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"

    @property
    def exit_code(self) -> int | None:
        """The exit code; negative for a signal, None while it runs."""
        return self._process.exitcode

    def lines(self) -> Iterator[str]:
        """Yield the lines that have come since the last call, and note what else has."""
        while True:
            try:
                if self._connection.closed or not self._connection.poll():
                    return
                message = self._connection.recv()
            except (EOFError, OSError):
                self._connection.close()
                return
            if isinstance(message, Said):
                yield message.line
            elif isinstance(message, Began):
                self.began_at = time.monotonic()
            else:
                self.outcome = message

    def kill(self) -> None:
        """End the process and all that it started, at once, and wait until it is gone."""
        pid = self._process.pid
        if pid is not None and not self.has_ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._process.kill()
        self._process.join()

    def close(self) -> None:
        """Release what the parent holds for an ended process."""
        self._process.join()
        self._connection.close()
        self._process.close()


def start_server(has_models: bool) -> None:
    """Start the fork server, which loads the heavy libraries while the caller goes on.

    The first call in a process decides what is loaded beforehand; later calls change nothing.
    """
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_PRELOAD, _PRELOAD_MODELS] if has_models else [_PRELOAD])
    with _main_module_hidden(), spin_briefly():
        forkserver.ensure_running()


def start(function: Work[Argument, Result], argument: Argument, log: Path) -> Child[Result]:
    """Run ``function(argument, say)`` in its own process; ``say`` takes one line for the parent.

    Args:
        function: importable by name; the script that runs now is not loaded again in the child, so that it needs
            no ``if __name__ == "__main__"``.
        argument: must pickle.
        log: takes everything the child prints, appended.
    """
    context = multiprocessing.get_context("forkserver")
    receiver, sender = context.Pipe(duplex=False)
    job = (function, argument, sender, log, dict(os.environ))
    process = context.Process(target=_child_main, args=job, daemon=False)
    with _main_module_hidden():
        process.start()
    sender.close()
    return Child(process, receiver)


def call(function: Work[Argument, Result], argument: Argument, log: Path, on_line: Callable[[str], None]) -> Result:
    """Run ``function(argument, say)`` in its own process and return its value.

    Raises:
        TaskfitError: what the function raised, or word of its death.
    """
    child = start(function, argument, log)
    try:
        while not child.has_ended:
            wait_any([child], None)
            for line in child.lines():
                on_line(line)
        for line in child.lines():
            on_line(line)
        if isinstance(child.outcome, Raised):
            raise child.outcome.error()
        if child.outcome is None:
            raise ResourceError(f"a process ended before its work was done ({child.signal_name or child.exit_code})")
        return child.outcome.value
    finally:
        child.kill()
        child.close()


def wait_any(children: Sequence[Child[Result]], timeout_s: float | None) -> None:
    """Return when a child has said something or ended, or after ``timeout_s`` seconds."""
    handles: list[int | Connection] = [child.sentinel for child in children]
    handles += [child.connection for child in children if not child.connection.closed]
    wait(handles, timeout_s)


@contextlib.contextmanager
def _main_module_hidden() -> Iterator[None]:
    # multiprocessing would run the caller's script again in the child, which costs its start-up time and recurses
    # when the script has no guard. Nothing that we send refers to it.
    original = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = original


def _child_main(
    function: Work[Argument, Result], argument: Argument, sender: Connection, log: Path, environment: dict[str, str]
) -> None:
    os.environ.update(environment)  # the server has that of its own start: a key set later would be missing
    os.setsid()
    _die_with_parent()
    _print_into(log)
    faulthandler.enable()
    _send(sender, Began())
    outcome = _outcome(function, argument, lambda line: _send(sender, Said(line)))
    _send(sender, outcome)
    sys.stdout.flush()
    sys.stderr.flush()


def _outcome(
    function: Work[Argument, Result], argument: Argument, say: Callable[[str], None]
) -> Returned[Result] | Raised:
    try:
        return Returned(function(argument, say))
    except TaskfitError as error:
        traceback.print_exc()
        return Raised(type(error).__name__, error.message, error.hint, is_bug=False)
    except MemoryError as error:
        traceback.print_exc()
        return Raised("ResourceError", f"memory ran out ({error})", "use a smaller model or batch", is_bug=False)
    except Exception as error:
        traceback.print_exc()
        return Raised(type(error).__name__, str(error) or "no message", "log.txt holds the traceback", is_bug=True)


def _send(sender: Connection, message: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and so are we in a moment
        sender.send(message)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _print_into(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
