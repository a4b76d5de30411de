"""What a person sees of running passes: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.solvers.base import EpochRecord


class Progress:
    """Called while passes run; this class shows nothing."""

    def begin_pass(self, n_rows: int | None) -> None:
        """Start a pass over N rows; ``None`` where N is not known yet."""

    def rows(self, n_rows: int) -> None:
        """Count rows that are done; called from any thread."""

    def epoch(self, record: EpochRecord) -> None:
        """Show the record of an epoch that is done."""

    def close(self) -> None:
        """Stop, because the work is done or has failed."""


NO_PROGRESS = Progress()


class EpochCallback(Progress):
    """Calls a function with each epoch's record."""

    def __init__(self, callback: Callable[[EpochRecord], object]) -> None:
        self._callback = callback

    def epoch(self, record: EpochRecord) -> None:
        self._callback(record)


class Lines(Progress):
    """Lines on standard error: one every ``seconds_between`` while passes run, and a last one."""

    def __init__(self, name: str, seconds_between: float = 2.0) -> None:
        self._title = self._name = name
        self._seconds_between = seconds_between
        self._began = self._printed = time.monotonic()
        self._rows, self._n_rows = 0, ""
        self._has_news = False
        self._lock = threading.Lock()

    def begin_pass(self, n_rows: int | None) -> None:
        self._rows, self._n_rows = 0, "" if n_rows is None else f" of {n_rows:,}"

    def rows(self, n_rows: int) -> None:
        with self._lock:
            self._rows += n_rows
            self._has_news = True
            if time.monotonic() - self._printed >= self._seconds_between:
                self._print()

    def epoch(self, record: EpochRecord) -> None:
        self._title = f"{self._name} {describe(record)} "
        self._has_news = True

    def close(self) -> None:
        if self._has_news:
            self._print()

    def _print(self) -> None:
        self._printed, self._has_news = time.monotonic(), False
        rows = f"{self._rows:,}{self._n_rows} rows"
        sys.stderr.write(f"{self._title} {rows}  {self._printed - self._began:.1f} s\n")
        sys.stderr.flush()


class Bars(Progress):
    """A bar for each pass, on standard error."""

    def __init__(self, name: str) -> None:
        from rich import progress  # noqa: PLC0415  (imported only where bars are shown)
        from rich.console import Console  # noqa: PLC0415

        self._name = name
        self._bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._pass = self._bars.add_task(name, total=None)

    def begin_pass(self, n_rows: int | None) -> None:
        # the first bar appears with the first pass, so that a refusal shows none
        self._bars.start()
        self._bars.reset(self._pass, total=n_rows)

    def rows(self, n_rows: int) -> None:
        self._bars.advance(self._pass, n_rows)

    def epoch(self, record: EpochRecord) -> None:
        self._bars.update(self._pass, description=f"{self._name} {describe(record)}")

    def close(self) -> None:
        self._bars.stop()


def describe(record: EpochRecord) -> str:
    """Return an epoch's record as a line for people."""
    has_gradient = not math.isnan(record.gradient_norm)
    gradient = f"  gradient {record.gradient_norm:.1e}" if has_gradient else ""
    return f"epoch {record.epoch}  loss {record.loss:.6g}{gradient}"


def progress_of(choice: object, name: str) -> Progress:
    """Return the display for ``progress=``: ``False``, ``True`` or a function of each record."""
    if callable(choice):
        return EpochCallback(choice)
    if not choice:
        return NO_PROGRESS
    return Bars(name) if sys.stderr.isatty() else Lines(name)
