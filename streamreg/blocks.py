"""Rows in memory, on the host or on a device."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

# what a block holds: any real dtype, NumPy's or CuPy's
Array = NDArray[Any]
Float64 = NDArray[np.float64]
# where an array begins in a buffer that holds a block
ALIGNMENT = 256
# float64 holds every integer up to here
EXACT_INTEGERS = 2**53


def aligned(nbytes: int) -> int:
    """Return the bytes rounded up to the alignment, so that the next array is aligned too."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def namespace(array: Any) -> Any:  # noqa: ANN401  (an array of any library, and its functions)
    """Return the functions of the library that ``array`` is of, of the array API standard."""
    # CuPy's arrays have no __array_namespace__
    return sys.modules["cupy"] if is_cupy(array) else array.__array_namespace__()


def is_cupy(array: object) -> bool:
    """Whether an array, or the blocks of a Dask array, are CuPy's: in the memory of a GPU."""
    return type(getattr(array, "_meta", array)).__module__.partition(".")[0] == "cupy"


def on_host(array: Any) -> Array:  # noqa: ANN401
    """Return an array in the host's memory; a copy from a GPU waits for the GPU."""
    host: Array = array.get() if is_cupy(array) else array
    return host


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows, read at once."""

    kind: ClassVar[str] = "dense"

    X: Array  # (n, D), any real dtype and byte order
    y: Array  # (n, K), any real dtype and byte order
    weight: Float64 | None  # (n,), all positive; None when every row counts once
    start: int  # the number of the first row in the data set
    joints: tuple[int, ...] = ()  # where each block but the first begins, if blocks were joined

    @property
    def n_rows(self) -> int:
        """Return n."""
        return len(self.X)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, D)."""
        return self.X.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of X."""
        return self.X.dtype

    def X_rows(self, first: int, stop: int) -> Array:
        """Return some rows of X, valid until the next call."""
        return self.X[first:stop]

    def is_finite(self) -> bool:
        """Whether X and y hold neither NaN nor inf."""
        return all(
            values.dtype.kind != "f" or bool(np.isfinite(values).all())
            for values in (self.X, self.y)
        )

    def rows(self, first: int, stop: int) -> Block:
        """Return some rows, as views."""
        weight = None if self.weight is None else self.weight[first:stop]
        return Block(self.X[first:stop], self.y[first:stop], weight, self.start + first)


class StoredRows(Protocol):
    """Rows of files that are stored as they are in memory: in C order, without a codec."""

    shape: tuple[int, int]  # (n, D)
    dtype: np.dtype[Any]
    files: NDArray[np.int64]  # (P,) the open file of each part
    offsets: NDArray[np.int64]  # (P,) the first byte of each part in its file
    bounds: NDArray[np.int64]  # (P + 1,) the first row of each part, then n

    def read(self, first: int, stop: int) -> Array:
        """Return some rows, valid until the next call; raise what the source's reader raises."""


@dataclass(frozen=True, slots=True)
class FileBlock:
    """Consecutive rows whose X is still in its files: a kernel reads it a piece at a time.

    Attributes
    ----------
    stored
        X, (n, D).
    y, weight, start
        As of a :class:`Block`.
    piece
        Memory of the reader's thread for a piece of X.
    """

    kind: ClassVar[str] = "file"

    stored: StoredRows
    y: Array
    weight: Float64 | None
    start: int
    piece: NDArray[np.uint8]

    @property
    def n_rows(self) -> int:
        """Return n."""
        return self.stored.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, D)."""
        return self.stored.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of X."""
        return self.stored.dtype

    @property
    def X(self) -> Array:
        """All rows of X, read into a buffer of the reader."""
        return self.stored.read(0, self.n_rows)

    def X_rows(self, first: int, stop: int) -> Array:
        """Return some rows of X, valid until the next call."""
        return self.stored.read(first, stop)

    def is_finite(self) -> bool:
        """Whether X and y hold neither NaN nor inf."""
        return Block(self.X, self.y, self.weight, self.start).is_finite()
