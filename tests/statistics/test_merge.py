"""Merged statistics are those of all rows."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import table

from streamreg import InputError, LinearRegression, Statistics
from streamreg.engines.partition import PartitionPolicy
from streamreg.planning.threads_backend import ThreadsBackend

KINDS = ["gram", "qr"]


def bits(statistics):
    """Return all sums of statistics, as bytes."""
    return [array.tobytes(order="F") for array in statistics.take().state]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def weight():
    return np.random.default_rng(3).integers(0, 4, 600) * 0.5


def relative(found, expected):
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def test_twelve_pieces_in_order_have_the_bits_of_one_pass(kind, monkeypatch):
    # twelve segments of one pass, and each piece is one of them
    policy = PartitionPolicy(
        block_nbytes=1,
        piece_nbytes=8 * 8 * 48,
        many_segments=12,
        least_segment_nbytes=1,
        segment_nbytes=1,
    )
    X, y = table(n=576, d=7)
    monkeypatch.setattr(ThreadsBackend, "policy", policy)
    whole = Statistics.of(X, y, kind=kind)
    # each piece is one segment
    monkeypatch.setattr(ThreadsBackend, "policy", PartitionPolicy())
    pieces = [
        Statistics.of(X[at : at + 48], y[at : at + 48], kind=kind) for at in range(0, 576, 48)
    ]
    merged = pieces[0].merge(*pieces[1:])
    assert len(pieces) == 12
    assert bits(merged) == bits(whole)
    weights = [LinearRegression().fit(each).coef_.tobytes() for each in (merged, whole)]
    assert weights[0] == weights[1]


@settings(max_examples=10)
@given(order=st.permutations(range(6)), shares=st.lists(st.integers(1, 50), min_size=6, max_size=6))
@pytest.mark.parametrize("kind", KINDS)
def test_any_order_gives_the_same_sums(kind, order, shares):
    X, y = table(n=600, k=2)
    weight = np.random.default_rng(3).integers(1, 4, 600) * 0.5
    bounds = np.rint(np.cumsum([0, *shares]) / sum(shares) * 600).astype(int)
    rows = [slice(a, b) for a, b in pairwise(bounds)]
    rows = [each for each in (rows[number] for number in order) if each.stop > each.start]
    pieces = [Statistics.of(X[each], y[each], weight[each], kind=kind) for each in rows]
    merged, whole = pieces[0].merge(*pieces[1:]), Statistics.of(X, y, weight, kind=kind)
    assert merged.n_rows == whole.n_rows == 600
    # some additions more than in one pass
    for name in ("xx", "xy", "yy"):
        assert relative(getattr(merged, name), getattr(whole, name)) < 1e-14, name
    # in deviations, which are about 1
    for name in ("x_mean", "y_mean"):
        assert np.max(np.abs(getattr(merged, name) - getattr(whole, name))) < 1e-14, name


def test_update_is_a_merge_with_statistics_of_the_rows(kind, weight):
    X, y = table()
    first = Statistics.of(X[:200], y[:200], weight[:200], kind=kind)
    merged = first.merge(Statistics.of(X[200:], y[200:], weight[200:], kind=kind))
    assert first.update(X[200:], y[200:], weight[200:]) is first
    assert bits(first) == bits(merged)
    assert first.about == merged.about


def test_a_merge_leaves_both_as_they_are(kind):
    X, y = table()
    first = Statistics.of(X[:200], y[:200], kind=kind)
    second = Statistics.of(X[200:], y[200:], kind=kind)
    before = bits(first), bits(second)
    first.merge(second)
    first.merge(first)
    assert (bits(first), bits(second)) == before


def test_rows_without_weights_merge_with_weighted_ones(kind, weight):
    X, y = table()
    merged = Statistics.of(X[:300], y[:300], kind=kind)
    merged.update(X[300:], y[300:], weight[300:])
    both = np.concatenate([np.ones(300), weight[300:]])
    assert merged.weight_sum == both.sum()
    assert merged.n_rows == np.count_nonzero(both)
    found = LinearRegression().fit(merged).coef_
    assert relative(found, LinearRegression().fit(X, y, both).coef_) < 1e-12


# the columns jump together, and XᵀX has the square of their condition number
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
def test_rows_far_apart_keep_their_digits(kind):
    # means of 1e8 deviations, and pieces that lie 1e4 deviations apart
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 3)) + 1e8
    X[200:] += 1e4
    y = (X - 1e8) @ [1.0, -2.0, 0.5] + 0.1 * rng.standard_normal(400)
    merged = Statistics.of(X[:200], y[:200], kind=kind).update(X[200:], y[200:])
    found = LinearRegression().fit(merged).coef_
    expected = LinearRegression(solver="qr").fit(X, y).coef_
    assert relative(found, expected) < (1e-6 if kind == "gram" else 1e-9)


@pytest.mark.parametrize("power", [-400, 400, 600])
def test_values_beyond_float64_merge_with_usual_ones(kind, power):
    # their squares leave float64's range; 2^600 has no common units with 1
    X, y = table(n=400, d=3)
    X[200:, 1] = np.ldexp(X[200:, 1], power)
    y = y * 1e200
    merged = Statistics.of(X[:200], y[:200], kind=kind).update(X[200:], y[200:])
    found = LinearRegression().fit(merged)
    expected = LinearRegression().fit(X, y)
    sizes = X.std(axis=0) if power < 300 else np.max(np.abs(X), axis=0)
    share = np.abs(found.coef_ / 1e200 - expected.coef_ / 1e200) * sizes
    assert np.max(share / (np.abs(expected.coef_ / 1e200) * sizes).max()) < 1e-10


def test_a_column_of_zeros_takes_the_units_of_the_other_rows(kind):
    X, y = table(n=400, d=3)
    X[:200, 1] = 0.0
    X[200:, 1] *= 1e-250
    merged = Statistics.of(X[:200], y[:200], kind=kind).update(X[200:], y[200:])
    found = LinearRegression().fit(merged).coef_
    assert relative(found, LinearRegression().fit(X, y).coef_) < 1e-12


def test_other_columns_are_named():
    X, y = table(d=3)
    first = Statistics.of(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    swapped = Statistics.of(pd.DataFrame(X, columns=["a", "c", "b"]), y)
    with pytest.raises(InputError, match=r"column 1 is 'b' in the first .* and 'c' in the second"):
        first.merge(swapped)
    fewer = Statistics.of(pd.DataFrame(X[:, :2], columns=["a", "b"]), y)
    with pytest.raises(InputError, match="have 3 columns and the second 2; 'c' is in one of them"):
        first.merge(fewer)
    with pytest.raises(InputError, match="have 1 target and the second 2"):
        first.merge(Statistics.of(pd.DataFrame(X, columns=["a", "b", "c"]), np.c_[y, y]))
    with pytest.raises(InputError, match="kind 'gram' and 'qr' cannot be merged"):
        first.merge(Statistics.of(X, y, kind="qr"))
    with pytest.raises(InputError, match="merge takes Statistics, not ndarray"):
        first.merge(X)


def test_names_of_one_suffice():
    X, y = table(d=3)
    unnamed = Statistics.of(X, y)
    assert unnamed.merge(Statistics.of(pd.DataFrame(X, columns=list("abc")), y)).feature_names == (
        "a",
        "b",
        "c",
    )


def test_a_failed_update_changes_nothing(kind):
    X, y = table()
    statistics = Statistics.of(X, y, kind=kind)
    before = bits(statistics), statistics.about
    X[5, 1] = np.nan
    with pytest.raises(InputError, match="NaN"):
        statistics.update(X, y)
    with pytest.raises(InputError, match="6 columns and the second 2"):
        statistics.update(X[10:, :2], y[10:])
    assert (bits(statistics), statistics.about) == before


def test_an_interrupted_update_is_refused_afterwards(monkeypatch):
    X, y = table()
    statistics, more = Statistics.of(X, y), Statistics.of(X, y)
    statistic = type(statistics.about.statistic)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(statistic, "merge", interrupt)
    with pytest.raises(KeyboardInterrupt):
        statistics.add(more)
    with pytest.raises(InputError, match="an update was interrupted"):
        LinearRegression().fit(statistics)
