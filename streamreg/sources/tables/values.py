"""The values of a table's columns as numbers, and as texts."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from streamreg.blocks import EXACT_INTEGERS

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64

_NUMBERS = (
    types.is_integer,
    types.is_floating,
    types.is_decimal,
    types.is_boolean,
    types.is_null,  # all values are missing
)
_LISTS = (types.is_list, types.is_large_list, types.is_fixed_size_list)
_INTEGER = re.compile(r"\s*[+-]?\d{1,400}\s*")


class NotNumbersError(Exception):
    """The arguments are the row of the first value that is not a number, and that value."""


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are real numbers."""
    return any(is_kind(kind) for is_kind in _NUMBERS)


def is_vector(kind: pa.DataType) -> bool:
    """Whether values of this type are lists of real numbers."""
    return any(is_kind(kind) for is_kind in _LISTS) and is_number(kind.value_type)


def has_levels(kind: pa.DataType) -> bool:
    """Whether values of this type are texts or categories."""
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_dictionary)
    return any(is_kind(kind) for is_kind in tests)


def describe_type(kind: pa.DataType) -> str:
    """Return what a column holds, in words, if it does not hold numbers."""
    if types.is_dictionary(kind):
        return "categories"
    if has_levels(kind):
        return "text"
    if types.is_date(kind) or types.is_timestamp(kind):
        return f"dates, {kind}"
    if types.is_duration(kind) or types.is_time(kind) or types.is_interval(kind):
        return f"{'times' if types.is_time(kind) else 'durations'}, {kind}"
    return str(kind)


def loses_digits(column: pa.Array, numbers: Array) -> bool:
    """Whether a column has integers beyond 2**53; ``numbers`` are its values, perhaps as float64.

    Missing ones are NaN.
    """
    kind = column.type
    if types.is_floating(kind) or types.is_boolean(kind) or not len(numbers):
        return False
    if types.is_integer(kind) and kind.bit_width < 64:  # noqa: PLR2004
        return False
    if numbers.dtype.kind in "iu":
        return bool(numbers.max() > EXACT_INTEGERS or numbers.min() < -EXACT_INTEGERS)
    large = np.abs(numbers) >= EXACT_INTEGERS
    if not large.any():
        return False
    texts = (str(value) for value in column.filter(pa.array(large)).to_pylist())
    return any(abs(int(text)) > EXACT_INTEGERS for text in texts if _INTEGER.fullmatch(text))


def as_stored(column: pa.Array) -> Array | None:
    """Return integers or floats (n,) without a copy; ``None`` for gaps and other types."""
    kind = column.type
    if column.null_count or not (types.is_integer(kind) or types.is_floating(kind)):
        return None
    numbers: Array = column.to_numpy(zero_copy_only=True)
    return numbers


def as_floats(column: pa.Array) -> Float64:
    """Return numbers (n,) as float64: null is NaN, true is 1 and false is 0."""
    kind = column.type
    if types.is_decimal(kind):
        # through text, because pyarrow's own conversion turns 0.1 into 0.09999999999999999
        column = column.cast(pa.string()).cast(pa.float64())
    elif not is_number(kind):
        row = column.is_valid().index(True).as_py()
        raise NotNumbersError(row, column[row])
    elif not types.is_float64(kind):
        column = column.cast(pa.float64(), safe=False)
    if column.null_count:
        column = pc.fill_null(column, np.nan)
    numbers: Float64 = column.to_numpy(zero_copy_only=False)
    return numbers


def as_texts(column: pa.Array) -> pa.Array:
    """Return values as texts; null and NaN are null. Raises ``pa.ArrowException``."""
    if types.is_dictionary(column.type):
        # only the categories are cast, because pyarrow cannot take from polars' views of texts
        return as_texts(column.dictionary).take(column.indices)
    if types.is_floating(column.type):
        missing = pc.is_null(column, nan_is_null=True)
        return pc.if_else(missing, pa.scalar(None, pa.string()), column.cast(pa.string()))
    if pa.types.is_binary_view(column.type) or types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.string())


def parse(text: pa.Array, decimal: Literal[".", ","] = ".") -> Float64:
    """Parse texts as numbers; spaces around them are ignored, true is 1 and false is 0.

    Null and texts of spaces alone are NaN. Other texts raise :class:`NotNumbersError`.
    """
    numbers = _cast(text) if decimal == "." else None
    if numbers is None:
        words = pc.utf8_lower(pc.utf8_trim_whitespace(text))
        words = pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)
        for word, number in (("true", "1"), ("false", "0")):
            words = pc.if_else(pc.equal(words, word), number, words)
        if decimal == ",":
            # a point can only separate thousands, so the text is no number
            words = pc.replace_substring(pc.replace_substring(words, ".", "_"), ",", ".")
        numbers = _cast(words)
        if numbers is None:
            # bisect for the first row that cannot be parsed: ``words[:n]`` fails for n beyond it
            end = range(1, len(words))
            row = bisect_left(end, x=True, key=lambda n: _cast(words[:n]) is None)
            raise NotNumbersError(row, text[row])
    return as_floats(numbers)


def _cast(text: pa.Array) -> pa.Array | None:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        return None
