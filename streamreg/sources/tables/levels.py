"""The levels of one-hot columns."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from streamreg.errors import InputError, Remedy
from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_MAX_LEVELS = 1000


def require_few(column: str, levels: Collection[str], table: str, n_rows: int) -> None:
    """Refuse a one-hot column with too many levels in the first rows of a table."""
    if len(levels) > _MAX_LEVELS:
        raise InputError(
            f"column {column} of {table} has more than {_MAX_LEVELS:,} levels in "
            f"{count(n_rows, 'row')}; group them, or leave it out with ",
            Remedy("ignore", column),
        )


def in_order(levels: Iterable[str]) -> tuple[str, ...]:
    """Return levels in alphabetical order, or in numerical order if all are numbers."""
    ordered = sorted(levels)
    with suppress(ValueError):
        ordered.sort(key=float)
    return tuple(ordered)
