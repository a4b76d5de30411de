"""The dual solver: against scikit-learn's Ridge, NumPy's pseudoinverse, and closed_form."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import zarr
from problems import lstsq
from sklearn.linear_model import Ridge

import streamreg
from streamreg import InputError, LinearRegression, MemoryLimitError
from streamreg.accumulators.column_weights import ColumnWeights
from streamreg.accumulators.row_sums import RowSums
from streamreg.errors import DataWarning
from streamreg.solvers.base import Status
from streamreg.solvers.dual import Dual

N, D = 60, 200
# sums of some hundreds of terms, of rows whose condition number is at most 10
BOUND = 1e-12
pytestmark = pytest.mark.filterwarnings("ignore::streamreg.errors.DataWarning")


def wide(n=N, d=D, k=3, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) + 0.5
    return X, X[:, :5] @ rng.standard_normal((5, k)) + rng.standard_normal((n, k)) + 2


def fit(X, y, weight=None, **parameters):
    return LinearRegression(solver="dual", **parameters).fit(X, y, weight)


def assert_close(found, expected, bound=BOUND):
    np.testing.assert_allclose(found, expected, atol=bound * np.abs(expected).max(), rtol=0)


def cases():
    X, y = wide()
    rng = np.random.default_rng(1)
    yield "plain", X, y, None
    yield "one target", X, y[:, 0], None
    yield "weights", X, y, rng.uniform(0, 2, N).round(1)
    yield "huge weights", X, y, rng.uniform(1, 2, N) * 1e100
    yield "integers", (100 * X).astype("i2"), y, None
    yield "float32", X.astype("f4"), y.astype("f4"), None
    yield "big-endian", X.astype(">f8"), y.astype(">f4"), None
    yield "offset 100", X + 100, y, None
    yield "duplicate rows", X[rng.integers(0, 30, N)], y, None
    yield "more rows than columns", X[:, :20], y, None
    yield "constant columns", np.where(np.arange(D) % 50 == 3, 0.7, X), y, None


CASES = [pytest.param(*values, id=name) for name, *values in cases()]


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("X", "y", "weight"), CASES)
def test_predictions_equal_those_of_ridge(X, y, weight, fit_intercept):
    l2 = 0.1 * float(np.var(X.astype(float)))
    # large means without an intercept are one direction of 2,000 deviations
    bound = 1e-9 if np.mean(X) > 50 and not fit_intercept else BOUND
    found = fit(X, y, weight, l2=l2, fit_intercept=fit_intercept)
    s = np.ones(len(X)) if weight is None else weight / weight.max()
    X, y = X.astype(float), y.astype(float)
    if fit_intercept:  # twice: the first mean is rounded
        for _ in range(2):
            X = X - s @ X / s.sum()
    ridge = Ridge(l2 * s.sum(), fit_intercept=fit_intercept, solver="svd").fit(X, y, s)
    assert_close(X @ found.coef_.T, X @ ridge.coef_.T, bound)
    assert found.converged_
    assert found.status_ == Status.SOLVED.value


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("X", "y", "weight"), CASES)
def test_without_a_penalty_the_solution_has_least_norm(X, y, weight, fit_intercept):
    found = fit(X, y, weight, fit_intercept=fit_intercept)
    if weight is not None:
        keep = weight > 0
        X, y, weight = X[keep], y[keep], weight[keep]
    # large means without an intercept are one direction of 2,000 deviations
    bound = 1e-9 if np.mean(X) > 50 and not fit_intercept else BOUND
    s = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
    Z, t = X.astype(float), y.astype(float).reshape(len(X), -1)
    if fit_intercept:
        for _ in range(2):
            Z, t = Z - s @ Z, t - s @ t
        Z[:, np.sqrt(s @ Z**2) <= 1e-14 * np.abs(X).max(axis=0)] = 0
    root = np.sqrt(s)[:, None]
    # deviations differ by less than a factor of 4, so that no column is scaled
    expected = np.linalg.pinv(root * Z, rcond=1e-10) @ (root * t)
    assert_close(np.atleast_2d(found.coef_), expected.T, bound)
    assert found.converged_


def test_the_norm_is_that_of_closed_form():
    X, y = wide()
    X = X * 10.0 ** np.linspace(-6, 6, D)
    for parameters in ({}, {"fit_intercept": False}, {"l2": 1e-3}):
        other = LinearRegression(solver="closed_form", **parameters).fit(X, y)
        deviation = X.std(axis=0)
        assert_close(fit(X, y, **parameters).coef_ * deviation, other.coef_ * deviation, 1e-10)


def test_columns_of_different_sizes_have_the_norm_of_closed_form():
    X, y = wide()
    X = X * 10.0 ** np.linspace(-6, 6, D)
    found = fit(X, y)
    w, deviation = lstsq(X, y)
    assert_close(found.coef_ * deviation, w.T * deviation)


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_means_of_a_million_deviations(l2):
    X, y = wide()
    X = (X * 2**10).round() / 2**10  # sums with 1e6 are exact
    assert_close(fit(X + 1e6, y, l2=l2).coef_, fit(X, y, l2=l2).coef_)


def test_means_of_a_million_deviations_leave_no_digits_without_an_intercept():
    X, y = wide()
    with pytest.warns(match="XXᵀ does not keep the digits"):
        assert not fit(X + 1e6, y, fit_intercept=False).converged_


@pytest.mark.parametrize("size", [1e-180, 1e180])
def test_squares_beyond_float64(size):
    X, y = wide()
    # columns are then multiplied by powers of two, with which closed_form has another norm too
    other = LinearRegression(solver="closed_form").fit(X * size, y)
    assert_close(fit(X * size, y).coef_ * size, other.coef_ * size)


def test_the_intercept_has_the_digits_of_large_means():
    X, y = wide(k=1)
    found = fit(X + 1e9, y[:, 0] + 1e9, l2=1.0)
    # the columns are rounded to 1e-7
    assert_close(found.predict(X + 1e9) - 1e9, fit(X, y[:, 0], l2=1.0).predict(X), 1e-5)


def test_losses_are_those_of_the_objective():
    X, y = wide()
    model = fit(X, y, l2=0.2)
    residual = X @ model.coef_.T + model.intercept_ - y
    loss = 0.5 * (residual**2).mean(axis=0) + 0.1 * (model.coef_**2).sum(axis=1)
    assert model.loss_history_ == pytest.approx([0.5 * y.var(axis=0).sum(), loss.sum()], rel=1e-12)
    assert model.n_iter_ == 1


def test_digits_are_never_claimed_too_high():
    for seed in range(5):
        X, y = wide(n=40, d=120, seed=seed)
        X *= 10.0 ** np.random.default_rng(seed).uniform(-2, 2, 120)
        model = fit(X, y, l2=1e-4)
        Z, t = (np.longdouble(each) - np.longdouble(each).mean(axis=0) for each in (X, y))
        alpha = np.linalg.solve(np.float64(Z @ Z.T) + 4e-3 * np.eye(40), np.float64(t))
        for _ in range(4):  # refined in extended precision
            rest = t - Z @ (Z.T @ alpha) - np.longdouble(1e-4) * 40 * alpha
            alpha = alpha + np.linalg.solve(
                np.float64(Z @ Z.T) + 4e-3 * np.eye(40), np.float64(rest)
            )
        w = (Z.T @ alpha).T
        right = -np.log10(np.maximum(np.abs(model.coef_ / w - 1), 1e-17).astype(float))
        assert (model.digits_ <= right + 0.1).all()
        assert np.median(model.digits_) > 5


def test_digits_are_nan_where_the_data_determine_no_weight():
    X, y = wide()
    assert np.isnan(fit(X, y).digits_).all()
    X = X.copy()
    X[:, 3] = 2
    digits = fit(X, y, l2=0.1).digits_
    assert np.isnan(digits[:, 3]).all()
    assert np.isfinite(np.delete(digits, 3, axis=1)).all()


def test_too_few_rows_are_named():
    X, y = wide()
    with pytest.warns(DataWarning, match="60 rows cannot determine the weights of 200 columns"):
        model = fit(X, y)
    assert model.status_ == Status.LEAST_NORM.value


def test_dependent_columns_of_many_rows_are_named():
    X, y = wide()
    X = X[:, :20].copy()
    X[:, 7] = X[:, 3] + X[:, 5]
    with pytest.warns(DataWarning, match=r"\(rank 19 of 20, 60 rows\)"):
        model = fit(X, y)
    assert_close(model.coef_, LinearRegression(solver="closed_form").fit(X, y).coef_)


def test_rows_that_are_nearly_equal_do_not_converge():
    X, y = wide()
    X[7] = X[3] + 1e-9 * X[11]
    with pytest.warns(match="XXᵀ does not keep the digits"):
        model = fit(X, y)
    assert not model.converged_


def test_columns_that_are_all_constant_get_weights_0():
    _, y = wide()
    model = fit(np.full((N, 4), 2.5), y)
    assert not model.coef_.any()
    np.testing.assert_allclose(model.intercept_, y.mean(axis=0))


def test_rows_with_nan_are_left_out(tmp_path):
    X, y = wide()
    X[[3, 50], [4, 5]] = np.nan
    whole = np.isfinite(X).all(axis=1)
    store = zarr.create_group(tmp_path / "data.zarr")
    store.create_array("X", data=X, chunks=(20, D))
    store.create_array("y", data=y)
    found = fit(str(tmp_path / "data.zarr"), None, l2=0.1, nan_policy="omit")
    assert_close(found.coef_, Ridge(0.1 * whole.sum()).fit(X[whole], y[whole]).coef_)


# memory, threads and checkpoints


@pytest.fixture(scope="module", params=["columns", "rows"])
def stored(request, tmp_path_factory):
    """Rows of 24 MB, float32, read by columns, or, if they are compressed, in panels of 256."""
    X, y = wide(600, 10_000, seed=3)
    X = (4 * X).round().astype("f4")
    store = zarr.create_group(tmp_path_factory.mktemp("dual") / "data.zarr")
    compressors = {"columns": None, "rows": "auto"}[request.param]
    store.create_array("X", data=X, chunks=(70, 10_000), compressors=compressors)
    store.create_array("y", data=y)
    return str(tmp_path_factory.getbasetemp() / store.store.root), X, y


def test_threads_and_memory_change_no_bit(stored):
    path, X, y = stored
    least = streamreg.plan(path, memory_limit=1).candidates["dual"].needed_nbytes
    found, n_panels = [], set()
    for n_threads, limit in ((1, "1 GiB"), (3, "1 GiB"), (1, least), (2, least + (8 << 20))):
        model = fit(path, None, l2=0.1, n_threads=n_threads, memory_limit=limit)
        found.append((model.coef_.tobytes(), tuple(model.loss_history_)))
        n_panels.add(model.plan_.candidates["dual"].n_panels)
    assert len(set(found)) == 1
    assert len(n_panels) > 1
    assert_close(model.coef_, Ridge(0.1 * 600).fit(X.astype(float), y).coef_)


@pytest.mark.parametrize(
    ("chunks", "compressors"),
    [
        ((70, 4000), None),
        ((600, 500), None),
        ((200, 500), "auto"),
        ((64, 1500), "auto"),
        ((70, 4000), "auto"),
    ],
    ids=["rows", "columns", "compressed columns", "wide columns", "compressed rows"],
)
def test_x_is_read_as_often_as_planned_in_any_chunks(tmp_path, monkeypatch, chunks, compressors):
    X, y = wide(600, 4000)
    X = X.astype("f4")
    store = zarr.create_group(tmp_path / "data.zarr")
    store.create_array("X", data=X, chunks=chunks, compressors=compressors)
    store.create_array("y", data=y)
    path, solve, passes = str(tmp_path / "data.zarr"), Dual.solve, []

    def counted(self, problem, reduce, report, iterates):
        def count(accumulator):
            if not accumulator.view.without_x:
                passes.append(accumulator)
            return reduce(accumulator)

        return solve(self, problem, count, report, iterates)

    monkeypatch.setattr(Dual, "solve", counted)
    least = streamreg.plan(path, memory_limit=1).candidates["dual"].needed_nbytes
    model = fit(path, None, l2=0.1, memory_limit=least)
    planned = model.plan_.candidates["dual"]
    assert planned.n_panels > 1
    assert len(passes) == planned.passes
    assert_close(model.coef_, Ridge(0.1 * 600).fit(X.astype(float), y).coef_)


def test_a_fit_that_was_stopped_is_resumed_to_the_same_bits(stored, tmp_path, monkeypatch):
    path, _, _ = stored
    expected = fit(path, None, l2=0.1).coef_
    checkpoint = tmp_path / "checkpoint"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(RowSums, "update", stop)
        stopped.setattr(ColumnWeights, "update", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(path, None, l2=0.1, checkpoint=checkpoint)
    assert fit(path, None, l2=0.1, checkpoint=checkpoint).coef_.tobytes() == expected.tobytes()


def test_the_plan_counts_rows_and_offers_dual_where_it_fits():
    wide_rows, y = np.broadcast_to(np.float32(0), (500, 50_000)), np.zeros(500)
    plan = streamreg.plan(wide_rows, y, solver="closed_form", memory_limit="1 GiB")
    assert plan.candidates["dual"].fits
    with pytest.raises(
        MemoryLimitError, match=r'or use solver="dual": [\d.]+ MiB, about \d passes'
    ):
        plan.require_fit()
    assert streamreg.plan(wide_rows, y, memory_limit="1 GiB").chosen == "dual"
    tall = streamreg.plan(wide_rows[:, :100], y, memory_limit="1 GiB")
    assert tall.chosen == "closed_form"
    assert tall.candidates["dual"].state_nbytes > tall.candidates["closed_form"].state_nbytes


def test_auto_takes_the_cheaper_of_closed_form_and_dual_and_cg_where_neither_fits():
    huge = np.broadcast_to(np.float32(0), (100_000, 100_000))

    def plan(n, d, limit):
        # of 50 targets, with which cg takes much longer than a factor
        return streamreg.plan(huge[:n, :d], huge[:n, :50], memory_limit=limit)

    for n, d, chosen in ((2_000, 10_000, "dual"), (10_000, 2_000, "closed_form")):
        both = plan(n, d, "4 GiB")
        assert all(both.candidates[name].fits for name in ("closed_form", "dual"))
        assert both.chosen == chosen
    assert plan(2_000, 10_000, "300 MiB").chosen == "dual"
    assert plan(10_000, 2_000, "300 MiB").chosen == "closed_form"
    assert plan(100_000, 100_000, "1 GiB").chosen == "cg"


def test_22_000_rows_of_100_000_columns_are_planned_within_12_gib():
    X, y = np.broadcast_to(np.float32(0), (22_000, 100_000)), np.broadcast_to(0.0, (22_000, 20))
    candidate = streamreg.plan(X, y, memory_limit="12 GiB").candidates["dual"]
    assert candidate.fits
    assert candidate.needed_nbytes > 8 * 22_000**2
    assert candidate.passes == 3
    how = {"solver": "dual", "cv": "gcv", "l2": np.geomspace(1e-3, 1e3, 17)}
    assert streamreg.plan(X, y, memory_limit="12 GiB", **how).candidates["dual"].fits


def test_standard_errors_are_refused_with_a_remedy():
    with pytest.raises(InputError, match=r'solver="dual" gives no standard errors .* solver="qr"'):
        fit(*wide(k=1), cov_type="HC1")


def test_a_gpu_is_refused_with_a_remedy():
    pytest.importorskip("cupy", reason="without CuPy a fit on a GPU stops earlier")
    with pytest.raises(InputError, match='has no kernels for device="cuda": pass device="cpu"'):
        fit(*wide(), device="cuda")


def test_a_cluster_is_refused_with_a_remedy(client_here, store):
    X, y = (store(values, name) for values, name in zip(wide(), ("X.zarr", "y.zarr"), strict=True))
    with pytest.raises(InputError, match=r'has no passes that workers can share: .* solver="cg"'):
        fit(X, y, client=client_here)


def test_warnings_are_given_once():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(*wide())
    assert len(caught) == 1
