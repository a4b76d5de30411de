"""Readers for one thread, and their buffers."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.formatting import MIB
from streamreg.sources.base import Reader

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource


class ViewReader(Reader):
    """Returns views of an array in memory."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def read(self, start: int, stop: int) -> Array:
        return self._array[start:stop]


class ChunkReader(Reader):
    """Reads whole chunk rows into one buffer, one after the other, so that blocks need no copy.

    What a block leaves of its last chunk is moved to the front of the buffer by the next one.
    """

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._buffer = RowBuffer(source.shape[1:], source.dtype)
        # the first row in the buffer, and the rows: up to the end of a chunk
        self._held: tuple[int, Array] = 0, self._buffer.rows(0)

    @abstractmethod
    def load(self, chunk: int, out: Array) -> None:
        """Fill ``out``, which has the rows of the highest chunk, with those of a chunk."""

    def read(self, start: int, stop: int) -> Array:
        grid = self._source.grid
        left = self._left(start)
        if len(left) >= stop - start:
            return left[: stop - start]
        first, last = grid.chunk_at(start + len(left)), grid.chunk_at(stop - 1)
        if grid.rows(first)[0] < start and first < last:
            # the rows before this block would take memory
            left, first = self.read(start, grid.rows(first)[1]), first + 1
        begin = start if len(left) else grid.rows(first)[0]
        stops = [grid.rows(chunk)[1] for chunk in range(first, last + 1)]
        before_last = stops[-2] - begin if len(stops) > 1 else len(left)
        # cleared first, because a load that fails may leave part of another chunk in the buffer
        self._held = 0, self._buffer.rows(0)
        rows = self._buffer.after(left, before_last + grid.chunk_rows)
        filled = len(left)
        for chunk, end in enumerate(stops, first):
            self.load(chunk, rows[filled : filled + grid.chunk_rows])
            filled = end - begin
        self._held = begin, rows[:filled]
        return rows[start - begin : stop - begin]

    def _left(self, start: int) -> Array:
        """Return the rows from ``start`` on that are in the buffer."""
        begin, rows = self._held
        return rows[start - begin :] if begin <= start else rows[:0]


class RowBuffer:
    """A buffer of rows that is reused by the next read, and grows if it must."""

    def __init__(self, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows: Array = np.empty((0, *row_shape), dtype)

    def rows(self, count: int) -> Array:
        """Return ``count`` contiguous rows; their values are undefined."""
        if len(self._rows) < count:
            row_shape, dtype = self._rows.shape[1:], self._rows.dtype
            # freed first, so that the old and the new buffer never coexist
            self._rows = np.empty((0, *row_shape), dtype)
            self._rows = np.empty((count, *row_shape), dtype)
        return self._rows[:count]

    def after(self, left: Array, count: int) -> Array:
        """Return ``count`` rows, of which the first are ``left``, which may be in the buffer."""
        if len(self._rows) < count:
            left = left.copy()
        rows = self.rows(count)
        rows[: len(left)] = left
        return rows


# glibc may retain freed blocks below this size (its largest dynamic mmap threshold)
_FREED_AT_ONCE_NBYTES = 32 * MIB


def joined_nbytes(source: RowSource, block_rows: int) -> int:
    """Bytes that a reader of chunks takes for blocks of several chunks, beside one chunk."""
    grid = source.grid
    if grid.bounds is None and block_rows <= grid.chunk_rows:
        return 0
    return block_rows * source.row_nbytes


def heaps_nbytes(source: RowSource) -> int:
    """Bytes of freed chunk rows that the heaps of another library's threads retain.

    Measured with zarr-python 3.1, Dask and HDF5 on glibc 2.36: up to two chunk rows, for any
    number of readers. A block of 32 MiB or more goes back to the system at once.
    """
    nbytes = source.grid.chunk_rows * source.row_nbytes
    return 2 * nbytes if nbytes < _FREED_AT_ONCE_NBYTES else 0
