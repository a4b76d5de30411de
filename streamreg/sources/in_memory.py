"""NumPy arrays in memory: their blocks are views."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError, Remedy
from streamreg.sources.base import Kind, Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import ViewReader
from streamreg.sources.memmap import memmap_rows

if TYPE_CHECKING:
    from streamreg.blocks import Array


def open_rows(data: Array, name: str, _missing_chunks: str) -> RowSource:
    """Return the rows of a NumPy array; masked values are refused."""
    if isinstance(data, np.ma.MaskedArray):
        if not np.any(data.mask):
            return open_rows(data.data, name, _missing_chunks)
        raise InputError(
            f"{name} is a masked array, whose masked values would be read as numbers; pass "
            f"{name}.astype(float).filled(np.nan) and ",
            Remedy("nan_policy", "omit"),
            " to leave such rows out",
        )
    return memmap_rows(data, name) or ArraySource(data, name)


# the rows may be in memory, or mapped from a file
KIND = Kind(lambda data: isinstance(data, np.ndarray), open_rows)


class ArraySource(RowSource):
    """An array in memory: its blocks are views, nothing is copied."""

    in_memory = fingerprint_reads_all_rows = True
    column_step = 1

    def __init__(self, array: Array, name: str) -> None:
        self.array = array
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        n_rows = array.shape[0] if array.ndim else 0
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=max(1, n_rows), divisible=True)

    def open(self) -> Reader:
        return ViewReader(self.array)

    def reader_nbytes(self, block_rows: int) -> int:  # noqa: ARG002
        return 0

    def in_strips(self, width: int) -> RowSource:
        source = ArraySource(self.array.T, self.name)
        source.grid = RowGrid.in_blocks(len(source.array), width, divisible=True)
        return source
