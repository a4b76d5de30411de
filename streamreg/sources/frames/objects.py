"""Python objects as float64."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

import numpy as np

from streamreg.blocks import EXACT_INTEGERS
from streamreg.errors import InputError
from streamreg.sources.frames.advice import DATES, TEXTS

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64

_NO_NUMBERS = (str, bytes, date, timedelta, np.datetime64, np.timedelta64)


class NotNumbersError(InputError, TypeError):
    """An element is no number; scikit-learn's estimators raise TypeError for it."""


def floats_of_objects(objects: Array, name: str, start: int = 0) -> tuple[Float64, bool]:
    """Return objects as float64, and whether an integer was rounded; pd.NA and None are NaN."""
    flat = objects.ravel()
    for at, value in enumerate(flat):
        if isinstance(value, _NO_NUMBERS):
            what, cure = "text", TEXTS
            if not isinstance(value, str | bytes):
                # NumPy would make numbers of its own dates and durations, in any unit
                what, cure = "a date or a duration", DATES
            raise InputError(
                f"{name} has objects that are not numbers: {value!r} in row "
                f"{start + at * len(objects) // max(1, len(flat)):,} is {what}; {cure}"
            )
    missing = np.fromiter(map(_is_missing, flat), bool, len(flat)).reshape(objects.shape)
    if missing.any():
        objects = objects.copy()
        objects[missing] = np.nan
    try:
        floats: Float64 = objects.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        kind = NotNumbersError if isinstance(error, TypeError) else InputError
        raise kind(
            f"{name} has objects that are not numbers: {error}; store integers or floats"
        ) from error
    large = np.abs(floats) >= EXACT_INTEGERS
    rounds = large.any() and any(_is_large_integer(value) for value in objects[large])
    return floats, bool(rounds)


def _is_missing(value: object) -> bool:
    # pandas need not be installed
    return value is None or type(value).__name__ == "NAType"


def _is_large_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and abs(int(value)) > EXACT_INTEGERS
