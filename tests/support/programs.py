"""The command line, run in the process of a test."""

from __future__ import annotations

import signal
import subprocess
import warnings
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from streamreg.cli import main


@contextmanager
def handlers_restored():
    """Restore the handlers of signals, and the filters of warnings, that the program sets."""
    numbers = signal.SIGINT, signal.SIGTERM
    handlers = [signal.getsignal(number) for number in numbers]
    with warnings.catch_warnings():
        # the filters of pytest make errors of warnings
        warnings.resetwarnings()
        try:
            yield
        finally:
            for number, handler in zip(numbers, handlers, strict=True):
                signal.signal(number, handler)


def run(*arguments, cwd):
    """Run the program in this process; return its exit code and its output."""
    with (
        handlers_restored(),
        chdir(cwd),
        redirect_stdout(StringIO()) as output,
        redirect_stderr(StringIO()) as messages,
        pytest.raises(SystemExit) as end,
    ):
        main([*map(str, arguments)])
    return subprocess.CompletedProcess(
        arguments, end.value.code, output.getvalue(), messages.getvalue()
    )
