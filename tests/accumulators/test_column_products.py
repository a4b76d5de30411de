"""Products of rows as sums over columns, weights and fitted values: against NumPy."""

from __future__ import annotations

import numpy as np

from streamreg.accumulators.column_products import ColumnProducts
from streamreg.accumulators.column_weights import ColumnWeights
from streamreg.accumulators.row_values import RowValues
from streamreg.blocks import Block
from streamreg.kernels.base import Kernels
from streamreg.kernels.row_tiles import Columns
from streamreg.kernels.strips import Strips, strip_counts, strip_step, strip_width

N, D, K, STEP = 300, 700, 2, 50
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((N + 3, D)) + 3).astype("f4")
COUNTED = np.delete(np.arange(N + 3), [0, 100, 250])
CENTRED = Columns(None, X[COUNTED].mean(axis=0, dtype=float))
Z = X[COUNTED] - CENTRED.centre
FACTOR = RNG.uniform(0.5, 2, D)


def reduce(accumulator):
    """Add strips, as an engine does."""
    state, width = accumulator.zero(), accumulator.view.width
    for start in range(0, D, width):
        strip = X.T[start : start + width]
        block = Block(strip, np.empty((len(strip), 0)), None, start)
        state = accumulator.update(state, block, Kernels({}))
    assert state.n == D
    return accumulator.finalize(state)


def products(width):
    columns = CENTRED._replace(factor=FACTOR)
    return np.tril(reduce(ColumnProducts(N, columns, Strips(width, STEP, COUNTED))))


def weights(width, before=None):
    alpha = np.random.default_rng(1).standard_normal((N, K + 1))
    strips = Strips(width, STEP, COUNTED)
    return alpha, reduce(ColumnWeights(alpha, FACTOR, before, K, CENTRED, strips))


def test_products_are_those_of_numpy():
    expected = np.tril((Z * FACTOR) @ (Z * FACTOR).T)
    # each is a sum of 700 terms
    np.testing.assert_allclose(products(200), expected, atol=1e-13 * expected.max())


def test_weights_and_fitted_values_are_those_of_numpy():
    before = RNG.standard_normal((D, K))
    alpha, found = weights(200, before)
    v = FACTOR[:, None] * (Z.T @ alpha)
    v[:, :K] += before
    np.testing.assert_allclose(found.v, v, atol=1e-11)
    expected = Z @ (FACTOR[:, None] * v[:, :K])
    np.testing.assert_allclose(found.values, expected, atol=1e-12 * np.abs(expected).max())


def test_the_width_of_strips_changes_no_bit():
    for width in (STEP, 7 * STEP):
        assert products(width).tobytes() == products(D).tobytes()
        for mine, other in zip(weights(width)[1], weights(D)[1], strict=True):
            assert mine.tobytes() == other.tobytes()


def test_values_of_rows_are_kept_in_order():
    y, weight = RNG.standard_normal((N, K)), RNG.uniform(1, 2, N)
    accumulator = RowValues(N, K)
    state = accumulator.zero()
    for start in range(0, N, 7):
        rows = slice(start, start + 7)
        block = Block(COUNTED[rows, None], y[rows], weight[rows], start)
        state = accumulator.update(state, block, Kernels({}))
    np.testing.assert_array_equal(state.numbers, COUNTED)
    np.testing.assert_array_equal(state.targets, y)
    np.testing.assert_array_equal(state.weight, weight)


def test_strips_have_whole_chunks():
    assert [strip_step(columns) for columns in (1, 100, 1024, 1500)] == [1024, 1000, 1024, 1500]
    counts = list(strip_counts(100_000, 1000, 20_000))
    # of 256 MiB at most, and one step at least
    assert counts[0] == 8
    assert counts[-1] == 100
    assert [strip_width(100_000, 1000, count) for count in (8, 100)] == [13_000, 1000]
