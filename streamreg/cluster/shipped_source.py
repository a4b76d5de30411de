"""Dask arrays on a cluster: chunks stay on workers, and tasks receive them as arguments."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import SparseRows
from streamreg.sources.base import Reader, RowSource
from streamreg.sources.checks import as_rows, concatenated
from streamreg.sources.dask import chunk_row
from streamreg.sources.scipy_csr import as_sparse_rows

if TYPE_CHECKING:
    from streamreg.blocks import Array


class ShippedSource(RowSource):
    """A Dask array without its graph: a task gets the rows of one block as arguments."""

    is_computed = True
    _reader: Reader  # of the rows that came with the task

    def __init__(self, source: RowSource) -> None:
        self.name = source.name
        self.shape = source.shape
        self.dtype = source.dtype
        self.grid = source.grid
        self.is_cupy = source.is_cupy
        self.is_sparse = source.is_sparse

    def holding(self, start: int, chunks: list[Any]) -> ShippedSource:
        if self.is_sparse:
            # a block of sparse rows is one chunk row
            (chunk,) = chunks
            stop = start + chunk.shape[0]
            sparse: Any = as_sparse_rows(chunk, self, start, stop, self.place(start))
            return self._of(_ShippedReader(sparse, start))
        rows: list[Array] = []
        for chunk in chunks:
            place = self.place(start + sum(map(len, rows)))
            rows.append(as_rows(chunk, len(chunk), self, place))
        return self._of(_ShippedReader(self._joined(rows), start))

    def _of(self, reader: Reader) -> ShippedSource:
        made = copy(self)
        made._reader = reader  # noqa: SLF001  (same class)
        return made

    def _joined(self, rows: list[Array]) -> Array:
        if self.is_cupy or len(rows) == 1:
            return concatenated(rows)
        # in C order, like the rows that a reader joins
        joined = np.empty((sum(map(len, rows)), *self.shape[1:]), self.dtype)
        return np.concatenate(rows, out=joined)

    def open(self) -> Reader:
        return self._reader

    def reader_nbytes(self, block_rows: int) -> int:  # noqa: ARG002  (the memory is Dask's)
        return 0

    def place(self, row: int, column: int = 0) -> str:  # noqa: ARG002
        return chunk_row(self, row)


class _ShippedReader(Reader):
    def __init__(self, rows: Array, start: int) -> None:
        self._rows, self._start = rows, start

    def read(self, start: int, stop: int) -> Array:
        first, last = start - self._start, stop - self._start
        rows: Any = self._rows
        if isinstance(rows, SparseRows):
            part: Any = rows.part(first, last)
            return part  # type: ignore[no-any-return]
        return self._rows[first:last]
