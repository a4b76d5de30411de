"""The values of a table's columns as numbers."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.types import is_boolean, is_decimal, is_dictionary, is_floating, is_integer

from streamreg.blocks import EXACT_INTEGERS

if TYPE_CHECKING:
    from streamreg.blocks import Float64

MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>"]
_NUMBERS = (is_integer, is_floating, is_decimal, is_boolean)
_INTEGER = re.compile(r"\s*[+-]?\d{1,400}\s*")


class NotNumbersError(Exception):
    """The arguments are the row of the first value that is not a number, and that value."""


def loses_digits(column: pa.Array, numbers: Float64) -> bool:
    """Whether a column has integers beyond 2**53; ``numbers`` are its values as float64."""
    large = np.abs(numbers) >= EXACT_INTEGERS
    if not large.any() or is_floating(column.type):
        return False
    texts = (str(value) for value in column.filter(pa.array(large)).to_pylist())
    return any(abs(int(text)) > EXACT_INTEGERS for text in texts if _INTEGER.fullmatch(text))


def widen(column: pa.Array) -> pa.Array:
    """Return a column of numbers as float64, true as 1 and false as 0; null stays null."""
    kind = column.type.value_type if is_dictionary(column.type) else column.type
    if is_decimal(kind):
        # through text, because pyarrow's own conversion turns 0.1 into 0.09999999999999999
        return column.cast(pa.string()).cast(pa.float64())
    if any(is_kind(kind) for is_kind in _NUMBERS):
        return column.cast(pa.float64(), safe=False)
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.float64())
    row = column.is_valid().index(True).as_py()
    raise NotNumbersError(row, column[row])


def parse(text: pa.Array) -> pa.Array:
    """Parse texts as numbers; spaces around them are ignored, true is 1 and false is 0."""
    numbers = _cast(text)
    if numbers is not None:
        return numbers
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    absent = pc.is_in(words, value_set=pa.array([name.lower() for name in MISSING]))
    words = pc.if_else(absent, pa.scalar(None, pa.string()), words)
    for word, number in (("true", "1"), ("false", "0")):
        words = pc.if_else(pc.equal(words, word), number, words)
    numbers = _cast(words)
    if numbers is None:
        # bisect for the first row that cannot be parsed: ``words[:n]`` fails for all n beyond it
        row = bisect_left(range(1, len(words)), x=True, key=lambda n: _cast(words[:n]) is None)
        raise NotNumbersError(row, text[row])
    return numbers


def _cast(text: pa.Array) -> pa.Array | None:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
