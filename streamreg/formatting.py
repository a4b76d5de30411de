"""Counts, sizes, row ranges and values as text."""

from __future__ import annotations

import json
import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import Parameter, Verbatim

if TYPE_CHECKING:
    from collections.abc import Sequence

KIB = 1024
MIB = 1024**2
GIB = 1024**3
_YEAR_SECONDS = 365 * 86400
UNIT_NAMES = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_PRINTER = reprlib.Repr()
_PRINTER.maxstring = _PRINTER.maxother = _PRINTER.maxlong = 80


def format_nbytes(nbytes: int, *, up: bool = False) -> str:
    """Return a size such as ``74.5 GiB``, ``122.1 MiB`` or ``800 bytes``.

    With ``up`` the size is rounded up, so that the text parses to no fewer bytes.
    """
    if nbytes < KIB:
        return "1 byte" if nbytes == 1 else f"{nbytes} bytes"
    for power, unit in enumerate(UNIT_NAMES, 1):
        # integers, because a float could overflow
        tenths = -(-10 * nbytes // 1024**power) if up else (20 * nbytes // 1024**power + 1) // 2
        if tenths < 10 * KIB or unit == UNIT_NAMES[-1]:
            break
    return f"{tenths // 10}.{tenths % 10} {unit}"


def column_names(names: Sequence[str] | None, n_columns: int) -> tuple[str, ...]:
    """Return the names of columns: x0, x1, … without any, by the numbers that messages use."""
    return tuple(names or (f"x{j}" for j in range(n_columns)))


def target_names(names: Sequence[str] | None, n_targets: int) -> tuple[str, ...]:
    """Return the names of targets: without any y of one, and y0, y1, … of several."""
    return tuple(names or (["y"] if n_targets == 1 else (f"y{k}" for k in range(n_targets))))


def format_seconds(seconds: float) -> str:
    """Return a rough time for people: ``under 1 s``, ``about 2 min``, ``about 5 h``."""
    if seconds < 1:
        return "under 1 s"
    if seconds > 100 * _YEAR_SECONDS:
        return "over 100 years"
    units = ((_YEAR_SECONDS, "years"), (86400, "days"), (3600, "h"), (60, "min"))
    for length, unit in units:
        if seconds >= 2 * length:
            return f"about {seconds / length:,.0f} {unit}"
    return f"about {seconds:.0f} s"


def rows_text(start: int, stop: int, noun: str = "row") -> str:
    """Return a row range such as ``rows 278,528–294,911``, or one of other things."""  # noqa: RUF002
    if stop - start == 1:
        return f"{noun} {start:,}"
    return f"{noun}s {start:,}–{stop - 1:,}"  # noqa: RUF001


def count(number: int, noun: str) -> str:
    """Return ``1 row`` or ``1,000 rows``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def agree(number: int, one: str, several: str) -> str:
    """Return the form of a word that agrees with a number of things.

    >>> f"{count(1, 'row')} {agree(1, 'is', 'are')} absent"
    '1 row is absent'
    """
    return one if number == 1 else several


def shown(value: object) -> str:
    """Return the repr of a value on one line, shortened, with NumPy's numbers as Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = _PRINTER.repr(value)
    except ValueError:  # integers of more digits than Python prints
        return f"<{type(value).__name__}>"
    return " ".join(text.split())


def as_json(value: object) -> Any:  # noqa: ANN401  (JSON)
    """Return a value as JSON holds it: NumPy's values as Python's, NaN and inf as None."""
    text = json.dumps(value, default=lambda each: each.tolist())
    return json.loads(text, parse_constant=lambda _: None)


def given(name: str, value: object) -> Parameter:
    """Return a parameter with the value that a user passed, for a message."""
    return Parameter(name, Verbatim(shown(value)))
