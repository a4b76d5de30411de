"""Rows in memory, on the host or on a device."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamreg.errors import DataCorruptionError
from streamreg.formatting import count, rows_text

if TYPE_CHECKING:
    from collections.abc import Callable

# what a block holds: any real dtype, NumPy's or CuPy's
Array = NDArray[Any]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
# in a buffer that holds a block, each array begins at a multiple of this, in bytes
ALIGNMENT = 256
# float64 holds every integer up to here
EXACT_INTEGERS = 2**53

# A block of sparse rows has at most this many values, unless a single row has more. Measured with
# 8.7 million values in memory and two threads: 2^17 19.5 ms a pass, 2^18 17.0 ms, 2^19 15.6 ms.
SPARSE_BLOCK_VALUES = 1 << 18

# A kernel reads this many bytes of rows from files, and reduces them while they are in the
# processor's second-level cache. Measured at D = 128, speed divided by that of reading without
# reducing: 128 KiB 0.84, 256 KiB 0.83, 512 KiB 0.82, 2 MiB 0.80.
_PIECE_NBYTES = 256 << 10
_PAGE_NBYTES = 4096


def piece_nbytes(row_nbytes: int) -> int:
    """Bytes of the memory into which a kernel reads rows of files: at least eight rows."""
    return max(_PIECE_NBYTES, 8 * row_nbytes)


def piece_rows(row_nbytes: int) -> int:
    """Rows that fit in a piece."""
    return piece_nbytes(row_nbytes) // max(1, row_nbytes)


def new_piece(row_nbytes: int) -> NDArray[np.uint8]:
    """Return memory for a piece, aligned to a page, as the system's page cache is.

    If it began a few bytes into a page, copies from the page cache would be a quarter slower
    (measured: 14 instead of 19 GB/s), because each load would wait for an earlier store.
    """
    nbytes = piece_nbytes(row_nbytes)
    memory = np.empty(nbytes + _PAGE_NBYTES, np.uint8)
    first = -memory.ctypes.data % _PAGE_NBYTES
    return memory[first : first + nbytes]


def is_read_in_place(dtype: np.dtype[Any]) -> bool:
    """Whether kernels read values of this dtype as stored, from memory and from files."""
    return dtype.kind in "biuf" and dtype.itemsize <= 8  # noqa: PLR2004


def aligned(nbytes: int) -> int:
    """Return the bytes rounded up to the alignment, so that the next array is aligned too."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def namespace(array: Any) -> Any:  # noqa: ANN401  (an array of any library, and its functions)
    """Return the array API namespace of the library that ``array`` belongs to."""
    # CuPy's arrays have no __array_namespace__
    return sys.modules["cupy"] if is_cupy(array) else array.__array_namespace__()


def is_cupy(array: object) -> bool:
    """Whether an array, or the blocks of a Dask array, are CuPy's: in the memory of a GPU."""
    return type(getattr(array, "_meta", array)).__module__.partition(".")[0] == "cupy"


def on_host(array: Any) -> Array:  # noqa: ANN401
    """Return an array in the host's memory; a copy from a GPU waits for the GPU."""
    host: Array = array.get() if is_cupy(array) else array
    return host


class View(NamedTuple):
    """What the rows of blocks are: rows of X, y and weights, unless it says otherwise."""

    width: int = 0  # above 0: columns of X, as many in a block; without y and weights
    without_x: bool = False  # rows of y and weights; X (n, 1) holds the numbers of the rows


ROWS = View()


@dataclass(frozen=True)
class FileRows:
    """Rows of X that are still in files, uncompressed and in C order: kernels can read them.

    Without parts (P = 0) kernels take slices of this object. A slice is read into a buffer of the
    source's reader, and is valid until the next read.
    """

    shape: tuple[int, int]  # (n, D)
    dtype: np.dtype[Any]
    files: NDArray[np.int64]  # (P,) the open file of each part
    offsets: NDArray[np.int64]  # (P,) the first byte of each part in its file
    bounds: NDArray[np.int64]  # (P + 1,) the first row of each part, then n
    read: Callable[[int, int], Array]
    piece: NDArray[np.uint8]  # memory of the reading thread, for rows in use

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Array:
        first, stop, _ = rows.indices(len(self))
        return self.read(first, stop)

    def part(self, first: int, stop: int) -> FileRows:
        """Return some of the rows, without parts: kernels take slices of them."""
        none = self.files[:0]
        return FileRows(
            shape=(stop - first, self.shape[1]),
            dtype=self.dtype,
            files=none,
            offsets=none,
            bounds=np.zeros(1, np.int64),
            read=lambda a, b: self.read(first + a, first + b),
            piece=self.piece,
        )


@dataclass(frozen=True)
class SparseRows:
    """Rows of X of which only some values are stored: compressed sparse rows (CSR).

    Row i has the values ``bounds[i]`` to ``bounds[i + 1]``, in any order; those of one column add
    up. A slice is dense, float64, for kernels that have no loop for sparse rows.

    Raises
    ------
    DataCorruptionError
        From slices and ``require_columns``: the column of a value is not one of the D.
    """

    n_columns: int  # D
    values: Array  # (m,) float32 or float64
    indices: Array  # (m,) the column of each value, of 32 or 64 bits
    bounds: Int64  # (n + 1,) from 0 to m
    name: str  # what messages call X
    start: int  # the number of the first row

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, D)."""
        return len(self.bounds) - 1, self.n_columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of slices."""
        return np.dtype(np.float64)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, rows: slice) -> Float64:
        first, stop, _ = rows.indices(len(self))
        part = self.part(first, stop)
        dense = np.empty(part.shape)
        part.write_dense(dense, slice(0, self.n_columns))
        return dense

    def write_dense(self, out: Float64, columns: slice) -> None:
        """Fill ``out`` (n, K) with these columns."""
        self.require_columns()
        out[...] = 0
        numbers = np.repeat(np.arange(len(self)), np.diff(self.bounds))
        places, values = self.indices.astype(np.int64), self.values
        if columns != slice(0, self.n_columns):
            chosen = (places >= columns.start) & (places < columns.stop)
            numbers, values = numbers[chosen], values[chosen]
            places = places[chosen] - columns.start
        np.add.at(out, (numbers, places), values)

    def part(self, first: int, stop: int) -> SparseRows:
        """Return some of the rows, as views of their values."""
        bounds = self.bounds[first : stop + 1]
        span = slice(int(bounds[0]), int(bounds[-1]))
        return replace(
            self,
            values=self.values[span],
            indices=self.indices[span],
            bounds=bounds - bounds[0],
            start=self.start + first,
        )

    def taken(self, keep: NDArray[np.bool_]) -> SparseRows:
        """Return the rows that a mask (n,) selects, copied."""
        self.require_columns()
        lengths = np.diff(self.bounds)
        stored = np.repeat(keep, lengths)
        return replace(
            self,
            values=self.values[stored],
            indices=self.indices[stored],
            bounds=np.concatenate([[0], np.cumsum(lengths[keep])]),
        )

    def finite_rows(self) -> NDArray[np.bool_]:
        """Return a mask (n,) of the rows that have neither NaN nor inf."""
        mask = np.ones(len(self), bool)
        bad = np.flatnonzero(~np.isfinite(self.values))
        mask[np.searchsorted(self.bounds, bad, side="right") - 1] = False
        return mask

    def is_finite(self) -> bool:
        """Whether there is neither NaN nor inf."""
        return bool(np.isfinite(self.values).all())

    def require_columns(self) -> None:
        """Raise :class:`DataCorruptionError` if the column of a value is not one of the D."""
        if not self.indices.size:
            return
        low, high = int(self.indices.min()), int(self.indices.max())
        if low >= 0 and high < self.n_columns:
            return
        bad = (self.indices < 0) | (self.indices >= self.n_columns)
        at = int(np.argmax(bad))
        row = self.start + int(np.searchsorted(self.bounds, at, side="right")) - 1
        all_bad = count(int(bad.sum()), "such value")
        raise DataCorruptionError(
            f"{self.name} has a value in column {int(self.indices[at]):,} of row {row:,}, but has "
            f"{count(self.n_columns, 'column')}; {all_bad} in "
            f"{rows_text(self.start, self.start + len(self))}. Restore it from a copy"
        )

    def first_not_finite(self, counted: NDArray[np.bool_]) -> tuple[int, int, float, int] | None:
        """Return the first NaN or inf of rows that count: row, column and value; and how many."""
        bad = np.flatnonzero(~np.isfinite(self.values))
        rows = np.searchsorted(self.bounds, bad, side="right") - 1
        bad, rows = bad[counted[rows]], rows[counted[rows]]
        if not bad.size:
            return None
        return int(rows[0]), int(self.indices[bad[0]]), float(self.values[bad[0]]), len(bad)


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows, read at once."""

    X: Array  # (n, D), any real dtype and byte order
    y: Array  # (n, K), any real dtype and byte order
    weight: Float64 | None  # (n,), all positive; None when every row counts once
    start: int  # the number of the first row in the data set
    joints: tuple[int, ...] = ()  # where each block but the first begins, if blocks were joined
    groups: Int64 | None = None  # (n,) equal numbers for rows of one group

    @property
    def kind(self) -> Literal["dense", "file", "sparse"]:
        """Return which kernels can reduce it."""
        rows: Any = self.X
        if isinstance(rows, SparseRows):
            return "sparse"
        return "file" if isinstance(rows, FileRows) else "dense"

    @property
    def n_rows(self) -> int:
        """Return n."""
        return len(self.X)

    def is_finite(self) -> bool:
        """Whether X and y hold neither NaN nor inf."""
        rows: Any = self.X
        if isinstance(rows, SparseRows):
            return rows.is_finite() and (
                self.y.dtype.kind != "f" or bool(np.isfinite(self.y).all())
            )
        # a piece at a time, because the rows may be in files
        step = piece_rows(self.X.shape[1] * self.X.dtype.itemsize)
        pieces = (self.X[start : start + step] for start in range(0, self.n_rows, step))
        return all(
            values.dtype.kind != "f" or bool(np.isfinite(values).all())
            for values in (*pieces, self.y)
        )

    def rows(self, first: int, stop: int) -> Block:
        """Return some rows, as views; rows that are in files stay there."""
        weight = None if self.weight is None else self.weight[first:stop]
        groups = None if self.groups is None else self.groups[first:stop]
        rows: Any = self.X
        has_parts = isinstance(rows, FileRows | SparseRows)
        X: Any = rows.part(first, stop) if has_parts else rows[first:stop]
        return Block(X, self.y[first:stop], weight, self.start + first, groups=groups)
