"""The ``taskfit`` command: one file per sub-command, and the one place where errors become words."""

from __future__ import annotations

import sys

import typer

from taskfit.cli.annotate import annotate
from taskfit.cli.compare import compare
from taskfit.cli.doctor import doctor
from taskfit.cli.estimate import estimate
from taskfit.cli.evaluate import evaluate
from taskfit.cli.export import export
from taskfit.cli.fit import fit
from taskfit.cli.init import init
from taskfit.cli.inspect import inspect
from taskfit.cli.lists import models, strategies
from taskfit.cli.predict import predict
from taskfit.cli.prompts import prompts
from taskfit.cli.report import report
from taskfit.errors import TaskfitError
from taskfit.threads import spin_briefly

__all__ = ["app", "main"]

app = typer.Typer(
    help="Fit a pre-trained language model to your task, and see with evidence which way to choose and what it costs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_INTERRUPTED = 130
_COMMANDS = (
    *(init, compare, prompts, fit, predict, export, annotate, evaluate, inspect),
    *(estimate, report, strategies, models, doctor),
)
for _command in _COMMANDS:
    app.command()(_command)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and stop.", is_eager=True),
) -> None:
    if version:
        from taskfit import __version__

        typer.echo(f"taskfit {__version__}")
        raise typer.Exit(0)


def main() -> None:
    """Run the command line.

    Exit codes: 0 done; 1 the answer is no (a gate failed); 2 wrong input, told in one line with a hint, a path that
    cannot be read or written among it; 130 interrupted. A bug keeps its traceback.
    """
    try:
        with spin_briefly():
            app()
    except TaskfitError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except (FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)  # noqa: T201
        print("hint: give another path, or one that you may read and write", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # typer makes this of a KeyboardInterrupt, and says nothing
            print("interrupted; run the same command again to go on", file=sys.stderr)  # noqa: T201
        raise
