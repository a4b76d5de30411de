"""Dask arrays on a cluster: chunks stay on workers, and come to tasks as their arguments."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.base import Reader, RowSource
from streamreg.sources.checks import as_rows, joined_on_device
from streamreg.sources.dask import chunk_row

if TYPE_CHECKING:
    from streamreg.blocks import Array


class ShippedSource(RowSource):
    """A Dask array without its graph: a task gets the rows of one block as arguments."""

    is_computed = True

    def __init__(self, source: RowSource) -> None:
        self.name = source.name
        self.shape = source.shape
        self.dtype = source.dtype
        self.grid = source.grid
        self.on_device = source.on_device
        self._start = 0
        self._rows: Array | None = None

    def holding(self, start: int, chunks: list[Any]) -> ShippedSource:
        """Return the source with the rows from ``start``, in chunks as Dask computed them."""
        rows: list[Array] = []
        for chunk in chunks:
            place = self.place(start + sum(map(len, rows)))
            shape = (len(chunk), *self.shape[1:])
            rows.append(as_rows(chunk, shape, self.dtype, place, on_device=self.on_device))
        made = copy(self)
        made._start, made._rows = start, rows[0]  # noqa: SLF001  (its own kind)
        if self.on_device:
            made._rows = joined_on_device(rows)  # noqa: SLF001
        elif len(rows) > 1:
            # in C order, as readers join chunks
            joined = np.empty((sum(map(len, rows)), *self.shape[1:]), self.dtype)
            made._rows = np.concatenate(rows, out=joined)  # noqa: SLF001
        return made

    def open(self) -> Reader:
        if self._rows is None:
            raise InputError(f"{self.name} is a Dask array whose chunks did not come with the task")
        return _ShippedReader(self._rows, self._start)

    def reader_nbytes(self, block_rows: int) -> int:
        del block_rows  # the memory is Dask's
        return 0

    def place(self, row: int, column: int = 0) -> str:
        del column
        return chunk_row(self, row)


class _ShippedReader(Reader):
    def __init__(self, rows: Array, start: int) -> None:
        self._rows, self._start = rows, start

    def read(self, start: int, stop: int) -> Array:
        return self._rows[start - self._start : stop - self._start]
