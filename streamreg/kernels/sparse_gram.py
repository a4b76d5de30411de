"""Sums of products of stored values: Σ s x xᵀ of sparse rows, for the closed form.

The work of a row with m values is m (m + 1)/2 products, where rows made dense would take D²/2.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.kernels.base import Affine, Scale
from streamreg.kernels.sparse import matrix_of, move_targets, rows_of, sorted_rows
from streamreg.kernels.states import count
from streamreg.kernels.tiles import column, weights_of

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64, Int64, SparseRows
    from streamreg.kernels.base import Parallel
    from streamreg.kernels.states import SparseGramState

# columns of a panel, on average, by which threads share a state that is too large for one copy a
# thread; in each row the first value of each panel is sought
_PANEL = 256


def sparse_gram(
    block: Block,
    state: SparseGramState,
    parallel: Parallel,
    *,
    centred: bool,
    x_scale: Scale,
    y_scale: Scale,
) -> None:
    """Add a block to sums of products of stored values."""
    ready = ready_for_gram(block, state, centred=centred, x_scale=x_scale, y_scale=y_scale)
    Z = matrix_of(ready.rows)
    s = weights_of(block.weight, block.n_rows)
    weighted = Z.copy()
    weighted.data *= np.repeat(s, np.diff(Z.indptr))
    state.varies[Z.indices[Z.data != 0]] = 1.0
    np.add(state.sums, weighted.T @ np.ones(block.n_rows), out=state.sums)
    np.add(state.cross, weighted.T @ ready.target, out=state.cross)

    def add_panel(number: int) -> None:
        columns = gram_columns(len(state.gram), number)
        products = (weighted.T @ Z[:, columns]).tocoo()
        state.gram[:, columns][products.row, products.col] += products.data

    parallel.run(add_panel, gram_panels(len(state.gram)), lambda: None)


class ReadyForGram(NamedTuple):
    """Rows as loops over pairs of values take them."""

    rows: SparseRows  # columns ascend, none is twice in a row; float64, less the origins
    target: Float64  # (n, K) y less its origin


def ready_for_gram(
    block: Block, state: SparseGramState, *, centred: bool, x_scale: Scale, y_scale: Scale
) -> ReadyForGram:
    """Count rows, choose or move origins, and subtract them from the values.

    The origin of a column stays its first value while every row stores the column. If a row does
    not, the sums are moved to an origin of 0.
    """
    X = sorted_rows(rows_of(block))
    z, first = X.values.astype(np.float64), X.indices[: X.bounds[1]]
    if x_scale is not None:
        z *= x_scale[X.indices]
    if centred:
        if not state.n:
            is_everywhere = np.bincount(X.indices, minlength=X.n_columns) == block.n_rows
            state.origin[first] = np.where(is_everywhere[first], z[: len(first)], 0.0)
        elif state.origin.any():
            is_everywhere = np.bincount(X.indices, minlength=X.n_columns) == block.n_rows
            absent = np.flatnonzero((state.origin != 0) & ~is_everywhere)
            if len(absent):
                set_origins_to_zero(state, absent)
        if state.origin.any():
            z -= state.origin[X.indices]
        target = move_targets(block, state, y_scale=y_scale)
    else:
        target = column(block.y, Affine(y_scale))
        s = weights_of(block.weight, block.n_rows)
        np.add(state.y_m2, s @ target**2, out=state.y_m2)
    np.maximum(state.y_varies, target.any(axis=0), out=state.y_varies)
    count(np, state, block.n_rows, block.weight)
    state.updates[...] += block.n_rows
    return ReadyForGram(replace(X, values=z), target)


def set_origins_to_zero(state: SparseGramState, columns: Int64) -> None:
    """Move the sums of some columns to an origin of 0."""
    by = np.zeros_like(state.origin)
    by[columns] = state.origin[columns]
    state.move_origin(columns.tolist(), by, state.sums, state.s)
    state.cross[columns] += np.outer(by[columns], state.s * state.y_mean)
    state.origin[columns] = 0.0
    state.varies[columns] = 1.0


def gram_panels(n_features: int) -> int:
    """Return how many panels of columns :func:`sparse_gram` updates, one at a time."""
    return -(-n_features // _PANEL)


def gram_columns(n_features: int, panel: int) -> slice:
    """Return the columns of a panel: all have the same share of the lower triangle."""
    count = gram_panels(n_features)
    first, stop = (
        round(n_features * (1 - math.sqrt(1 - number / count))) for number in (panel, panel + 1)
    )
    return slice(first, stop)
