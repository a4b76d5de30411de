"""The kernels for sparse rows, with SciPy's products; the compiled ones are several times as fast.

Other kernels read slices of sparse rows, which are dense.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import SparseRows
from streamreg.kernels.base import AS_STORED, Affine, Scale
from streamreg.kernels.residuals import count_in_two_floats
from streamreg.kernels.states import CROSS, HIGH, LOW, ORIGIN, SQUARES, SUM, WEIGHT, count
from streamreg.kernels.tiles import column, targets_less_bias, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.states import (
        Places,
        ResidualState,
        SparseGramState,
        SparseMomentsState,
        SparseProductState,
        TriangleState,
    )


def rows_of(block: Block) -> SparseRows:
    """Return X of a block whose rows are sparse."""
    rows: Any = block.X
    if not isinstance(rows, SparseRows):
        raise TypeError(f"a kernel for sparse rows got {type(rows).__name__}")
    return rows


def sorted_rows(X: SparseRows) -> SparseRows:
    """Return rows whose columns ascend, without one that is twice in a row: its values add up."""
    X.require_columns()
    ascends = X.indices[1:] > X.indices[:-1]
    # between two rows
    ends = X.bounds[1:-1]
    ascends[ends[(ends > 0) & (ends < len(X.indices))] - 1] = True
    if ascends.all():
        return X
    Z = matrix_of(X)
    Z.sum_duplicates()
    return replace(X, values=Z.data, indices=Z.indices, bounds=Z.indptr.astype(np.int64))


def shifted_rows(X: SparseRows, shift: Float64 | None) -> SparseRows:
    """Return rows of which a shift (D,) is subtracted; it is 0 in columns that a row may lack."""
    if shift is None:
        return X
    X = sorted_rows(X)
    return replace(X, values=X.values - shift[X.indices])


def sparse_products(
    block: Block,
    state: SparseProductState,
    *,
    bias: Float64,
    shift: Float64 | None = None,
    y: Affine = AS_STORED,
) -> None:
    """Add u = ZV + b, less y in its first K columns, and uᵀsZ; V is in the state, b (M,).

    Z is X, less a shift (D,) in columns that every row stores.
    """
    n_targets, n_columns = len(state.rr), len(state.sums)
    X = matrix_of(shifted_rows(rows_of(block), shift))
    u = X @ state.columns[:, :n_columns]
    u[:, :n_targets] -= targets_less_bias(block.y[:, :n_targets], y, bias[:n_targets])
    u[:, n_targets:] += bias[n_targets:]
    su = u if block.weight is None else u * block.weight[:, None]
    np.add(state.products, X.T @ su, out=state.products)
    np.add(state.sums, su.sum(axis=0), out=state.sums)
    np.add(state.rr, np.einsum("ij,ij->j", su[:, :n_targets], u[:, :n_targets]), out=state.rr)
    count(np, state, block.n_rows, block.weight)


def sparse_moments(
    block: Block, state: SparseMomentsState, *, x_scale: Scale, y_scale: Scale
) -> None:
    """Add a block to the sums of stored values."""
    target = count_targets(block, state, y_scale=y_scale)
    X = matrix_of(rows_of(block))
    X.sum_duplicates()
    s = weights_of(block.weight, block.n_rows)
    rows = np.repeat(np.arange(block.n_rows), np.diff(X.indptr))
    numbers, first = np.unique(X.indices, return_index=True)
    columns = state.columns
    new = columns[numbers, WEIGHT] == 0
    scale = np.ones(X.shape[1]) if x_scale is None else x_scale
    columns[numbers[new], ORIGIN] = (X.data[first] * scale[numbers])[new]
    columns[numbers[new], LOW], columns[numbers[new], HIGH] = np.inf, -np.inf
    z = X.data * scale[X.indices] - columns[X.indices, ORIGIN]
    np.add.at(columns[:, WEIGHT], X.indices, s[rows])
    np.add.at(columns[:, SUM], X.indices, s[rows] * z)
    np.add.at(columns[:, SQUARES], X.indices, s[rows] * z * z)
    np.minimum.at(columns[:, LOW], X.indices, X.data)
    np.maximum.at(columns[:, HIGH], X.indices, X.data)
    for at in range(target.shape[1]):
        sy = s[rows] * target[rows, at]
        np.add.at(columns[:, CROSS + 2 * at], X.indices, sy * z)
        np.add.at(columns[:, CROSS + 2 * at + 1], X.indices, sy)
    # in the order of the rows, as the weights of columns
    state.s[...] = np.cumsum(np.append(state.s, s))[-1]
    state.check[...] += np.sum(X.data - X.data)


def count_targets(block: Block, state: SparseMomentsState, *, y_scale: Scale) -> Float64:
    """Count rows, and move the moments of y; returns y less its origin, (n, K)."""
    if len(state.y_low):
        np.minimum(state.y_low, block.y.min(axis=0), out=state.y_low)
        np.maximum(state.y_high, block.y.max(axis=0), out=state.y_high)
    target = move_targets(block, state, y_scale=y_scale)
    state.n[...] += block.n_rows
    return target


def move_targets(
    block: Block, state: SparseMomentsState | SparseGramState, *, y_scale: Scale
) -> Float64:
    """Move the moments of y; returns y less its origin, (n, K)."""
    if not state.n:
        state.y_origin[...] = column(block.y[0], Affine(y_scale))
    target = column(block.y, Affine(y_scale, state.y_origin))
    s = weights_of(block.weight, block.n_rows)
    total = float(s.sum())
    mean = s @ target / total
    share = total / (float(state.s) + total)
    delta = mean - state.y_mean
    squares = s @ (target - mean) ** 2 + float(state.s) * share * delta * delta
    np.add(state.y_m2, squares, out=state.y_m2)
    np.add(state.y_mean, share * delta, out=state.y_mean)
    return target


def column_gram(
    block: Block, state: TriangleState, *, places: Places, x_scale: Scale = None
) -> None:
    """Add Σ s z zᵀ of the columns z with a place of 0 or more, (D,), each place once."""
    columns = np.argsort(places, kind="stable")[np.count_nonzero(places < 0) :]
    z = matrix_of(rows_of(block))[:, columns]
    if x_scale is not None:
        z = z * x_scale[columns]
    weighted = z if block.weight is None else z * block.weight[:, None]
    products = (z.T @ weighted).toarray()
    np.add(state.triangle, products[np.tril_indices(len(columns))], out=state.triangle)
    count(np, state, block.n_rows, block.weight)


def residuals(
    block: Block,
    state: ResidualState,
    *,
    coefficients: Float64,
    bias: Float64,
    n_targets: int,
    x_scale: Scale = None,
    y_scale: Scale = None,
) -> None:
    """Add r = XV + b, less y in its first K columns; V is (M, 2, D), b (M, 2): two floats.

    Sums are of ``numpy.longdouble``: 19 digits on x86-64.
    """
    X = rows_of(block)
    X.require_columns()
    indices = X.indices.astype(np.int64)
    values = X.values.astype(np.longdouble)
    if x_scale is not None:
        values *= x_scale[indices]
    y = column(block.y[:, :n_targets], Affine(y_scale))
    s = weights_of(block.weight, block.n_rows)
    rows = np.repeat(np.arange(len(X)), np.diff(X.bounds))
    for at in range(len(bias)):
        w = coefficients[at, 0].astype(np.longdouble) + coefficients[at, 1]
        r = np.full(len(X), bias[at, 0], np.longdouble) + bias[at, 1]
        if at < n_targets:
            r -= y[:, at]
        np.add.at(r, rows, values * w[indices])
        total = np.zeros(X.n_columns, np.longdouble)
        np.add.at(total, indices, values * (s * r)[rows])
        for sums, added in (
            (state.products[at], total),
            (state.sums[at], np.sum(s * r)),
            (state.rr[at], np.sum(s * r * r)),
        ):
            exact = sums[0].astype(np.longdouble) + sums[1] + added
            sums[0] = exact
            sums[1] = exact - sums[0]
    count_in_two_floats(state, block.n_rows, block.weight)


def predict_with(dense: Callable[..., Float64]) -> Callable[..., Float64]:
    """Return the kernel Xw + b of sparse rows, and of slices of them by the ``dense`` kernel."""

    def predict(X: Array | SparseRows, coefficients: Float64, intercept: Float64) -> Float64:
        if not isinstance(X, SparseRows):
            return dense(X, coefficients, intercept)
        return np.asarray(matrix_of(X) @ coefficients + intercept)

    return predict


def matrix_of(X: SparseRows) -> Any:  # noqa: ANN401  (SciPy has no types)
    """Return the rows as SciPy's, float64; it does not check indices, and copies other dtypes."""
    from scipy.sparse import csr_array  # noqa: PLC0415  (imported only for sparse rows)

    X.require_columns()
    parts = (X.values.astype(np.float64), X.indices.astype(np.int64), X.bounds)
    return csr_array(parts, shape=X.shape)
