"""Rows of X that are read once and then held in memory, for several passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.engines.partition import Blocks
from streamreg.engines.reader_pool import ReaderPool
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.checks import block_dtype
from streamreg.sources.chunk_reader import ViewReader
from streamreg.sources.dataset import Dataset

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array
    from streamreg.progress import Progress
    from streamreg.sources.block_reader import BlockReader


class HeldRows(RowSource):
    """The rows of another source, in memory once :meth:`fill` has read them."""

    in_memory = True

    def __init__(self, source: RowSource) -> None:
        self.source = source
        self.name = source.name
        self.shape = source.shape
        self.dtype = block_dtype(source.dtype)
        self.grid = RowGrid(n_rows=self.shape[0], chunk_rows=self.shape[0], divisible=True)
        self.missing_text = source.missing_text
        self.is_rounded = source.is_rounded
        self._rows: Array | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.grid.n_rows * self.row_nbytes

    def fill(self, n_threads: int, progress: Progress) -> None:
        """Read the rows, with as many readers as threads."""
        rows = np.empty(self.shape, self.dtype)
        blocks = Blocks.of(self.source.grid, self.source.row_nbytes)

        def copy(reader: BlockReader, start: int, stop: int) -> set[str]:
            rows[start:stop] = reader.read(start, stop).X
            return reader.rounded

        progress.begin_pass(self.shape[0])
        with ReaderPool(Dataset(self.source), blocks, n_threads, progress.rows) as pool:
            for rounded in pool.read_in_order(range(len(blocks)), copy):
                self.is_rounded |= bool(rounded)
        self._rows = rows

    def open(self) -> Reader:
        if self._rows is None:
            raise RuntimeError(f"{self.name} was not read")
        return ViewReader(self._rows)

    def reader_nbytes(self, block_rows: int) -> int:  # noqa: ARG002
        return 0

    def local_paths(self) -> list[Path]:
        return self.source.local_paths()

    def require_unchanged(self) -> None:
        self.source.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:
        return self.source.place(row, column)
