"""NumPy arrays in memory: their blocks are views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import (
    ViewReader,
)

if TYPE_CHECKING:
    from streamreg.blocks import Array


class ArraySource(RowSource):
    """A NumPy array in memory: its blocks are views, nothing is copied."""

    def __init__(self, array: Array, name: str) -> None:
        self.array = array
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        n_rows = array.shape[0] if array.ndim else 0
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=max(1, n_rows), divisible=True)

    def open(self) -> Reader:
        return ViewReader(self.array)

    @property
    def in_memory(self) -> bool:
        return True

    def reader_nbytes(self, block_rows: int) -> int:
        del block_rows  # views
        return 0
