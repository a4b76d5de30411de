"""Rows in memory, on the host or on a device."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, ClassVar

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
