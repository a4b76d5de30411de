"""Tiles: some rows of a block, as float64 in the processor's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.kernels.base import Affine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Scale
    from streamreg.kernels.states import GramState, MomentsState, RootState

# what a function of NumPy allocates while it converts values: 8,192 of each array, some arrays
BUFFERS_NBYTES = 128 << 10
# targets of the sparse rows that are predicted at once
_PART_TARGETS = 1 << 15


def tiles(block: Block, rows: int) -> Iterator[tuple[Array, Array, Float64 | None]]:
    """Yield X, y and weight of each tile."""
    for start in range(0, block.n_rows, max(1, rows)):
        part = slice(start, start + rows)
        yield block.X[part], block.y[part], None if block.weight is None else block.weight[part]


def parts(
    block: Block, rows: int, n_columns: int | None = None
) -> Iterator[tuple[Array, Array, Float64 | None]]:
    """Yield X, y and weight of some rows at a time, as kernels that predict read them.

    X is a tile; of sparse rows it is larger, because the loop over its parts has a cost.
    ``n_columns`` are predicted, as many as targets if it is ``None``.
    """
    if block.kind != "sparse":
        yield from tiles(block, rows)
        return
    step = sparse_part_rows(block.y.shape[1] if n_columns is None else n_columns)
    for start in range(0, block.n_rows, step):
        part = block.rows(start, min(start + step, block.n_rows))
        yield part.X, part.y, part.weight


def sparse_part_rows(n_targets: int) -> int:
    """Return the rows of a part of sparse rows: as many as have 32,768 targets."""
    return max(1, _PART_TARGETS // max(1, n_targets))


def room_for(dtype: np.dtype[Any], n_features: int, rows: int, columns: Affine) -> Float64:
    """Return a buffer for a widened tile; an empty one if tiles can be used as they are."""
    is_plain = columns.scale is None and columns.shift is None
    is_as_stored = dtype == np.float64 and dtype.isnative and is_plain
    return np.empty((0 if is_as_stored else rows, n_features))


def widen(tile: Array, room: Float64, columns: Affine) -> Float64:
    """Return tile·scale - shift as float64, in ``room``; the tile itself if that is empty."""
    if not len(room):
        return tile
    z = room[: len(tile)]
    # unsafe, because integers become floats; readers warn of those beyond 2⁵³
    if columns.scale is not None:
        np.multiply(tile, columns.scale, out=z, dtype=np.float64, casting="unsafe")
        if columns.shift is not None:
            np.subtract(z, columns.shift, out=z)
    elif columns.shift is not None:
        np.subtract(tile, columns.shift, out=z, dtype=np.float64, casting="unsafe")
    else:
        np.copyto(z, tile, casting="unsafe")
    return z


def targets_less_bias(y: Array, columns: Affine, bias: Float64) -> Float64:
    """Return y·scale - shift - b: y and b may be large and close, and their difference is exact."""
    target = column(y, columns)
    target -= bias
    return target


def bias_of_directions(bias: Float64, n_targets: int) -> Float64:
    """Return b of the directions, and 0 for the residuals: their b is subtracted from y."""
    added = bias.copy()
    added[:n_targets] = 0
    return added


def set_origins(
    state: MomentsState | GramState | RootState, X: Array, y: Array, x_scale: Scale, y_scale: Scale
) -> None:
    """Make the first row the origin of a state that has no rows yet."""
    if not state.n:
        state.origin[...] = column(X[:1][0], Affine(x_scale))
        state.y_origin[...] = column(y[0], Affine(y_scale))


def weights_of(weight: Float64 | None, n_rows: int) -> Float64:
    """Return the weights of rows, (n,): ones, if every row counts once."""
    return np.ones(n_rows) if weight is None else weight


def column(values: Array, columns: Affine) -> Float64:
    """Return values·scale - shift as a new array: of y, which is narrow, or of one row."""
    return widen(values, np.empty(values.shape), columns)
