"""Penalties of statistics, and plans: chosen by GCV without a row."""

from __future__ import annotations

import numpy as np
import pytest
from problems import table
from sklearn.linear_model import Ridge

import streamreg
from streamreg import InputError, LinearRegression, LinearRegressionCV, Statistics

L2S = np.geomspace(1e-4, 1e2, 9)


@pytest.fixture
def weight():
    return np.random.default_rng(3).uniform(0.1, 2, 600)


def gcv(X, Y, s, l2, *, fit_intercept):
    """Return (RSS/Σs) / (1 - df/n)² of each target, by the singular values of √s·X."""
    if fit_intercept:
        X, Y = X - np.average(X, axis=0, weights=s), Y - np.average(Y, axis=0, weights=s)
    X, Y = np.sqrt(s)[:, None] * X, np.sqrt(s)[:, None] * Y
    U, values, _ = np.linalg.svd(X, full_matrices=False)
    shares = values**2 / (values**2 + l2 * s.sum())
    residuals = Y - U @ (shares[:, None] * (U.T @ Y))
    df = shares.sum() + fit_intercept
    return (residuals**2).sum(axis=0) / s.sum() / (1 - df / len(X)) ** 2


@pytest.mark.filterwarnings("ignore:the best penalty:streamreg.DataWarning")
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_scores_and_weights_are_those_of_the_definition(fit_intercept, weighted, weight):
    X, Y = table(k=3)
    X = X + 3
    Y = Y + np.random.default_rng(1).standard_normal(Y.shape) * [1.0, 3.0, 9.0]
    s = weight if weighted else np.ones(600)
    parts = [
        Statistics.of(X[rows], Y[rows], s[rows] if weighted else None)
        for rows in (slice(250), slice(250, None))
    ]
    statistics = parts[0].merge(parts[1])
    before = statistics.xx.copy()
    model = LinearRegressionCV(l2=L2S, l2_per_target=True, fit_intercept=fit_intercept)
    model.fit(statistics)
    expected = np.array([gcv(X, Y, s, l2, fit_intercept=fit_intercept) for l2 in L2S])
    np.testing.assert_allclose(model.cv_scores_, -expected[:, None], rtol=1e-8)
    np.testing.assert_array_equal(model.l2_, L2S[expected.argmin(axis=0)])
    for target, l2 in enumerate(model.l2_):
        ridge = Ridge(l2 * s.sum(), solver="svd", fit_intercept=fit_intercept)
        ridge.fit(X, Y[:, target], s)
        np.testing.assert_allclose(model.coef_[target], ridge.coef_, rtol=1e-9, atol=1e-11)
    # the user's statistics stay
    np.testing.assert_array_equal(statistics.xx, before)


def test_the_default_grid_is_that_of_the_rows():
    X, y = table()
    X[:, 1] = 4
    with pytest.warns(streamreg.DataWarning, match="constant"):
        of_statistics = LinearRegressionCV().fit(Statistics.of(X, y))
    with pytest.warns(streamreg.DataWarning, match="constant"):
        of_rows = LinearRegressionCV().fit(X, y)
    np.testing.assert_allclose(of_statistics.l2s_, of_rows.l2s_, rtol=1e-12)
    np.testing.assert_allclose(of_statistics.coef_, of_rows.coef_, rtol=1e-10)


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"cv": 5}, "gram", 'one sum of all rows: pass cv="gcv"'),
        ({}, "qr", "gather them with kind=.gram"),
        ({"checkpoint": "c"}, "gram", "checkpoint is of passes"),
    ],
)
def test_what_statistics_do_not_tell_is_refused(parameters, kind, message):
    statistics = Statistics.of(*table(), kind=kind)
    with pytest.raises(InputError, match=message):
        LinearRegressionCV(**parameters).fit(statistics)
    with pytest.raises(InputError, match=message):
        streamreg.plan(statistics, **{"cv": "gcv", **parameters})


def test_squares_beyond_float64_are_refused():
    X, y = table()
    with pytest.raises(InputError, match="other units"):
        LinearRegressionCV().fit(Statistics.of(X * 1e-170, y))


def test_a_plan_of_statistics_is_that_of_their_fit():
    X, y = table()
    statistics = Statistics.of(X, y)
    plan = streamreg.plan(statistics, l2=0.1)
    fitted = LinearRegression(l2=0.1).fit(statistics)
    assert plan.candidates["closed_form"].passes == 0
    assert plan.candidates["closed_form"].peak_nbytes == fitted.planned_peak_
    with pytest.raises(InputError, match="pass them alone"):
        streamreg.plan(statistics, y)


def test_a_plan_counts_the_copy_that_penalties_take():
    X = np.random.default_rng(0).standard_normal((300, 200))
    statistics = Statistics.of(X, X[:, 0])
    one, many = (
        streamreg.plan(statistics, cv=cv).candidates["closed_form"] for cv in (None, "gcv")
    )
    assert many.needed_nbytes - one.needed_nbytes >= 8 * 200**2
