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
        # the first row in the buffer, and how many follow, to the end of a chunk
        self._first, self._n_held = 0, 0

    @abstractmethod
    def load(self, chunk: int, out: Array) -> None:
        """Fill ``out``, which has the rows of the tallest chunk, with those of a chunk."""

    def read(self, start: int, stop: int) -> Array:
        grid = self._source.grid
        n_left = self._n_left(start)
        if n_left < stop - start:
            first, last = grid.chunk_at(start + n_left), grid.chunk_at(stop - 1)
            if grid.rows(first)[0] < start and first < last:
                # only rows that are in this block are kept of its first chunk
                n_left, first = len(self.read(start, grid.rows(first)[1])), first + 1
            self._load(start, n_left, range(first, last + 1))
        return self._buffer.rows(self._n_held)[start - self._first : stop - self._first]

    def _n_left(self, start: int) -> int:
        """Return how many rows from ``start`` on are in the buffer."""
        stop = self._first + self._n_held
        return stop - start if self._first <= start < stop else 0

    def _load(self, start: int, n_left: int, chunks: range) -> None:
        """Load chunks behind the rows from ``start`` on, which move to the front."""
        grid, offset = self._source.grid, start - self._first
        first = start if n_left else grid.rows(chunks[0])[0]
        before_last = grid.rows(chunks[-1])[0] - first
        # cleared first, because a load that fails may leave part of another chunk in the buffer
        self._n_held = 0
        rows = self._buffer.moved(offset, n_left, before_last + grid.chunk_rows)
        for chunk in chunks:
            at = grid.rows(chunk)[0] - first
            self.load(chunk, rows[at : at + grid.chunk_rows])
        self._first, self._n_held = first, grid.rows(chunks[-1])[1] - first


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

    def moved(self, offset: int, count: int, room: int) -> Array:
        """Return ``room`` rows, of which the first ``count`` are those from ``offset`` on."""
        left = self._rows[offset : offset + count] if count else None
        if left is not None and len(self._rows) < room:
            # the buffer is freed before a larger one is made
            left = left.copy()
        rows = self.rows(room)
        if left is not None:
            rows[:count] = left
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
