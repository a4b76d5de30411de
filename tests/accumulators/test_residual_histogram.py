"""Counts of residuals by fitted value, against those of ``numpy.histogram2d``."""

from __future__ import annotations

import laws
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from laws import Rows

from streamreg.accumulators.residual_histogram import Bins, ResidualHistogram

W, B = np.array([[2.0, -1.0], [0.25, 3.0], [-4.0, 0.5]]), np.array([1.0, -2.0])


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((500, 3)) * [1, 30, 0.1]
    # a few residuals are far from the others
    return Rows(X, X @ W + B + rng.standard_t(2, (500, 2)), rng.uniform(0.5, 2, 500))


def histogram(rows, heights, order=slice(None), **options):
    """Return the result of rows in some order, with a segment for each height."""
    rows = Rows(*(each[order] for each in rows))
    starts = np.cumsum([0, *heights])
    segments = [rows.blocks([n], int(a)) for n, a in zip(heights, starts, strict=False)]
    statistic = ResidualHistogram(W, B, **options)
    return statistic.finalize(laws.reduce(statistic, segments))


@pytest.mark.parametrize("target", [0, 1])
def test_counts_are_those_of_numpy(rows, target):
    found = histogram(rows, [500], target=target)
    fitted = (rows.X @ W + B)[:, target]
    expected, _, _ = np.histogram2d(
        fitted, rows.y[:, target] - fitted, bins=[found.fitted_edges, found.residual_edges]
    )
    np.testing.assert_array_equal(found.counts, expected)
    assert found.n == 500


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
@pytest.mark.parametrize("heights", [[250, 250], [71] * 7 + [3], [1] * 500])
def test_counts_and_edges_depend_on_no_split_and_no_order(rows, order, heights):
    whole, split = histogram(rows, [500]), histogram(rows, heights, order)
    for name in ("n", "fitted_edges", "residual_edges", "counts"):
        np.testing.assert_array_equal(getattr(split, name), getattr(whole, name), err_msg=name)


def test_more_than_half_of_the_bins_are_used_and_the_outer_ones_are_not_empty(rows):
    counts = histogram(rows, [500], shape=(16, 32)).counts
    assert all(most / 2 <= size <= most for size, most in zip(counts.shape, (16, 32), strict=True))
    assert all(counts[row].any() for row in (0, -1))
    assert all(counts[:, column].any() for column in (0, -1))


def test_rows_with_one_residual_are_in_one_bin():
    X = np.arange(12.0).reshape(4, 3)
    found = histogram(Rows(X, X @ W + B + 3.0, np.ones(4)), [2, 2])
    assert found.counts.shape[1] == 1
    assert found.residual_edges[0] <= 3.0 < found.residual_edges[1]


def test_an_exact_fit_has_residuals_in_a_bin_from_zero():
    X = np.arange(12.0).reshape(4, 3)
    found = histogram(Rows(X, X @ W + B, np.ones(4)), [4])
    assert found.counts.sum() == 4
    assert found.residual_edges[0] == 0.0


@pytest.mark.parametrize("size", [2.0**600, 2.0**-600])
def test_a_power_of_two_in_y_moves_the_edges_only(rows, size):
    scale = np.full(2, 1 / size)
    plain = histogram(rows, [500])
    found = ResidualHistogram(W * size, B * size, y_scale=scale)
    large = found.finalize(laws.reduce(found, [rows._replace(y=rows.y * size).blocks([500])]))
    np.testing.assert_array_equal(large.counts, plain.counts)
    np.testing.assert_array_equal(large.residual_edges, plain.residual_edges * size)
    np.testing.assert_array_equal(large.rmse, plain.rmse * size)
    np.testing.assert_array_equal(large.r2, plain.r2)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(FLOATS, min_size=1, max_size=30), st.integers(2, 40))
def test_bins_hold_all_values_and_are_as_narrow_as_their_number_allows(values, most):
    values = np.array(values)
    bins = Bins.between(values.min(), values.max(), most)
    places = bins.places(values)
    assert places.min() == 0
    assert places.max() == bins.size - 1 < most
    # half as wide, they would be too many, or finer than 2^-40 of the values or than float64 is
    least = max(np.abs(values).max() * 2.0**-39, 5e-324)
    assert bins.size * 2 > most - 1 or 2.0**bins.exponent <= least


def test_tiny_negative_values_stay_below_zero():
    assert Bins(0, -1, 2).places(np.array([-5e-324, 0.0])).tolist() == [0, 1]
    assert Bins(1000, -1, 2).places(np.array([-1e-300, 0.0])).tolist() == [0, 1]


@given(st.lists(FLOATS, min_size=2, max_size=30), st.integers(2, 40), st.data())
def test_joined_bins_are_those_of_the_wider_range(values, most, data):
    values = np.array(values)
    few = values[: data.draw(st.integers(1, len(values)))]
    bins = Bins.between(few.min(), few.max(), most)
    wider = Bins.between(values.min(), values.max(), most)
    assume(bins != wider)
    firsts, place = bins.joined_in(wider)
    counts = np.bincount(bins.places(few), minlength=bins.size)
    joined = np.zeros(wider.size, int)
    joined[place] = np.add.reduceat(counts, firsts)
    np.testing.assert_array_equal(joined, np.bincount(wider.places(few), minlength=wider.size))
