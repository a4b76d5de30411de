"""``partial_fit``: the fit of all rows so far."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from problems import table
from sklearn.base import clone

from streamreg import DataWarning, InputError, LinearRegression

SOLVERS = ["auto", "closed_form", "qr"]


@pytest.fixture(params=SOLVERS)
def solver(request):
    return request.param


@pytest.mark.parametrize("k", [1, 2])
def test_each_call_gives_the_fit_of_all_rows_so_far(solver, k):
    X, y = table(k=k)
    weight = np.random.default_rng(0).integers(1, 4, 600)
    model = LinearRegression(solver=solver)
    for stop in (100, 250, 600):
        start = {100: 0, 250: 100, 600: 250}[stop]
        rows = slice(start, stop)
        assert model.partial_fit(X[rows], y[rows], weight[rows]) is model
        expected = LinearRegression(solver="qr").fit(X[:stop], y[:stop], weight[:stop])
        np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-10)
        np.testing.assert_allclose(model.intercept_, expected.intercept_, rtol=1e-10)
        assert model.n_rows_ == stop
    assert model.coef_.shape == expected.coef_.shape


def test_files_and_arrays_may_follow_each_other(store):
    X, y = table()
    model = LinearRegression().partial_fit(X[:200], y[:200])
    model.partial_fit(store(X[200:]), store(y[200:], "y.zarr"))
    np.testing.assert_allclose(model.coef_, LinearRegression().fit(X, y).coef_, rtol=1e-10)


def test_fit_starts_anew(solver):
    X, y = table()
    model = LinearRegression(solver=solver).partial_fit(X[:300], y[:300])
    model.fit(X[300:], y[300:]).partial_fit(X[:100], y[:100])
    expected = LinearRegression(solver="qr").fit(X[:100], y[:100])
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-10)
    assert model.n_rows_ == 100


def test_a_clone_starts_anew_and_a_pickle_continues(solver):
    X, y = table()
    model = LinearRegression(solver=solver).partial_fit(X[:300], y[:300])
    assert clone(model).partial_fit(X[300:], y[300:]).n_rows_ == 300
    continued = pickle.loads(pickle.dumps(model)).partial_fit(X[300:], y[300:])
    assert continued.n_rows_ == 600
    # the pickle has a state of its own
    assert model.partial_fit(X[300:400], y[300:400]).n_rows_ == 400


def test_the_penalty_may_change_between_calls():
    X, y = table()
    model = LinearRegression().partial_fit(X[:300], y[:300])
    model.set_params(l2=0.5).partial_fit(X[300:], y[300:])
    expected = LinearRegression(l2=0.5).fit(X, y).coef_
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-10)


def test_the_solver_may_not_change_between_calls():
    X, y = table()
    model = LinearRegression(solver="qr").partial_fit(X[:300], y[:300])
    with pytest.raises(InputError, match="does not take statistics of kind 'qr'"):
        model.set_params(solver="closed_form").partial_fit(X[300:], y[300:])


def test_other_columns_are_refused_and_change_nothing():
    X, y = table()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = LinearRegression().partial_fit(frame[:300], y[:300])
    with pytest.raises(InputError, match="feature names"):
        model.partial_fit(frame.rename(columns={"c": "z"})[300:], y[300:])
    with pytest.raises(InputError, match="have 1 target and the second 2"):
        model.partial_fit(frame[300:], np.c_[y, y][300:])
    model.partial_fit(frame[300:], y[300:])
    np.testing.assert_allclose(model.coef_, LinearRegression().fit(X, y).coef_, rtol=1e-10)


def test_it_exists_where_statistics_are_taken_only():
    for parameters in ({"solver": "cg"}, {"solver": "gd"}, {"cov_type": "HC1"}):
        assert not hasattr(LinearRegression(**parameters), "partial_fit")
    with pytest.raises(AttributeError) as error:
        LinearRegression(solver="cg").partial_fit([[1.0]], [1.0])
    message = 'solver="cg" takes no statistics: pass solver="closed_form" or solver="qr"'
    assert message in str(error.value.__cause__)


def test_rows_left_out_are_warned_of_in_each_call():
    X, y = table()
    X[[5, 400]] = np.nan
    model = LinearRegression(nan_policy="omit")
    for rows in (slice(0, 300), slice(300, 600)):
        with pytest.warns(DataWarning, match="1 of 300 rows holds NaN"):
            model.partial_fit(X[rows], y[rows])
    assert (model.rows_omitted_, model.n_rows_) == (2, 598)
