"""Kernels and accumulators of sparse rows, compared with NumPy on the same rows made dense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import assert_same_bits

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.column_gram import ColumnGram
from streamreg.accumulators.residuals import Residuals
from streamreg.accumulators.sparse_gradient import SparseGradient
from streamreg.accumulators.sparse_gram import SparseGram
from streamreg.accumulators.sparse_moments import SparseMoments
from streamreg.blocks import Block, SparseRows
from streamreg.errors import DataCorruptionError
from streamreg.kernels.base import Affine, Parallel
from streamreg.kernels.registry import load_kernels
from streamreg.kernels.two_float import TwoFloats

# sums of some tens of terms, added in another order
ROUNDING = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture(params=["numpy", "compiled", "baseline"])
def kernels(request):
    try:
        return load_kernels(request.param)
    except LookupError as error:
        pytest.skip(str(error))


@st.composite
def blocks(draw):
    """Rows with duplicates, in any order, some of them empty; dense, and in two splits."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d, k = draw(st.integers(2, 30)), draw(st.integers(1, 8)), draw(st.integers(1, 3))
    lengths = rng.integers(0, 2 * d, n)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    indices = rng.integers(0, d, bounds[-1])
    if draw(st.booleans()):
        # the first column in every row, with a mean of many deviations
        lengths += 1
        bounds = np.concatenate([[0], np.cumsum(lengths)])
        indices = np.insert(indices, np.cumsum(lengths - 1) - (lengths - 1), 0)
    values = rng.standard_normal(bounds[-1]) + 100
    values = values.astype(draw(st.sampled_from(["f4", "f8"])))
    indices = indices.astype(draw(st.sampled_from(["i4", "u4", "i8", "u8"])))
    rows = SparseRows(d, values, indices, bounds, "X", 0)
    X = np.zeros((n, d))
    np.add.at(X, (np.repeat(np.arange(n), lengths), indices.astype(int)), values)
    weight = rng.uniform(0.1, 2.0, n) if draw(st.booleans()) else None
    block = Block(rows, rng.standard_normal((n, k)) + 7, weight, 0)
    return block, X, np.ones(n) if weight is None else weight


def reduce(accumulator, block, kernels):
    """Return the statistic of two segments, the second one of two blocks."""
    n, states = block.n_rows, []
    for parts in (((0, n // 2),), ((n // 2, n // 2 + 1), (n // 2 + 1, n))):
        state = accumulator.zero()
        for first, stop in parts:
            if first < stop:
                part = block.rows(first, stop)
                state = accumulator.update(state, part, kernels.for_block(part))
        states.append(state)
    merged = accumulator.merge(accumulator.merge(accumulator.zero(), states[0]), states[1])
    return accumulator.finalize(merged)


@given(drawn=blocks(), with_direction=st.booleans(), scaled=st.booleans())
def test_gradient(kernels, drawn, with_direction, scaled):
    block, X, s = drawn
    k, d = block.y.shape[1], X.shape[1]
    rng = np.random.default_rng(0)
    m = k * (1 + with_direction)
    V, b = rng.standard_normal((d, m)), rng.standard_normal(m)
    scale = 2.0 ** rng.integers(-3, 3, d)
    x = Affine(scale) if scaled else Affine()
    result = reduce(SparseGradient(V, b, k, x), block, kernels)
    Z = X * scale if scaled else X
    u = Z @ V + b
    u[:, :k] -= block.y
    size = np.abs(Z).sum() * np.abs(u).max()
    np.testing.assert_allclose(result.rr, s @ u[:, :k] ** 2 / s.sum(), rtol=1e-9)
    np.testing.assert_allclose(result.bias, s @ u / s.sum(), rtol=1e-9, atol=1e-12 * size)
    expected = Z.T @ (s[:, None] * u) / s.sum()
    np.testing.assert_allclose(result.gradient, expected, rtol=1e-9, atol=1e-12 * size)


@given(drawn=blocks(), scaled=st.booleans())
def test_gram_of_chosen_columns(kernels, drawn, scaled):
    block, X, s = drawn
    rng = np.random.default_rng(0)
    chosen = rng.permutation(X.shape[1])[: max(1, X.shape[1] // 2)]
    scale = 2.0 ** rng.integers(-3, 3, X.shape[1])
    result = reduce(ColumnGram(X.shape[1], chosen, scale if scaled else None), block, kernels)
    Z = (X * scale if scaled else X)[:, chosen]
    expected = (Z.T * s) @ Z / s.sum()
    np.testing.assert_allclose(result, expected, rtol=1e-9)


@given(drawn=blocks())
def test_moments(kernels, drawn):
    block, X, s = drawn
    y = block.y
    result = reduce(SparseMoments(X.shape[1], y.shape[1]), block, kernels)
    mean, y_mean = s @ X / s.sum(), s @ y / s.sum()
    z, z_y = X - mean, y - y_mean
    np.testing.assert_allclose(result.mean, mean, **ROUNDING)
    # digits of a square are half as many
    np.testing.assert_allclose(result.deviation**2, s @ z**2 / s.sum(), rtol=1e-9, atol=1e-9)
    cross = (z_y * s[:, None]).T @ z / s.sum()
    np.testing.assert_allclose(result.cross, cross, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.y_variance, s @ z_y**2 / s.sum(), **ROUNDING)
    np.testing.assert_allclose(result.low, X.min(axis=0), rtol=1e-6)
    np.testing.assert_allclose(result.high, X.max(axis=0), rtol=1e-6)


@given(drawn=blocks())
def test_residuals_and_predictions(kernels, drawn):
    block, X, s = drawn
    k = block.y.shape[1]
    rng = np.random.default_rng(1)
    w, b = rng.standard_normal((X.shape[1], k)), rng.standard_normal(k)
    result = reduce(Residuals(TwoFloats.of(w), TwoFloats.of(b), k), block, kernels)
    r = X @ w + b - block.y
    size = np.abs(X).sum() * np.abs(r).max()
    np.testing.assert_allclose(result.rr.rounded(), s @ r**2, rtol=1e-9)
    np.testing.assert_allclose(
        result.products.rounded(), X.T @ (s[:, None] * r), rtol=1e-9, atol=1e-12 * size
    )
    predicted = kernels.for_block(block).find("predict")(block.X, w, b)
    np.testing.assert_allclose(predicted, X @ w + b, rtol=1e-9, atol=1e-12 * size)


@pytest.mark.parametrize("index", [5, -1])
def test_a_column_beyond_the_last_is_an_error_that_names_its_row(kernels, index):
    indices = np.array([0, 1, 4, index], np.int32)
    rows = SparseRows(5, np.ones(4), indices, np.array([0, 2, 2, 4]), "X", 10)
    block = Block(rows, np.zeros((3, 1)), None, 10)
    accumulators = (
        SparseMoments(5, 1),
        SparseGradient(np.ones((5, 1)), np.zeros(1), 1),
        ColumnGram(5, np.array([1, 4])),
    )
    for accumulator in accumulators:
        with pytest.raises(DataCorruptionError, match=f"column {index} of row 12, but has 5"):
            accumulator.update(accumulator.zero(), block, kernels.for_block(block))


@given(drawn=blocks(), centred=st.booleans(), scaled=st.booleans())
def test_gram(kernels, drawn, centred, scaled):
    block, X, s = drawn
    y, (d, k) = block.y, (X.shape[1], block.y.shape[1])
    units = Scaling(2.0 ** np.arange(d), np.full(k, 0.5)) if scaled else None
    X, y = (X * units.x, y * units.y) if units else (X, y)
    accumulator = SparseGram(d, k, centred, units)
    result = reduce(accumulator, block, kernels)
    mean, y_mean = (s @ X / s.sum(), s @ y / s.sum()) if centred else (0, 0)
    z, z_y = X - mean, y - y_mean
    size = np.abs(X).max() ** 2 * len(X)
    variances = np.append(s @ z**2, s @ z_y**2) / s.sum()
    np.testing.assert_allclose(result.variances, variances, rtol=1e-9, atol=1e-13 * size)
    result = result.about_means()
    lower = np.tril_indices(d)
    expected = (z.T * s) @ z
    np.testing.assert_allclose(result.gram[lower], expected[lower], rtol=1e-9, atol=1e-12 * size)
    cross = (z.T * s) @ z_y
    np.testing.assert_allclose(result.cross, cross, rtol=1e-9, atol=1e-12 * size * s.sum())
    assert result.cross.flags.f_contiguous
    if centred:
        np.testing.assert_allclose(result.mean, mean, **ROUNDING)
        np.testing.assert_allclose(result.y_mean, y_mean, **ROUNDING)
    varies = np.ptp(X, axis=0) if centred else np.abs(X).max(axis=0)
    np.testing.assert_array_equal(result.varies > 0, varies > 0)


def test_gram_of_a_column_that_every_row_stores_keeps_its_digits(kernels):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 2))
    X[:, 0] += 1e9
    rows = SparseRows(2, X.ravel(), np.tile([0, 1], 400), np.arange(0, 801, 2), "X", 0)
    block = Block(rows, rng.standard_normal((400, 1)), None, 0)
    result = reduce(SparseGram(2, 1), block, kernels).about_means()
    expected = np.cov((X - X[0]).T) * 399
    np.testing.assert_allclose(result.gram[[0, 1, 1], [0, 0, 1]], expected[[0, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("n_workers", [1, 2, 3])
def test_panels_of_columns_that_are_computed_apart_join_to_the_gram(kernels, n_workers):
    n, d, rng = 20, 900, np.random.default_rng(0)
    indices = rng.permuted(np.tile(np.arange(d), (n, 1)), axis=1)[:, :90].ravel()
    rows = SparseRows(d, rng.standard_normal(n * 90), indices, np.arange(0, 90 * n + 1, 90), "X", 0)
    block = Block(rows, rng.standard_normal((n, 1)), None, 0)
    accumulator, of_rows = SparseGram(d, 1), kernels.for_block(block)
    whole = accumulator.update(accumulator.zero(), block, of_rows)
    parts = []
    for first in range(n_workers):
        numbers = range(first, accumulator.n_parts, n_workers)

        def run(task, count, prepare, numbers=numbers):
            assert count == accumulator.n_parts
            prepare()
            for number in numbers:
                task(number)

        own = of_rows._replace(parallel=Parallel(run))
        state = accumulator.update(accumulator.zero(), block, own)
        parts.append((numbers, accumulator.part(state, numbers)))
    assert_same_bits(accumulator.joined(parts), whole)


@given(drawn=blocks(), scaled=st.booleans())
def test_gradient_of_columns_that_are_shifted(kernels, drawn, scaled):
    block, X, _ = drawn
    rows = block.X
    lengths = np.diff(rows.bounds) + 1
    # the last column is in every row, where its two values add up
    indices = np.insert(rows.indices, rows.bounds[1:], X.shape[1] - 1)
    values = np.insert(rows.values, rows.bounds[1:], 1e6)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    block = Block(SparseRows(X.shape[1], values, indices, bounds, "X", 0), block.y, None, 0)
    X = X.copy()
    X[:, -1] += 1e6
    scale = np.full(X.shape[1], 0.25) if scaled else None
    shift = np.zeros(X.shape[1])
    shift[-1] = 1e6 * (0.25 if scaled else 1)
    k = block.y.shape[1]
    V, b = np.random.default_rng(0).standard_normal((X.shape[1], k)), np.zeros(k)
    result = reduce(SparseGradient(V, b, k, Affine(scale, shift)), block, kernels)
    Z = (X if scale is None else X * scale) - shift
    u = Z @ V - block.y
    size = np.abs(Z).sum() * np.abs(u).max()
    np.testing.assert_allclose(result.rr, np.mean(u**2, axis=0), rtol=1e-9)
    np.testing.assert_allclose(result.gradient, Z.T @ u / len(X), rtol=1e-9, atol=1e-12 * size)
