"""Products of rows, their sums and fitted values: against NumPy, for any blocks and panels."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg.accumulators.fitted_values import FittedValues
from streamreg.accumulators.row_products import RowProducts
from streamreg.accumulators.row_sums import RowSums
from streamreg.blocks import Block
from streamreg.kernels.base import Kernels
from streamreg.kernels.row_tiles import COLUMNS, PIECE_ROWS, Columns, row_tile_rows

N, D, K = 600, COLUMNS + 5, 2
RNG = np.random.default_rng(0)
X = (RNG.standard_normal((N, D)) + 3).astype("f4")
Y = RNG.standard_normal((N, K))
WEIGHT = RNG.uniform(1, 2, N)
CENTRED = Columns(None, X.mean(axis=0, dtype=float), RNG.uniform(0.5, 2, D))
Z = (X - CENTRED.centre) * CENTRED.factor


def reduce(accumulator, heights=(7,)):
    """Add blocks whose heights repeat, as an engine does."""
    state, start, number = accumulator.zero(), 0, 0
    while start < N:
        rows = slice(start, start + heights[number % len(heights)])
        block = Block(X[rows], Y[rows], WEIGHT[rows], start)
        state = accumulator.update(state, block, Kernels({}))
        start, number = rows.stop, number + 1
    return accumulator.finalize(state)


def products(panel_rows, heights):
    """Return the lower triangle that passes with panels of this height compute."""
    found = np.zeros((N, N))
    for first in range(0, N, panel_rows):
        stop = min(first + panel_rows, N)
        result = reduce(RowProducts(N, D, K, first, stop, X.dtype, CENTRED), heights)
        found[first:, first:stop] = result.products
        np.testing.assert_array_equal(result.targets, Y)
        np.testing.assert_array_equal(result.weight, WEIGHT)
    return np.tril(found)


def test_products_are_those_of_numpy():
    expected = np.tril(Z @ Z.T)
    # each is a sum of 2,053 terms
    np.testing.assert_allclose(products(N, (7,)), expected, atol=1e-13 * expected.max())


def test_panels_and_blocks_change_no_bit():
    tile = row_tile_rows(D)
    assert tile % PIECE_ROWS == 0
    assert 2 * tile < N
    expected = products(N, (7,)).tobytes()

    for case in ((tile, (N,)), (2 * tile, (1, 300)), (N, (tile,))):
        assert products(*case).tobytes() == expected


def test_sums_of_rows_and_fitted_values_are_those_of_numpy():
    numbers, weights = RNG.standard_normal((N, 3)), RNG.standard_normal((D, 3))
    sums = reduce(RowSums(numbers, D, CENTRED), (7, 300))
    np.testing.assert_allclose(sums, Z.T @ numbers, atol=1e-11)
    values = reduce(FittedValues(N, weights, CENTRED), (7, 300))
    np.testing.assert_allclose(values, Z @ weights, atol=1e-11)


def test_wide_rows_have_lower_tiles():
    assert row_tile_rows(10) == row_tile_rows(100_000) == 256
    assert row_tile_rows(200_000) == 128
    assert row_tile_rows(10**8) == PIECE_ROWS


def test_states_of_different_rows_do_not_merge():
    accumulator = FittedValues(N, np.ones((D, 1)), Columns())
    empty, block = accumulator.zero(), Block(X[:9], Y[:9], None, 0)
    state = accumulator.update(accumulator.zero(), block, Kernels({}))
    assert accumulator.merge(empty, state) is state
    with pytest.raises(ValueError, match="no common numbers"):
        accumulator.merge(state, state)
