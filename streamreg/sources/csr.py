"""Compressed sparse rows (CSR): three arrays, of values, of their columns, and of rows' bounds.

Each array is a source of its own, so that every store that holds arrays holds sparse rows.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import EXACT_INTEGERS, SPARSE_BLOCK_VALUES, SparseRows
from streamreg.errors import DataCorruptionError, InputError, StreamregError
from streamreg.formatting import count, format_nbytes, rows_text
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.checks import block_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from streamreg.blocks import Array, Int64
    from streamreg.sources.file_stamps import FileStamps

# a block has at most this many rows
_BLOCK_ROWS = 1 << 16
# bounds that are read at once when the data are opened
_SCANNED = 1 << 17
_RESTORE = "; restore it from a copy"


class Csr(NamedTuple):
    """The arrays of sparse rows, as they are stored: N rows with nnz values."""

    values: RowSource  # (nnz,) "data"
    indices: RowSource  # (nnz,) the column of each value
    bounds: RowSource  # (N + 1,) "indptr": where each row begins, then nnz


class Layout(NamedTuple):
    """What the bounds of rows tell, read once."""

    block_rows: tuple[int, ...]  # the first row of each block, then N
    block_values: tuple[int, ...]  # the first value of each block, then nnz
    longest: int  # values of the longest row
    n_pairs: int  # Σ m (m + 1)/2 of rows with m values: products of a Gram matrix

    @property
    def most_values(self) -> int:
        """Values of the largest block."""
        return max(np.diff(self.block_values).tolist(), default=0)


@dataclass(frozen=True)
class _RowsHolding:
    """Finds the rows to which some values belong, for messages."""

    layout: Layout
    bounds: RowSource

    def __call__(self, first: int, stop: int) -> tuple[int, int]:
        """Return the first row of values from ``first`` on, and the row after that of the last."""
        return self._row_of(first), self._row_of(stop - 1) + 1

    def _row_of(self, value: int) -> int:
        rows, values = self.layout[:2]
        # of blocks without values, the one after them
        block = bisect_right(values, value, hi=len(values) - 1) - 1
        row = rows[block]
        # the first row of the block will do, if bounds cannot be read again
        with suppress(StreamregError, OSError), closing(self.bounds.open()) as reader:
            bounds = np.asarray(reader.read(row, rows[block + 1]))
            row += int(np.searchsorted(bounds, value, side="right")) - 1
        return row


class CsrSource(RowSource):
    """Sparse rows; blocks have about equal numbers of values.

    The bounds of all rows are read when the source is made, 4 or 8 bytes a row, and checked; only
    those of blocks are kept.

    Raises
    ------
    InputError
        An array has another shape or dtype than CSR has.
    DataCorruptionError
        Lengths disagree, or bounds fall, as they do if they overflowed.
    """

    is_sparse = True

    def __init__(self, arrays: Csr, n_columns: int, n_rows: int | None, name: str) -> None:
        self.arrays = arrays
        self.name = name
        _require_arrays(arrays, name)
        stored_rows = arrays.bounds.shape[0] - 1
        if n_rows is not None and stored_rows != n_rows:
            raise DataCorruptionError(
                f"{arrays.bounds.name} has {arrays.bounds.shape[0]:,} bounds of rows but "
                f"{name} has {count(n_rows, 'row')}, which take {n_rows + 1:,}{_RESTORE}"
            )
        self.shape = (stored_rows, n_columns)
        self.dtype = arrays.values.dtype
        for array, noun in zip(arrays, ("value", "value", "bound"), strict=True):
            array.noun = noun
        self.layout = _layout(arrays)
        arrays.values.rows_holding = arrays.indices.rows_holding = _RowsHolding(
            self.layout, arrays.bounds
        )
        rows = self.layout.block_rows
        self.grid = RowGrid(
            n_rows=stored_rows,
            chunk_rows=max(np.diff(rows).tolist(), default=1),
            bounds=rows,
            divisible=all(each.grid.divisible for each in arrays),
            has_blocks=True,
        )
        self.in_memory = all(each.in_memory for each in arrays)
        self.fingerprint_reads_all_rows = any(each.fingerprint_reads_all_rows for each in arrays)
        unreachable = (each.why_unreachable_from_workers for each in arrays)
        self.why_unreachable_from_workers = next(filter(None, unreachable), "")
        self.storage = json.dumps([each.storage for each in arrays])
        # as kernels read them
        self.block_dtype = value_dtype(self.dtype)
        self.index_dtype = index_dtype(arrays.indices.dtype)

    def open(self) -> Reader:
        return _CsrReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        values, indices, bounds = self.arrays
        n = self.layout.most_values
        buffers = values.reader_nbytes(n) + indices.reader_nbytes(n)
        buffers += bounds.reader_nbytes(block_rows + 1)
        # bounds as integers of 64 bits, as they are stored and from 0 on, and their differences
        buffers += 3 * 8 * (block_rows + 1)
        for source, dtype in ((values, self.block_dtype), (indices, self.index_dtype)):
            # what a block leaves of its last chunk stays before the next chunk
            if not source.grid.divisible:
                buffers += n * source.dtype.itemsize
            if source.dtype != dtype:
                buffers += n * dtype.itemsize
        return buffers

    @property
    def shared_nbytes(self) -> int:
        return sum(each.shared_nbytes for each in self.arrays)

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row, on average."""
        return max(1, -(-self.pass_nbytes // max(1, self.shape[0])))

    @property
    def pass_nbytes(self) -> int:
        return sum(each.pass_nbytes for each in self.arrays)

    def block_nbytes(self, block_rows: int) -> int:
        value_nbytes = self.block_dtype.itemsize + self.index_dtype.itemsize
        return self.layout.most_values * value_nbytes + 8 * (block_rows + 1)

    @property
    def density(self) -> float:
        n_rows, n_columns = self.shape
        return self.layout.block_values[-1] / max(1, n_rows * n_columns)

    @property
    def row_pairs(self) -> float:
        return self.layout.n_pairs / max(1, self.shape[0])

    def local_paths(self) -> list[Path]:
        return list(dict.fromkeys(path for each in self.arrays for path in each.local_paths()))

    def watched(self) -> dict[str, FileStamps]:
        parts = zip(Csr._fields, self.arrays, strict=True)
        return {
            f"{part} {name}": stamps
            for part, each in parts
            for name, stamps in each.watched().items()
        }

    def require_exists(self) -> None:
        for each in self.arrays:
            each.require_exists()

    def require_unchanged(self) -> None:
        for each in self.arrays:
            each.require_unchanged()

    def describe(self) -> dict[str, Any]:
        of_values = self.arrays.values.describe()
        n_values = self.layout.block_values[-1]
        return {
            **of_values,
            "dtype": f"{self.dtype}, columns {self.arrays.indices.dtype}",
            "values": f"{n_values:,} stored ({100 * self.density:.3g} %)",
            "size": format_nbytes(self.pass_nbytes),
        }


def _require_arrays(arrays: Csr, name: str) -> None:
    """Refuse arrays that are not of one dimension, of numbers, and of lengths that agree."""
    for source in arrays:
        if len(source.shape) != 1:
            raise InputError(f"{source.name} has shape {source.shape}; CSR has one dimension")
    for source in arrays[1:]:
        if source.dtype.kind not in "iu":
            raise InputError(f"{source.name} has dtype {source.dtype}; CSR has integers there")
    n_values, n_indices, n_bounds = (source.shape[0] for source in arrays)
    if n_values != n_indices:
        raise DataCorruptionError(
            f"{arrays.values.name} has {count(n_values, 'value')} but {arrays.indices.name} has "
            f"the columns of {n_indices:,}{_RESTORE}"
        )
    if n_bounds < 1:
        raise DataCorruptionError(f"{arrays.bounds.name} of {name} is empty{_RESTORE}")


def _layout(arrays: Csr) -> Layout:
    """Read the bounds of all rows, check them, and divide the rows into blocks."""
    n_rows, n_values = arrays.bounds.shape[0] - 1, arrays.values.shape[0]
    block_rows, block_values, longest, squares = [0], [0], 0, 0.0
    last, done = 0, 0
    for first, bounds in _pieces(arrays.bounds):
        if first == 0 and int(bounds[0]) != 0:
            raise DataCorruptionError(
                f"{arrays.bounds.name} begins with {int(bounds[0]):,}, and rows of CSR with 0"
                f"{_RESTORE}"
            )
        # before differences are taken, which could overflow
        before = np.concatenate([[last], bounds[:-1]])
        if (bounds < before).any():
            _refuse_falling(arrays, bounds, first, int(np.argmax(bounds < before)), last)
        if int(bounds[-1]) > n_values:
            _refuse_end(arrays, int(bounds[-1]))
        steps = bounds - before
        longest = max(longest, int(steps.max()))
        squares += float(np.square(steps, dtype=np.float64).sum())
        last, done = int(bounds[-1]), first + len(bounds) - 1
        while True:
            most = np.searchsorted(bounds, block_values[-1] + SPARSE_BLOCK_VALUES, side="right") - 1
            # a longer row is a block of its own
            end = max(min(first + int(most), block_rows[-1] + _BLOCK_ROWS), block_rows[-1] + 1)
            if end >= done:
                # it may go on in the next piece
                break
            block_rows.append(end)
            block_values.append(int(bounds[end - first]))
    if last != n_values:
        _refuse_end(arrays, last)
    if block_rows[-1] < n_rows:
        block_rows.append(n_rows)
        block_values.append(n_values)
    return Layout(tuple(block_rows), tuple(block_values), longest, int(squares + n_values) // 2)


def _pieces(bounds: RowSource) -> Iterator[tuple[int, Int64]]:
    """Yield the number of the first bound of each piece, and its bounds."""
    n_bounds, grid = bounds.shape[0], bounds.grid
    step = _SCANNED
    if not grid.divisible:
        # whole chunks, of which large ones are decoded once
        step = max(1, _SCANNED // grid.chunk_rows) * grid.chunk_rows
    with closing(bounds.open()) as reader:
        for first in range(0, n_bounds, step):
            stop = min(first + step, n_bounds)
            yield first, np.asarray(reader.read(first, stop)).astype(np.int64)


def _refuse_falling(arrays: Csr, bounds: Int64, first: int, at: int, last: int) -> None:
    """Raise for bounds that fall."""
    before, n_values = int(bounds[at - 1]) if at else last, arrays.values.shape[0]
    dtype = arrays.bounds.dtype
    if before > n_values:
        raise DataCorruptionError(
            f"{arrays.bounds.name} is {before:,} at row {first + at - 1:,} but "
            f"{arrays.values.name} has {count(n_values, 'value')}{_RESTORE}"
        )
    cure = _RESTORE
    if dtype.itemsize < 8:  # noqa: PLR2004
        cure = f"; {dtype} may have overflowed. Write it again with indptr of 64 bits"
    raise DataCorruptionError(
        f"{arrays.bounds.name} falls from {before:,} to {int(bounds[at]):,} at row "
        f"{first + at:,}: rows of CSR begin where the last one ends{cure}"
    )


def _refuse_end(arrays: Csr, last: int) -> None:
    """Raise for bounds that end elsewhere than the values."""
    raise DataCorruptionError(
        f"{arrays.bounds.name} ends at {last:,} but {arrays.values.name} has "
        f"{count(arrays.values.shape[0], 'value')}{_RESTORE}"
    )


def value_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return float32 if it holds all values of a dtype, else float64."""
    fits = np.can_cast(dtype, np.float32, "safe")
    return np.dtype(np.float32 if fits else np.float64)


def index_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of indices of 32 or 64 bits, of this machine's byte order."""
    if dtype.itemsize < 4:  # noqa: PLR2004
        return np.dtype(np.int32)
    return block_dtype(dtype)


class _CsrReader(Reader):
    """Reads blocks; buffers are those of the readers of the three arrays."""

    def __init__(self, source: CsrSource) -> None:
        self._source = source
        self._values, self._indices, self._bounds = (each.open() for each in source.arrays)

    def read(self, start: int, stop: int) -> Array:
        source = self._source
        bounds = np.asarray(self._bounds.read(start, stop + 1)).astype(np.int64)
        self._require_bounds(bounds, start, stop)
        first, last = int(bounds[0]), int(bounds[-1])
        values = _as_stored(self._values, first, last, source.arrays.values.dtype)
        indices = _as_stored(self._indices, first, last, source.arrays.indices.dtype)
        if values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size:  # noqa: PLR2004
            self.rounds |= bool(values.max() > EXACT_INTEGERS or values.min() < -EXACT_INTEGERS)
        bounds -= first
        with np.errstate(over="ignore", under="ignore"):
            values = np.ascontiguousarray(values, source.block_dtype)
        rows: Any = SparseRows(
            n_columns=source.shape[1],
            values=values,
            indices=np.ascontiguousarray(indices, source.index_dtype),
            bounds=bounds,
            name=source.name,
            start=start,
        )
        return rows  # type: ignore[no-any-return]

    def _require_bounds(self, bounds: Int64, start: int, stop: int) -> None:
        """Raise if bounds are not those that were checked."""
        layout, known = self._source.layout, {}
        at = self._source.grid.chunk_at(start)
        known[layout.block_rows[at]] = layout.block_values[at]
        known[layout.block_rows[at + 1]] = layout.block_values[at + 1]
        differs = (bounds[1:] < bounds[:-1]).any() or any(
            row in known and known[row] != bound
            for row, bound in ((start, int(bounds[0])), (stop, int(bounds[-1])))
        )
        if differs or bounds[0] < 0 or bounds[-1] > layout.block_values[-1]:
            raise DataCorruptionError(
                f"{self._source.arrays.bounds.name} changed during the fit in "
                f"{rows_text(start, stop)}. Start again when nothing writes to it"
            )

    def prefetch(self, start: int, stop: int) -> None:
        layout = self._source.layout
        at = self._source.grid.chunk_at(start)
        if (start, stop) == layout.block_rows[at : at + 2]:
            first, last = layout.block_values[at : at + 2]
            if first < last:
                self._values.prefetch(first, last)
                self._indices.prefetch(first, last)

    def close(self) -> None:
        for each in (self._values, self._indices, self._bounds):
            each.close()


def _as_stored(reader: Reader, first: int, last: int, dtype: np.dtype[Any]) -> Array:
    """Return values from first to last, of which there may be none."""
    return np.asarray(reader.read(first, last)) if first < last else np.empty(0, dtype)
