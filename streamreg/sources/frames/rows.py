"""A source of the rows of a frame or series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.sources.base import Kind, Reader, RowGrid, RowSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array, Float64


class FrameRows(NamedTuple):
    """A frame whose columns are all real numbers, and a function that converts some of its rows."""

    frame: Any
    shape: tuple[int, ...]
    convert: Callable[[int, int], tuple[Float64, bool]]


class FrameSource(RowSource):
    """The rows of a frame, as float64; each block is a copy."""

    fingerprint_reads_all_rows = True

    def __init__(self, rows: FrameRows, name: str) -> None:
        self.rows = rows
        self.name = name
        self.shape = rows.shape
        self.dtype = np.dtype(np.float64)
        n_rows = rows.shape[0]
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=max(1, n_rows), divisible=True)

    def open(self) -> Reader:
        return _FrameReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        # the columns, and the rows that are made of them; and what a column takes meanwhile
        return 3 * block_rows * self.row_nbytes + 32 * block_rows


class _FrameReader(Reader):
    def __init__(self, source: FrameSource) -> None:
        self._source = source

    def read(self, start: int, stop: int) -> Array:
        values, is_rounded = self._source.rows.convert(start, stop)
        if is_rounded:
            self._source.is_rounded = True
        return values if len(self._source.shape) > 1 else values[:, 0]


def open_rows(data: FrameRows, name: str, _missing_chunks: str) -> RowSource:
    """Return the rows of a frame."""
    return FrameSource(data, name)


KIND = Kind(lambda data: isinstance(data, FrameRows), open_rows)
