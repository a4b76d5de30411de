"""Tiles: the rows of a block that fit the processor's cache, and how they are widened there.

Tile boundaries depend on D and on what is stored, never on who reads, so that blocks fold to the
same bits however they were read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels import Affine

_TILE_NBYTES = 1 << 20
_MIN_ROWS = 8


def tile_rows(n_features: int) -> int:
    """Return the rows of a tile: about 1 MiB of float64, at least 8."""
    return max(_MIN_ROWS, _TILE_NBYTES // (8 * n_features))


def tiles(block: Block, rows: int) -> Iterator[tuple[Array, Array, Float64 | None]]:
    """Yield X, y and weight of each tile."""
    for start in range(0, len(block.X), max(1, rows)):
        part = slice(start, start + rows)
        yield block.X[part], block.y[part], None if block.weight is None else block.weight[part]


def room_for(X: Array, rows: int, *, always: bool) -> Float64:
    """Return a buffer for a widened tile; an empty one where tiles can be used as they lie."""
    if not always and X.dtype == np.float64 and X.dtype.isnative:
        return np.empty((0, X.shape[1]))
    return np.empty((rows, X.shape[1]))


def widen(tile: Array, room: Float64, columns: Affine) -> Float64:
    """Return tile·scale - shift as float64, in ``room``; the tile itself where there is none."""
    if not len(room):
        return tile
    z = room[: len(tile)]
    # unsafe: integers become floats; those beyond 2⁵³ are warned of by who reads them
    if columns.scale is not None:
        np.multiply(tile, columns.scale, out=z, dtype=np.float64, casting="unsafe")
        if columns.shift is not None:
            np.subtract(z, columns.shift, out=z)
    elif columns.shift is not None:
        np.subtract(tile, columns.shift, out=z, dtype=np.float64, casting="unsafe")
    else:
        np.copyto(z, tile, casting="unsafe")
    return z


def column(values: Array, columns: Affine) -> Float64:
    """Return values·scale - shift as a new array: of y, which is narrow, or of one row."""
    z = values.astype(np.float64)
    if columns.scale is not None:
        z *= columns.scale
    if columns.shift is not None:
        z -= columns.shift
    return z
