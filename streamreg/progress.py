"""What a person sees of running passes: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.solvers.base import EpochRecord

_SECONDS_BETWEEN_LINES = 2.0


class Progress(Protocol):
    """Told of passes as they run; ``rows`` from any thread."""

    def begin_pass(self, what: str, n_rows: int | None) -> None:
        """Take note that a pass over so many rows begins; ``None`` where nobody knows yet."""

    def rows(self, n_rows: int) -> None:
        """Take note that so many more rows are done."""

    def epoch(self, record: EpochRecord) -> None:
        """Take note that an epoch is done."""

    def close(self) -> None:
        """End the show: the work is done, or failed."""


class NoProgress:
    """Shows nothing."""

    def begin_pass(self, what: str, n_rows: int | None) -> None:
        """Do nothing."""

    def rows(self, n_rows: int) -> None:
        """Do nothing."""

    def epoch(self, record: EpochRecord) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class EpochCallback(NoProgress):
    """Hands each epoch's record to a function."""

    def __init__(self, callback: Callable[[EpochRecord], object]) -> None:
        self._callback = callback

    def epoch(self, record: EpochRecord) -> None:
        """Call the function."""
        self._callback(record)


class Lines(NoProgress):
    """Plain lines on standard error: of epochs, and of rows where a pass takes long or is alone.

    At most one in two seconds, and the last.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._began = self._printed = time.monotonic()
        self._done, self._total = 0, ""
        self._has_epochs = False
        self._held: str | None = None
        self._lock = threading.Lock()

    def begin_pass(self, what: str, n_rows: int | None) -> None:
        """Count rows anew."""
        del what
        self._done, self._total = 0, "" if n_rows is None else f" of {n_rows:,}"

    def rows(self, n_rows: int) -> None:
        """Print a line of the rows done if none was printed of late."""
        with self._lock:
            self._done += n_rows
            self._offer(f"{self._done:,}{self._total} rows", keep=not self._has_epochs)

    def epoch(self, record: EpochRecord) -> None:
        """Print the epoch's line, or keep it for the end."""
        with self._lock:
            self._has_epochs = True
            self._offer(describe(record), keep=True, at_once=record.epoch == 1)

    def close(self) -> None:
        """Print the last line, if it was kept."""
        if self._held is not None:
            self._print(self._held)
            self._held = None

    def _offer(self, what: str, *, keep: bool, at_once: bool = False) -> None:
        now = time.monotonic()
        line = f"{self._name} {what}  {now - self._began:.1f} s"
        if at_once or now - self._printed >= _SECONDS_BETWEEN_LINES:
            self._print(line)
            self._printed, self._held = now, None
        elif keep:
            self._held = line

    def _print(self, line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


class Bars(NoProgress):
    """A bar for each pass, on standard error."""

    def __init__(self, name: str) -> None:
        from rich.console import Console  # noqa: PLC0415  (only where bars are shown)
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._name = name
        self._last = ""
        self._bars = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
            TimeElapsedColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._bars.add_task(name, total=None)

    def begin_pass(self, what: str, n_rows: int | None) -> None:
        """Start the bar anew."""
        del what
        # not sooner: work that is refused shows no bar
        self._bars.start()
        self._bars.reset(self._task, total=n_rows, description=f"{self._name} {self._last}")

    def rows(self, n_rows: int) -> None:
        """Move the bar."""
        self._bars.advance(self._task, n_rows)

    def epoch(self, record: EpochRecord) -> None:
        """Name the epoch beside the bar."""
        self._last = describe(record)
        self._bars.update(self._task, description=f"{self._name} {self._last}")

    def close(self) -> None:
        """Leave the last bar where it is."""
        self._bars.stop()


def describe(record: EpochRecord) -> str:
    """Return an epoch's record as a line for people."""
    gradient = (
        f"  gradient {record.gradient_norm:.1e}"
        if record.gradient_norm == record.gradient_norm
        else ""
    )
    return f"epoch {record.epoch}  loss {record.loss:.6g}{gradient}"


def progress_of(choice: object, name: str) -> Progress:
    """Return what ``progress=`` asks for: ``False``, ``True`` or a function of each record."""
    if callable(choice):
        return EpochCallback(choice)
    if not choice:
        return NoProgress()
    return Bars(name) if sys.stderr.isatty() else Lines(name)
