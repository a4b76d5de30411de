"""Some consecutive columns of an array, such as a batch of targets, as an array of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamreg.sources.base import Reader, RowSource

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array


def column_range(source: RowSource, start: int, stop: int) -> RowSource:
    """Return columns ``start`` to ``stop`` of an array (N, K); all of them are the array itself.

    Of Zarr only the chunks that hold these columns are read; of other arrays whole rows.
    """
    if len(source.shape) == 1 or (start, stop) == (0, source.shape[1]):
        return source
    return ColumnRange(source, start, stop)


class ColumnRange(RowSource):
    """Columns ``start`` to ``stop`` of an array (N, K)."""

    def __init__(self, source: RowSource, start: int, stop: int) -> None:
        self.whole = source
        # the columns that are read for them
        self.read, first = source.around_columns(start, stop)
        self.first_column = start
        self.part = slice(start - first, stop - first)
        self.name = source.name
        self.shape = source.shape[0], stop - start
        self.dtype = source.dtype
        self.grid = source.grid
        self.in_memory = source.in_memory
        self.attributes = source.attributes
        self.missing_text = source.missing_text
        self.is_rounded = source.is_rounded
        self.storage = f"{source.storage} {start}:{stop}"
        self.stamps = source.stamps
        self.fingerprint_reads_all_rows = source.fingerprint_reads_all_rows
        self.why_unreachable_from_workers = source.why_unreachable_from_workers

    def open(self) -> Reader:
        return _ColumnReader(self.read.open(), self.part)

    def reader_nbytes(self, block_rows: int) -> int:
        return self.read.reader_nbytes(block_rows)

    @property
    def shared_nbytes(self) -> int:
        return self.read.shared_nbytes

    @property
    def held_nbytes(self) -> int:
        return self.read.held_nbytes

    @property
    def pass_nbytes(self) -> int:
        return self.read.pass_nbytes

    def local_paths(self) -> list[Path]:
        return self.whole.local_paths()

    def require_exists(self) -> None:
        self.whole.require_exists()

    def require_unchanged(self) -> None:
        self.whole.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:
        return self.whole.place(row, self.first_column + column)

    def describe(self) -> dict[str, Any]:
        return self.whole.describe()


class _ColumnReader(Reader):
    def __init__(self, whole: Reader, part: slice) -> None:
        self._whole = whole
        self._part = part

    @property
    def rounds(self) -> bool:  # type: ignore[override]
        """Whether a read rounded an integer, perhaps of another column."""
        return self._whole.rounds

    def read(self, start: int, stop: int) -> Array:
        return self._whole.read(start, stop)[:, self._part]

    def prefetch(self, start: int, stop: int) -> None:
        self._whole.prefetch(start, stop)

    def close(self) -> None:
        self._whole.close()
