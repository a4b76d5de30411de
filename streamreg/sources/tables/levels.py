"""The levels of one-hot columns."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from streamreg.errors import InputError, Remedy
from streamreg.formatting import count
from streamreg.schema import MOST_LEVELS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_TRUTH = "^(?i:true|false)$"
# programs write one value in several ways: pandas a whole number as 1.0 if the column has a gap,
# and a date without its time if all are midnight; polars a date with a T
_SPELLINGS = (
    (r"^(-?(?:0|[1-9]\d*))\.0+$", r"\1"),
    (r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)", r"\1 \2"),
    (r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\.0+$", r"\1"),
    (r"^(\d{4}-\d\d-\d\d) 00:00:00$", r"\1"),
)


def require_few(column: str, levels: Collection[str], table: str, n_rows: int) -> None:
    """Refuse a one-hot column with too many levels in the first rows of a table."""
    if len(levels) > MOST_LEVELS:
        raise InputError(
            f"column {column} of {table} has more than {MOST_LEVELS:,} levels in "
            f"{count(n_rows, 'row')}; hash it with ",
            Remedy("hash", column),
            ", or leave it out with ",
            Remedy("ignore", column),
        )


def one_spelling(texts: pa.Array) -> pa.Array:
    """Return the same text for the same value: 1.0 is 1, True is true, a date has no midnight."""
    for pattern, replacement in _SPELLINGS:
        texts = pc.replace_substring_regex(texts, pattern, replacement)
    is_truth = pc.match_substring_regex(texts, _TRUTH)
    return pc.if_else(is_truth, pc.ascii_lower(texts), texts)


def numbers_of_levels(texts: pa.Array, levels: pa.Array) -> pa.Array:
    """Return the numbers of the levels (n,), null for texts that are none in any spelling."""
    numbers = pc.index_in(texts, value_set=levels)
    if numbers.null_count == texts.null_count:
        return numbers
    others = pc.index_in(one_spelling(texts), value_set=one_spelling(levels))
    return pc.coalesce(numbers, others)


def in_order(levels: Iterable[str]) -> tuple[str, ...]:
    """Return levels in alphabetical order, or in numerical order if all are numbers."""
    ordered = sorted(levels)
    with suppress(ValueError):
        ordered.sort(key=float)
    return tuple(ordered)
