"""Parts of rows as centred float64, for products of rows with rows and with weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.kernels.base import Affine
from streamreg.kernels.tiles import widen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Float64
    from streamreg.kernels.base import Scale

# Columns that are multiplied at a time. Sums are added in this order, whatever the memory and the
# threads. Measured: 1,024 to 4,096 columns are equally fast.
COLUMNS = 2048
# Rows of a tile, at most; of wide rows, as many as have this size as float64.
_MOST_ROWS, _TILE_NBYTES = 256, 256 << 20
# Rows that a thread multiplies with those of a tile at a time; the height of a tile is a multiple.
# Measured, in Gflop/s of one core with 2,048 columns: 256 x 256 rows 42, 256 x 128 rows 39,
# 256 x 64 rows 37. Smaller pieces keep more threads busy.
PIECE_ROWS = 64


def row_tile_rows(n_features: int) -> int:
    """Return the rows that are multiplied with rows at a time: a function of D alone."""
    rows = _TILE_NBYTES // (8 * max(1, n_features)) // PIECE_ROWS * PIECE_ROWS
    return max(PIECE_ROWS, min(_MOST_ROWS, rows))


class Columns(NamedTuple):
    """How rows are read: z = (x·scale - centre)·factor; ``None`` means ones, and zeros."""

    scale: Scale = None  # (D,) powers of two
    centre: Float64 | None = None  # (D,)
    factor: Float64 | None = None  # (D,) 0 for columns that are left out

    def at(self, first: int, stop: int) -> Columns:
        """Return how some of the columns are read."""
        part = slice(first, stop)
        return Columns(*(None if values is None else values[part] for values in self))

    def widened(self, rows: Array, part: slice, room: Float64) -> Float64:
        """Return some columns of rows as z, (n, columns), in the memory of ``room``, which is flat.

        Each value depends on no other row and no other column.
        """
        stored = rows[:, part]
        z = room[: stored.size].reshape(stored.shape)
        scale = None if self.scale is None else self.scale[part]
        centre = None if self.centre is None else self.centre[part]
        if stored.size:
            widen(stored, z, Affine(scale, centre))
        if self.factor is not None:
            z *= self.factor[part]
        return z


def column_parts(n_features: int) -> Iterator[slice]:
    """Yield the columns that are multiplied at a time."""
    for first in range(0, n_features, COLUMNS):
        yield slice(first, min(first + COLUMNS, n_features))


def new_room(rows: int) -> Float64:
    """Return memory for the parts of this many rows."""
    return np.empty(rows * COLUMNS)
