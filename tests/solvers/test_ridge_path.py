"""Many penalties from one reduction: against exact weights, Ridge, and hat matrices."""

from __future__ import annotations

import laws
import numpy as np
import pytest
from exact import exact_fit
from laws import Rows
from problems import table
from sklearn.linear_model import Ridge

from streamreg.accumulators.gram import Gram
from streamreg.solvers.ridge_path import RidgePath, fold_errors, generalised_errors, path_width

L2S = np.array([0.0, 1e-6, 1e-3, 1.0, 1e3])


def moments(X, y, weight=None, *, centred=True):
    y = y if y.ndim == 2 else y[:, None]
    gram = Gram(X.shape[1], y.shape[1], centred)
    return gram.finalize(laws.state_of(gram, Rows(X, y, weight).blocks([len(X)])))


def weights(path, l2):
    pivots = path.at(l2)
    assert pivots is not None
    return path.weights(path.coordinates(pivots, slice(None)))


@pytest.mark.parametrize("powers", [0, 3], ids=["similar columns", "columns 1e6 apart"])
def test_weights_are_the_exact_ones(powers):
    X, y = table(60, 5)
    X = X * 10.0 ** np.linspace(-powers, powers, 5)[[2, 0, 4, 1, 3]]
    for l2 in (*L2S, 1e-9):
        found = weights(RidgePath.of(moments(X, y)), l2)[:, 0]
        *expected, _ = map(float, exact_fit(X, y, l2=l2))
        sizes = X.std(axis=0)
        # the square of a condition number of about 10, in units of rounding
        error = np.max(np.abs(found - expected) * sizes) / np.max(np.abs(expected) * sizes)
        assert error < 1e-12


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_fold_errors_are_those_of_ridge(fit_intercept, weighted):
    X, y = table(200, 6, 3)
    X += 1e3 * fit_intercept
    rng = np.random.default_rng(0)
    s = rng.uniform(0.1, 3, 200) if weighted else np.ones(200)
    train, test = slice(0, 150), slice(150, None)
    pair = [moments(X[at], y[at], s[at], centred=fit_intercept) for at in (train, test)]
    errors, rounding = fold_errors(RidgePath.of(pair[0]), *pair, L2S)
    for l2, found in zip(L2S, errors, strict=True):
        ridge = Ridge(l2 * s[train].sum(), fit_intercept=fit_intercept, solver="svd")
        ridge.fit(X[train], y[train], s[train])
        residuals = y[test] - ridge.predict(X[test])
        expected = np.average(residuals**2, axis=0, weights=s[test])
        # a fold of 50 rows, and a mean of 1,000 deviations
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (rounding < 1e-12 * errors).all()


def test_targets_and_penalties_beyond_one_product_are_all_solved():
    X, Y = table(60, 3, 40)
    train, test = moments(X[:40], Y[:40]), moments(X[40:], Y[40:])
    path, l2s = RidgePath.of(train), np.geomspace(1e-3, 1e3, 30)
    errors, _ = fold_errors(path, train, test, l2s)
    for k in (0, 39):
        one, other = moments(X[:40], Y[:40, k]), moments(X[40:], Y[40:, k])
        alone, _ = fold_errors(RidgePath.of(one), one, other, l2s)
        np.testing.assert_allclose(errors[:, k], alone[:, 0], rtol=1e-12)
    assert path_width(1 << 20) < 30 * 40


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_gcv_is_that_of_hat_matrices(fit_intercept):
    X, y = table(50, 6, 2)
    rng = np.random.default_rng(0)
    s = rng.uniform(0.1, 3, 50)
    sums = moments(X, y, s, centred=fit_intercept)
    found, _ = generalised_errors(RidgePath.of(sums), sums, L2S, fit_intercept=fit_intercept)
    root, p = np.sqrt(s)[:, None], s / s.sum()
    ones = root if fit_intercept else np.zeros((50, 0))
    A = np.hstack([ones, root * (X - (p @ X) * fit_intercept)])
    for l2, gcv in zip(L2S, found, strict=True):
        penalty = l2 * s.sum() * np.diag([0.0] * ones.shape[1] + [1.0] * 6)
        hat = A @ np.linalg.solve(A.T @ A + penalty, A.T)
        residuals = root * y - hat @ (root * y)
        rss = np.sum(residuals**2, axis=0) / s.sum()
        np.testing.assert_allclose(gcv, rss / (1 - np.trace(hat) / 50) ** 2, rtol=1e-10)


def test_constant_columns_get_weights_of_zero_with_every_penalty():
    X, y = table(60, 5)
    X[:, [0, 3]] = 7.0, -1e9
    for l2 in L2S:
        found = weights(RidgePath.of(moments(X, y)), l2)[:, 0]
        rest = [1, 2, 4]
        *expected, _ = map(float, exact_fit(X[:, rest], y, l2=l2))
        assert (found[[0, 3]] == 0).all()
        np.testing.assert_allclose(found[rest], expected, rtol=1e-12)


@pytest.mark.parametrize("d", [1, 2])
def test_few_columns_are_solved(d):
    X, y = table(30, d)
    for l2 in L2S:
        *expected, _ = map(float, exact_fit(X, y, l2=l2))
        found = weights(RidgePath.of(moments(X, y)), l2)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_no_column_that_varies_leaves_the_error_of_the_mean():
    y = np.arange(10.0)
    sums = moments(np.ones((10, 2)), y)
    errors, _ = generalised_errors(RidgePath.of(sums), sums, L2S, fit_intercept=True)
    np.testing.assert_allclose(errors[:, 0], y.var() / 0.9**2, rtol=1e-14)


def test_dependent_columns_are_singular_without_a_penalty_only():
    X, y = table(60, 3)
    X = np.column_stack([X, X[:, 0] + X[:, 1]])
    path = RidgePath.of(moments(X, y))
    assert path.at(0.0) is None
    assert path.at(1e-6) is not None
