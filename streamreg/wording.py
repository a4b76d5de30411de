"""Counts and values as messages show them."""

from __future__ import annotations

import os
import reprlib

import numpy as np

_PRINTER = reprlib.Repr()
_PRINTER.maxstring = _PRINTER.maxother = _PRINTER.maxlong = 80


def count(number: int, noun: str) -> str:
    """Return ``1 row`` or ``1,000 rows``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else plural}"


def left_out(n_omitted: int, n_rows: int) -> list[str]:
    """Return the warning that rows were left out for NaN or inf, if any were."""
    if not n_omitted:
        return []
    holds, was = ("holds", "was") if n_omitted == 1 else ("hold", "were")
    rows = f"{n_omitted:,} of {count(n_rows, 'row')} {holds} NaN or inf and {was} left out"
    return [f'{rows} (nan_policy="omit")']


def shown(value: object) -> str:
    """Return what a user passed, on one line: NumPy's numbers as Python's, long values cut."""
    if isinstance(value, np.generic):
        value = value.item()
    try:
        text = _PRINTER.repr(value)
    except ValueError:  # integers of more digits than Python prints
        return f"<{type(value).__name__}>"
    return " ".join(text.split())


def unsaved(path: object, why: str) -> str:
    """Say that a fit is done although nothing of it could be saved on its way."""
    return (
        f"the fit is done and its answer stands, but not once could it be saved to checkpoint "
        f"{os.fspath(path)!r}: {why}. Pass a path on a disk with room, or no checkpoint"  # type: ignore[call-overload]
    )
