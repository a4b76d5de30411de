"""Residuals in two floats, with operators of arrays alone: NumPy's or CuPy's.

It takes some 60 operations on arrays as large as a tile where a compiled loop takes one pass. Its
sums are as exact as those of the compiled loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.blocks import namespace
from streamreg.kernels.two_float import (
    Numbers,
    TwoFloats,
    normalised,
    total,
    two_product,
    two_sum,
)

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.kernels.states import ResidualState

# of the rows of a tile are taken at once: this many arrays as large as these rows are alive
PARTS_OF_TILE, ARRAYS_ALIVE = 4, 12
# products have an axis of parts, one of columns and one of features
_COLUMN_NDIM = 3


def add_residuals(
    state: ResidualState,
    z: Numbers,
    y: Numbers,
    weight: Numbers,
    V: Numbers,
    b: Numbers,
) -> None:
    """Add rows z (n, D) with their y (n, K), float64: r = zV + b, less y in its first K columns.

    V is (M, 2, D) and b (M, 2): high parts and low parts.
    """
    columns = z.T
    for at in range(len(b)):
        offset = TwoFloats.of(-y[:, at]) if at < y.shape[1] else TwoFloats.of(0 * z[:, 0])
        offset = offset.plus(TwoFloats(b[at, 0], b[at, 1]))
        w_high, w_low = V[at, 0][:, None], V[at, 1][:, None]
        high, error = two_product(columns, w_high)
        r = total(high, error + columns * w_low).plus(offset)
        sr = r if weight is None else r.times(TwoFloats.of(weight))
        squares = sr.times(r)
        high, error = two_product(z, sr.high[:, None])
        # one sum, because each takes some hundred operations
        concatenate = namespace(z).concatenate
        high = concatenate([high, sr.high[:, None], squares.high[:, None]], axis=1)
        error += z * sr.low[:, None]
        error = concatenate([error, sr.low[:, None], squares.low[:, None]], axis=1)
        sums = total(high, error)
        _add(state.products[at], TwoFloats(sums.high[:-2], sums.low[:-2]))
        _add(state.sums[at], TwoFloats(sums.high[-2], sums.low[-2]))
        _add(state.rr[at], TwoFloats(sums.high[-1], sums.low[-1]))


def count_in_two_floats(state: ResidualState, n: int, weight: Float64 | None) -> None:
    """Add n rows, and their weights, to the counts of a state."""
    state.n[...] += n
    _add(state.s, TwoFloats.of(float(n)) if weight is None else total(weight, 0 * weight))


def normalise(state: ResidualState) -> None:
    """Make the low parts of all sums the errors of their high parts."""
    for sums in (state.sums, state.rr, state.products):
        sums[:, 0], sums[:, 1] = normalised(sums[:, 0], sums[:, 1])


def merge_two_floats(a: Float64, b: Float64, axis: int) -> None:
    """Add b to a, in place; ``axis`` holds the high and the low parts."""
    mine, other = np.moveaxis(a, axis, 0), np.moveaxis(b, axis, 0)
    if mine.ndim < _COLUMN_NDIM:
        _add(mine, TwoFloats(*other))
        return
    # a column at a time, because a sum takes six arrays as large
    for at in range(mine.shape[1]):
        _add(mine[:, at], TwoFloats(*other[:, at]))


def _add(state: Float64, added: TwoFloats) -> None:
    """Add to an array whose first axis holds the high and the low parts."""
    high, error = two_sum(state[0], added.high)
    low = error + (state[1] + added.low)
    state[0] = high + low
    state[1] = low - (state[0] - high)
