"""Sparse rows as dense ones, made as they are read: y of many targets, such as counts of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import RowBuffer

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array
    from streamreg.sources.file_stamps import FileStamps


class DenseRows(RowSource):
    """Columns ``start`` to ``stop`` of sparse rows, as float64 (N, K).

    Any rows can be read. They are read a block of the sparse rows at a time.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, sparse: RowSource, start: int, stop: int) -> None:
        self.sparse = sparse
        self.columns = slice(start, stop)
        self.name = sparse.name
        n_rows = sparse.shape[0]
        self.shape = (n_rows, stop - start)
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=max(1, n_rows), divisible=True)
        self.storage = f"{sparse.storage} {start}:{stop}"
        self.stamps = sparse.stamps
        self.fingerprint_reads_all_rows = sparse.fingerprint_reads_all_rows
        self.why_unreachable_from_workers = sparse.why_unreachable_from_workers
        names = sparse.feature_names
        self.target_names = None if names is None else names[start:stop]

    def open(self) -> Reader:
        return _DenseReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        n_rows = self.sparse.grid.chunk_rows
        sparse = self.sparse.reader_nbytes(n_rows)
        # of each value its row and column as integers of 64 bits, itself, and which are of columns
        # that are read: fewer bytes than four times those of the value and its column
        return sparse + 4 * self.sparse.block_nbytes(n_rows) + block_rows * self.row_nbytes

    @property
    def shared_nbytes(self) -> int:
        return self.sparse.shared_nbytes

    @property
    def pass_nbytes(self) -> int:
        return self.sparse.pass_nbytes

    def around_columns(self, start: int, stop: int) -> tuple[RowSource, int]:
        first = self.columns.start
        return DenseRows(self.sparse, first + start, first + stop), start

    def local_paths(self) -> list[Path]:
        return self.sparse.local_paths()

    def watched(self) -> dict[str, FileStamps]:
        return self.sparse.watched()

    def require_exists(self) -> None:
        self.sparse.require_exists()

    def require_unchanged(self) -> None:
        self.sparse.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:
        return self.sparse.place(row, self.columns.start + column)

    def describe(self) -> dict[str, Any]:
        return self.sparse.describe()


class _DenseReader(Reader):
    def __init__(self, source: DenseRows) -> None:
        self._source = source
        self._sparse = source.sparse.open()
        self._rows = RowBuffer(source.shape[1:], source.dtype)

    @property
    def rounds(self) -> bool:  # type: ignore[override]
        """Whether a read rounded an integer, perhaps of another column."""
        return self._sparse.rounds

    def read(self, start: int, stop: int) -> Array:
        rows = self._rows.rows(stop - start)
        for _, low, high in self._source.sparse.grid.spans(start, stop):
            sparse: Any = self._sparse.read(low, high)
            sparse.write_dense(rows[low - start : high - start], self._source.columns)
        return rows

    def prefetch(self, start: int, stop: int) -> None:
        for _, low, high in self._source.sparse.grid.spans(start, stop):
            self._sparse.prefetch(low, high)

    def close(self) -> None:
        self._sparse.close()
