"""The numbers of the rows, as a source: where X is not read, they say which rows count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.sources.base import Reader, RowSource

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowGrid


class RowNumbers(RowSource):
    """0 … N - 1 as a column (N, 1), made as they are read."""

    name = "row numbers"
    dtype = np.dtype(np.int64)
    in_memory = True

    def __init__(self, grid: RowGrid) -> None:
        self.grid = grid
        self.shape = (grid.n_rows, 1)

    def open(self) -> Reader:
        return _Numbers()

    def reader_nbytes(self, block_rows: int) -> int:
        return block_rows * self.row_nbytes


class _Numbers(Reader):
    def read(self, start: int, stop: int) -> Array:
        return np.arange(start, stop)[:, None]
