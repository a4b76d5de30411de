"""The program: its commands, its exit codes and how it prints errors."""

from __future__ import annotations

import signal
import sys
import traceback
import warnings
from contextvars import copy_context
from typing import TYPE_CHECKING, Annotated

import typer

import streamreg
from streamreg.cli import show
from streamreg.cli.data import info, ingest_table
from streamreg.cli.demo import demo
from streamreg.cli.fit import fit, plan
from streamreg.cli.predict import predict, score
from streamreg.cli.report import report
from streamreg.cli.statistics import gather, merge
from streamreg.errors import (
    DataCorruptionError,
    DataWarning,
    DivergenceError,
    MemoryLimitError,
    StreamregError,
)
from streamreg.kernels.library import describe_kernels

if TYPE_CHECKING:
    from types import FrameType

_EXIT_CODES = ((MemoryLimitError, 3), (DivergenceError, 5), (DataCorruptionError, 6))
_BAD_INPUT, _DEFECT = 2, 1
_SIGNALS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

app = typer.Typer(
    help="Linear regression on data larger than memory.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("demo")(demo)
app.command("ingest")(ingest_table)
app.command("info")(info)
app.command("plan")(plan)
app.command("fit")(fit)
app.command("predict")(predict)
app.command("score")(score)
app.command("gather")(gather)
app.command("merge")(merge)
app.command("report")(report)


class _SignalError(BaseException):
    """SIGINT or SIGTERM arrived; the argument is its number."""


def _print_version(wanted: bool) -> None:
    if wanted:
        show.write(f"streamreg {streamreg.__version__}")
        # an error if the environment names kernels that this processor does not run
        show.write(f"kernels: {describe_kernels()}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; accepted after the command too.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and the kernels.",
        ),
    ] = False,
) -> None:
    """Linear regression on data larger than memory."""
    del debug, version


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the code that says how it went."""
    # what a command has written is not known to the next one of the same process
    copy_context().run(_run, arguments)


def _run(arguments: list[str] | None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    # accepted after the command too, because users append --debug to a command that failed
    debug = "--debug" in given
    show.write_in_any_encoding()
    for number in _SIGNALS:
        # not KeyboardInterrupt, which typer turns into a silent exit
        signal.signal(number, _stop)
    warnings.showwarning = lambda message, *_, **__: show.warn(message)
    warnings.simplefilter("always", DataWarning)
    try:
        code = app([each for each in given if each != "--debug"], standalone_mode=False) or 0
    except (Exception, _SignalError) as error:  # noqa: BLE001  (defects get a sentence too)
        if debug:
            traceback.print_exc()
        code, message = _explain(error)
        if "--json" in given:
            show.write_error(error, message, code)
    sys.exit(code)


def _explain(error: BaseException) -> tuple[int, str]:
    """Show an error in a sentence; return the exit code and the sentence."""
    show_usage = getattr(error, "show", None)
    if show_usage is not None:  # an error of usage, which typer shows
        show_usage()
        return int(getattr(error, "exit_code", _BAD_INPUT)), str(error)
    code, message = _sentence(error)
    show.say(message)
    return code, message


def _sentence(error: BaseException) -> tuple[int, str]:
    """Return the exit code of an error, and what it says."""
    notes = [show.text_of(note) for note in getattr(error, "__notes__", [])]
    if isinstance(error, _SignalError):
        (number,) = error.args
        said = show.sentences(_SIGNALS[number], *(notes or ["Nothing was left half written"]))
        return 128 + int(number), said  # as shells do
    if isinstance(error, StreamregError):
        code = next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), _BAD_INPUT)
        return code, f"{type(error).__name__}: {show.text_of(error)}"
    if isinstance(error, OSError):
        where = f" {error.filename!r}" if error.filename else ""
        said = show.sentences(f"the system refused{where}: {error.strerror or error}", *notes)
        return _BAD_INPUT, said
    return _DEFECT, (
        f"{type(error).__name__}: {error}. This is a defect of streamreg: report "
        "it with what the same command prints with --debug"
    )


def _stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise _SignalError(signal.Signals(number))
