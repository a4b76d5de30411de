"""Read the groups of rows before a fit, to learn whether the rows of each are consecutive."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from streamreg.blocks import on_host
from streamreg.errors import InputError, MemoryLimitError, Remedy
from streamreg.formatting import count, format_nbytes
from streamreg.inference.groups import Groups
from streamreg.sources.checks import group_numbers, narrow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource

# rows that are read at once, if chunks allow it
_ROWS = 1 << 20
# arrays as large as the numbers of all groups, while they are collected
_COPIES = 4


def scan_groups(source: RowSource, memory_limit: int) -> Groups:
    """Return how the groups (N,) of rows are stored; sorted groups take no memory.

    Raises
    ------
    InputError
        A group is NaN, or all rows are of one group.
    MemoryLimitError
        The numbers of labels alone do not fit; or groups are not sorted, and theirs do not.
    """
    if source.held_nbytes > memory_limit:
        raise MemoryLimitError(
            f"{source.name} are labels, whose numbers need {format_nbytes(source.held_nbytes)}, "
            f"but memory_limit is {format_nbytes(memory_limit)}: pass numbers, or raise ",
            Remedy("memory_limit"),
        )
    n_runs, ascends, descends, last = 0, True, True, None
    for start, values in pieces_of(source):
        if values.dtype.kind == "f" and np.isnan(values).any():
            row = start + int(np.argmax(np.isnan(values)))
            raise InputError(f"{source.name} has NaN in row {row:,}; every row belongs to a group")
        joined = values if last is None else np.concatenate([last, values])
        before, after = joined[:-1], joined[1:]
        n_runs += int(np.count_nonzero(before != after)) + (last is None)
        ascends &= bool((before <= after).all())
        descends &= bool((before >= after).all())
        last = values[-1:].copy()
    if n_runs == 1:
        raise InputError(f"{source.name} has one group; clustered errors need two or more")
    if ascends or descends:
        return Groups()
    numbers = np.empty(0, np.int64)
    for _, values in pieces_of(source):
        numbers = np.union1d(numbers, group_numbers(values))
        if _COPIES * numbers.nbytes > memory_limit:
            raise MemoryLimitError(
                f"{source.name} is not sorted, and has {count(len(numbers), 'group')} or more, "
                f"whose numbers alone need {format_nbytes(_COPIES * numbers.nbytes)}: sort the "
                "rows by group, so that groups take no memory, or raise ",
                Remedy("memory_limit"),
            )
    # each group is one run
    return Groups() if len(numbers) == n_runs else Groups(numbers)


def pieces_of(source: RowSource) -> Iterator[tuple[int, Array]]:
    """Yield the first row and the values of pieces, (n,)."""
    grid = source.grid
    with closing(source.open()) as reader:
        for chunk in range(len(grid)):
            start, stop = grid.rows(chunk)
            step = _ROWS if grid.divisible else stop - start
            for first in range(start, stop, step):
                values = reader.read(first, min(first + step, stop))
                yield first, on_host(narrow(values))
