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
    """Reads whole chunk rows, keeps the last one, and joins them if a block spans several."""

    def __init__(self, source: RowSource) -> None:
        self._source = source
        # filled by ``load``, unless that returns rows of another library
        self._buffer = RowBuffer(source.shape[1:], source.dtype)
        self._joined = RowBuffer(source.shape[1:], source.dtype)
        # the chunk that was loaded last, and its rows
        self._loaded: tuple[int, Array] | None = None

    @abstractmethod
    def load(self, chunk: int) -> Array:
        """Return the rows of a chunk; they are valid until the next call."""

    def read(self, start: int, stop: int) -> Array:
        spans = self._source.grid.spans(start, stop)
        if len(spans) == 1:
            return self._part(*spans[0])
        joined = self._joined.rows(stop - start)
        for chunk, low, high in spans:
            joined[low - start : high - start] = self._part(chunk, low, high)
        return joined

    def _part(self, chunk: int, start: int, stop: int) -> Array:
        if self._loaded is None or self._loaded[0] != chunk:
            # cleared first, because a load that fails may leave part of another chunk in the buffer
            self._loaded = None
            self._loaded = chunk, self.load(chunk)
        offset = self._source.grid.rows(chunk)[0]
        return self._loaded[1][start - offset : stop - offset]


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


# glibc may retain freed blocks below this size (its largest dynamic mmap threshold)
_FREED_AT_ONCE_NBYTES = 32 * MIB


def joined_nbytes(source: RowSource, block_rows: int) -> int:
    """Bytes of the buffer in which a :class:`ChunkReader` joins chunks; 0 where it needs none."""
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
