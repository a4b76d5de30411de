"""Penalties compared by XXᵀ: scores by their definition, weights against scikit-learn's Ridge."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr
from sklearn.linear_model import Ridge

import streamreg
from streamreg import InputError, LinearRegressionCV, MemoryLimitError
from streamreg.errors import DataWarning

N, D, K = 60, 200, 3
L2S = np.geomspace(1e-2, 1e3, 6)
# best penalties at the edge of the grid, and columns that rows cannot determine, are warned of
pytestmark = pytest.mark.filterwarnings("ignore::streamreg.errors.DataWarning")


def wide(n=N, d=D, k=K):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)) + 0.5
    return X, X[:, :5] @ rng.standard_normal((5, k)) + 3 * rng.standard_normal((n, k)) + 2


def fit(X, y, weight=None, **parameters):
    parameters = {"l2": L2S, "cv": "gcv", "solver": "dual", **parameters}
    return LinearRegressionCV(**parameters).fit(X, y, weight)


def gcv(X, y, s, l2, *, fit_intercept):
    """(RSS/Σs) / (1 - tr H/n)², with H of the hat matrix, of an intercept too."""
    keep = s > 0
    X, y, s = X[keep], y[keep], s[keep] / s[keep].sum()
    mean, y_mean = (s @ X, s @ y) if fit_intercept else (0.0, 0.0)
    root = np.sqrt(s)[:, None]
    Z, t = root * (X - mean), root * (y - y_mean)
    hat = Z @ np.linalg.solve(Z.T @ Z + l2 * np.eye(X.shape[1]), Z.T)
    residual = t - hat @ t
    return (residual**2).sum(axis=0) / (1 - (np.trace(hat) + fit_intercept) / len(X)) ** 2


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_scores_are_gcv_by_its_definition(fit_intercept, is_weighted):
    X, y = wide()
    weight = np.random.default_rng(1).integers(0, 4, N) / 2 if is_weighted else None
    model = fit(X, y, weight, fit_intercept=fit_intercept)
    s = np.ones(N) if weight is None else weight
    expected = [gcv(X, y, s, l2, fit_intercept=fit_intercept) for l2 in L2S]
    # the definition itself loses digits where its residuals are small
    np.testing.assert_allclose(-model.cv_scores_[:, 0], expected, rtol=1e-9)
    assert model.solver_ == "dual"
    assert model.l2_ == L2S[np.argmin(np.mean(expected, axis=1))]
    ridge = Ridge(model.l2_ * s.sum(), fit_intercept=fit_intercept, solver="svd").fit(X, y, s)
    np.testing.assert_allclose(model.predict(X), ridge.predict(X), rtol=1e-10)
    assert model.converged_
    assert model.n_iter_ == 1


@pytest.mark.parametrize("shape", [(N, D), (N, 20), (40, 400)])
def test_scores_and_weights_are_those_of_closed_form(shape):
    X, y = wide(*shape)
    found, other = (fit(X, y, solver=solver) for solver in ("dual", "closed_form"))
    # closed_form subtracts sums, which have 1e-16 of y; residuals are 1e-4 of it
    np.testing.assert_allclose(found.cv_scores_, other.cv_scores_, rtol=1e-8)
    np.testing.assert_allclose(found.coef_, other.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(found.l2_, other.l2_)


def test_each_target_has_its_own_penalty():
    X, y = wide()
    y = np.column_stack([X[:, 0] * 100, y, np.random.default_rng(2).standard_normal(N)])
    model = fit(X, y, l2_per_target=True)
    assert len(set(model.l2_)) > 1
    for target, l2 in enumerate(model.l2_):
        ridge = Ridge(l2 * N).fit(X, y[:, target])
        np.testing.assert_allclose(model.coef_[target], ridge.coef_, rtol=1e-8, atol=1e-10)
        # Ridge by a factor of XXᵀ has some digits less than are trusted
        right = -np.log10(np.maximum(np.abs(model.coef_[target] / ridge.coef_ - 1), 1e-17))
        assert (model.digits_[target] <= right + 2).all()
    assert np.median(model.digits_) > 8


def test_rows_of_very_different_weights_have_the_scores_of_the_definition():
    X, y = wide()
    weight = 10.0 ** np.linspace(-3, 3, N)
    expected = [gcv(X, y, weight, l2, fit_intercept=True) for l2 in L2S]
    np.testing.assert_allclose(-fit(X, y, weight).cv_scores_[:, 0], expected, rtol=1e-8)


@pytest.mark.parametrize("compressors", [None, "auto"], ids=["columns", "rows"])
def test_memory_and_threads_change_no_bit(tmp_path, compressors):
    X, y = wide(600, 3000)
    store = zarr.create_group(tmp_path / "data.zarr")
    store.create_array("X", data=X, chunks=(70, 3000), compressors=compressors)
    store.create_array("y", data=y)
    path, found, counts = str(tmp_path / "data.zarr"), set(), set()
    how = {"cv": "gcv", "l2": L2S, "solver": "dual"}
    least = streamreg.plan(path, memory_limit=1, **how).candidates["dual"].needed_nbytes
    for n_threads, limit in ((2, "1 GiB"), (1, least)):
        model = fit(path, None, memory_limit=limit, n_threads=n_threads)
        found.add((model.coef_.tobytes(), model.cv_scores_.tobytes()))
        counts.add(model.plan_.candidates["dual"].n_panels)
    assert len(found) == 1
    assert len(counts) == 2


def test_multiplying_all_weights_changes_nothing():
    X, y = wide()
    weight = np.random.default_rng(1).uniform(1, 2, N)
    for l2 in (L2S, None):
        one, other = (fit(X, y, s, l2=l2) for s in (weight, 1e3 * weight))
        np.testing.assert_allclose(one.cv_scores_, other.cv_scores_, rtol=1e-10)
        np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-9)


def test_a_penalty_of_0_has_no_score():
    X, y = wide()
    with pytest.warns(DataWarning, match="1 penalty up to 0 cannot be compared"):
        model = fit(X, y, l2=[0.0, 1.0])
    assert model.cv_scores_[0, 0, 0] == -np.inf
    assert model.l2_ == 1.0
    with pytest.raises(InputError, match="extend l2"):
        fit(np.vstack([X, X]), np.vstack([y, y]), l2=[0.0])


def test_a_fit_that_was_stopped_is_resumed_to_the_same_bits(tmp_path):
    X, y = wide()
    expected, checkpoint = fit(X, y).coef_, tmp_path / "fit"
    assert fit(X, y, checkpoint=checkpoint).coef_.tobytes() == expected.tobytes()
    assert fit(X, y, checkpoint=checkpoint).coef_.tobytes() == expected.tobytes()


def test_auto_takes_the_cheaper_that_fits():
    huge = np.broadcast_to(np.float32(0), (200_000, 200_000))

    def chosen(n, d, limit="4 GiB", **how):
        X = huge[:n, :d]
        return streamreg.plan(X, X[:, 0], l2=L2S, memory_limit=limit, **how).chosen

    assert chosen(1_000, 100_000, cv="gcv") == "dual"
    assert chosen(100_000, 1_000, cv="gcv") == "closed_form"
    # both fit
    assert chosen(2_000, 10_000, cv="gcv") == "dual"
    assert chosen(10_000, 2_000, cv="gcv") == "closed_form"
    # folds are compared by XᵀX
    assert chosen(2_000, 10_000, cv=3) == "closed_form"


def test_a_refusal_of_folds_offers_gcv_by_dual():
    X = np.broadcast_to(np.float32(0), (1_000, 50_000))
    plan = streamreg.plan(X, X[:, 0], l2=L2S, cv=5, memory_limit="1 GiB")
    with pytest.raises(MemoryLimitError, match='cv="gcv"') as error:
        plan.require_fit()
    assert re.findall(r"cv=(\S+):", str(error.value)) == ['"gcv"']
    assert streamreg.plan(X, X[:, 0], l2=L2S, cv="gcv", memory_limit="1 GiB").chosen == "dual"


def test_folds_and_workers_are_refused_with_a_remedy(client_here, store):
    X, y = wide()
    with pytest.raises(InputError, match=r'compares penalties by GCV only: pass cv="gcv"'):
        fit(X, y, cv=5)
    paths = [store(values, name) for values, name in zip((X, y), "Xy", strict=True)]
    with pytest.raises(InputError, match='can share: leave out client, or pass solver="closed_f'):
        fit(*paths, client=client_here)
