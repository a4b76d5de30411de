"""LinearRegression as scikit-learn sees it."""

from __future__ import annotations

import subprocess
import sys

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import sklearn.linear_model
import zarr
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import streamreg
from streamreg import (
    DataWarning,
    InputError,
    LinearRegression,
    LinearRegressionCV,
    MemoryLimitError,
    Plan,
)
from streamreg.config.fit_config import FitConfig
from streamreg.solvers.qr import QR

SOLVERS = ["closed_form", "qr", "cg", "gd"]
# the columns here are nearly independent: errors of weights are about the square root of gd's tol
BOUNDS = {"closed_form": 1e-11, "qr": 1e-11, "cg": 1e-9, "gd": 1e-4}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(name="X")
def features(rng):
    return rng.standard_normal((300, 4))


@pytest.fixture
def y(rng, X):
    return X @ [1.0, -2.0, 3.0, 0.5] + 7 + 0.1 * rng.standard_normal(300)


# None is expected to fail. Some hand over constant or dependent columns, or targets for which gd
# would need more epochs, and such warnings are right.
@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([LinearRegression(solver=solver) for solver in ["auto", *SOLVERS]])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_attributes_are_those_of_scikit_learns(solver, targets, fit_intercept, weighted, X, y, rng):
    if targets > 1:
        y = np.column_stack([y, -y, X @ rng.standard_normal(4)])
    weight = rng.uniform(0, 2, len(X)) if weighted else None
    kind = {"fit_intercept": fit_intercept}
    ours = LinearRegression(solver=solver, tol=1e-12, **kind).fit(X, y, weight)
    theirs = sklearn.linear_model.LinearRegression(**kind).fit(X, y, weight)
    bound = BOUNDS[solver] * 10
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=bound)
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=bound)
    assert targets > 1 or isinstance(ours.intercept_, float)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), atol=10 * bound)
    assert ours.predict(X).shape == y.shape
    assert ours.score(X, y, weight) == pytest.approx(theirs.score(X, y, weight), abs=bound)
    assert ours.n_features_in_ == 4
    assert len(ours.loss_history_) == ours.n_iter_ + 1
    assert ours.solver_ == solver
    assert ours.converged_
    assert ours.status_.endswith(".")
    assert ours.plan_.chosen == solver
    assert ours.peak_memory_ >= 0


@pytest.mark.parametrize("kind", ["numpy", "pandas", "zarr"])
def test_y_of_one_column_has_the_shapes_of_sklearn(kind, X, y, tmp_path):
    column = y[:, None]
    if kind == "zarr":
        zarr.create_array(tmp_path / "y.zarr", data=column)
    data = {"numpy": column, "pandas": pd.DataFrame(column), "zarr": str(tmp_path / "y.zarr")}
    model = LinearRegression(cov_type="nonrobust").fit(X, data[kind])
    theirs = sklearn.linear_model.LinearRegression().fit(X, column)
    assert model.intercept_.shape == theirs.intercept_.shape
    assert model.digits_.shape == model.coef_.shape
    assert model.conf_int().shape == (1, 5, 2)
    model.save(tmp_path / "m.json")
    for each in (model, streamreg.load(tmp_path / "m.json")):
        np.testing.assert_allclose(each.coef_, theirs.coef_, rtol=1e-10)
        np.testing.assert_allclose(each.predict(X), theirs.predict(X), rtol=1e-10)
    model.predict(X, out=tmp_path / "p.zarr")
    assert zarr.open_array(tmp_path / "p.zarr").shape == (300, 1)
    assert model.score(X, data[kind]) == pytest.approx(theirs.score(X, column), abs=1e-12)


def test_clone_and_parameters(X, y):
    model = LinearRegression(solver="cg", l2=0.5, init=np.ones(4), memory_limit="64 MiB")
    copy = clone(model)
    assert copy.get_params().keys() == model.get_params().keys()
    of_both = set(LinearRegressionCV().get_params())
    # the penalties that are compared are passed as l2
    assert set(FitConfig.__dataclass_fields__) - {"l2s", "l2_of_targets"} | {"progress"} == of_both
    assert of_both - set(model.get_params()) == {"cv", "l2_per_target", "one_standard_error"}
    np.testing.assert_array_equal(
        clone(model.fit(X, y)).fit(X, y).coef_, model.set_params(l2=0.5).fit(X, y).coef_
    )
    with pytest.raises(NotFittedError):
        copy.predict(X)


def test_pipeline_and_grid_search(X, y):
    model = make_pipeline(
        StandardScaler(), PolynomialFeatures(2, include_bias=False), LinearRegression()
    )
    theirs = make_pipeline(
        StandardScaler(),
        PolynomialFeatures(2, include_bias=False),
        sklearn.linear_model.LinearRegression(),
    )
    np.testing.assert_allclose(
        cross_val_score(model, X, y), cross_val_score(theirs, X, y), rtol=1e-9
    )
    search = GridSearchCV(LinearRegression(), {"l2": [0.0, 10.0], "solver": ["closed_form", "cg"]})
    assert search.fit(X, y).best_params_["l2"] == 0.0
    assert search.best_estimator_.predict(X).shape == (300,)


def test_a_data_frame_gives_its_names(X, y):
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    model = LinearRegression().fit(frame, pd.Series(y))
    assert list(model.feature_names_in_) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(model.coef_, LinearRegression().fit(X, y).coef_)
    with pytest.raises(InputError, match="feature names should match"):
        model.predict(frame[["b", "a", "c", "d"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)
    # names go with the next fit that has none
    assert not hasattr(model.fit(X, y), "feature_names_in_")


def test_messages_name_the_columns_of_a_data_frame(X, y):
    X[:, 2] = 1
    with pytest.warns(DataWarning, match=r"column 2 \('height'\) is constant"):
        LinearRegression().fit(pd.DataFrame(X, columns=["a", "b", "height", "d"]), y)


def test_frames_of_other_types(X, y):
    frame = pd.DataFrame(X).astype({0: "float32", 1: "Float64"}).assign(flag=X[:, 0] > 0)
    frame.columns = list("abcde")
    model = LinearRegression().fit(frame, y.tolist())
    plain = LinearRegression().fit(frame.astype(float).to_numpy(), y)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9)


@pytest.mark.parametrize("weight", ["list", "series", "int", "dask"])
def test_sample_weight_of_any_kind(weight, X, y):
    counts = np.arange(300) % 4
    given = {
        "list": counts.tolist(),
        "series": pd.Series(counts),
        "int": counts,
        "dask": da.from_array(counts, chunks=70),
    }[weight]
    model = LinearRegression().fit(X, y, given)
    repeated = LinearRegression().fit(np.repeat(X, counts, axis=0), np.repeat(y, counts))
    np.testing.assert_allclose(model.coef_, repeated.coef_, rtol=1e-11)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("targets", [1, 2])
def test_a_saved_model_comes_back_the_same(suffix, targets, X, y, tmp_path):
    y = y if targets == 1 else np.column_stack([y, y**2])
    model = LinearRegression(solver="cg").fit(pd.DataFrame(X, columns=list("abcd")), y)
    model.save(tmp_path / f"model{suffix}")
    loaded = streamreg.load(tmp_path / f"model{suffix}")
    np.testing.assert_array_equal(loaded.coef_, model.coef_)
    np.testing.assert_array_equal(loaded.intercept_, model.intercept_)
    assert type(loaded.intercept_) is type(model.intercept_)
    frame = pd.DataFrame(X, columns=list("abcd"))
    np.testing.assert_array_equal(loaded.predict(frame), model.predict(frame))
    assert loaded.score(frame, y) == model.score(frame, y)
    for name in ("n_iter_", "loss_history_", "solver_", "converged_", "status_", "peak_memory_"):
        assert getattr(loaded, name) == getattr(model, name)
    assert list(loaded.feature_names_in_) == list("abcd")


def test_not_converging_is_a_warning(X, y):
    with pytest.warns(ConvergenceWarning, match=r"cg did not converge in 2 epochs. max_epochs ran"):
        model = LinearRegression(solver="cg", max_epochs=2).fit(X, y)
    assert not model.converged_
    assert model.n_iter_ == 2


def test_score_is_r2_score(X, y, rng):
    Y = np.column_stack([y, rng.standard_normal(300)])
    weight = rng.uniform(0, 3, 300)
    model = LinearRegression().fit(X, Y)
    ours = model.score(X, Y, weight)
    assert ours == pytest.approx(r2_score(Y, model.predict(X), sample_weight=weight), rel=1e-12)
    each = model.score(X, Y, weight, multioutput="raw_values")
    expected = r2_score(Y, model.predict(X), sample_weight=weight, multioutput="raw_values")
    np.testing.assert_allclose(each, expected, rtol=1e-12)
    with pytest.raises(InputError, match="multioutput"):
        model.score(X, Y, multioutput="variance_weighted")


def test_evaluate_gives_measures_of_each_target(X, y, rng):
    Y = np.column_stack([y, rng.standard_normal(300)])
    model = LinearRegression().fit(X, Y)
    found, predicted = streamreg.evaluate(model, X, Y), model.predict(X)
    np.testing.assert_allclose(found.r2, model.score(X, Y, multioutput="raw_values"))
    rmse = root_mean_squared_error(Y, predicted, multioutput="raw_values")
    np.testing.assert_allclose(found.rmse, rmse, rtol=1e-11)
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(Y.T, predicted.T, strict=True)]
    np.testing.assert_allclose(found.pearson_r, correlation, rtol=1e-11)
    assert (found.n_rows, found.rows_omitted) == (300, 0)
    with pytest.warns(DataWarning, match="R² is not defined where y is constant"):
        streamreg.evaluate(model, X, np.ones((300, 2)))
    with pytest.raises(InputError, match="takes a model of streamreg, not LinearRegression"):
        streamreg.evaluate(sklearn.linear_model.LinearRegression().fit(X, Y), X, Y)


def test_score_of_a_constant_y_is_nan_with_a_word(X, y):
    model = LinearRegression().fit(X, y)
    with pytest.warns(DataWarning, match="not defined where y is constant"):
        assert np.isnan(model.score(X, np.ones(300)))


def test_score_of_one_row_says_so(X, y):
    model = LinearRegression().fit(X, y)
    with pytest.warns(DataWarning, match="not defined for one row, which has no spread"):
        assert np.isnan(model.score(X[:1], y[:1]))


def test_score_tells_what_it_leaves_out(X, y):
    model = LinearRegression(nan_policy="omit").fit(X, y)
    with pytest.warns(DataWarning, match="1 of 300 rows holds NaN or inf and was left out"):
        assert model.score(X, np.where(np.arange(300) == 7, np.nan, y)) > 0


def test_no_path_is_refused(X, y):
    with pytest.raises(InputError, match="out is empty; pass a path"):
        LinearRegression().fit(X, y).predict(X, out="")


def test_memory_that_the_system_refuses_is_an_error_with_the_plan():
    model = LinearRegression(solver="closed_form", memory_limit="4 EiB")
    X = np.broadcast_to(0.0, (3, 1 << 27))
    with pytest.raises(
        MemoryLimitError, match=r"system refused .*Planned .*solver=\"dual\""
    ) as caught:
        model.fit(X, np.zeros(3))
    assert isinstance(caught.value.__cause__, MemoryError)


def test_progress_counts_the_epochs_of_two_solvers(rng):
    X = rng.standard_normal((1000, 3))
    # too nearly dependent for XᵀX
    X[:, 2] = X[:, 0] + 1e-9 * X[:, 2]
    epochs = []
    model = LinearRegression(progress=lambda record: epochs.append(record.epoch))
    with pytest.warns(DataWarning, match="nearly dependent"):
        model.fit(X, X.sum(axis=1))
    assert model.solver_ == "qr"
    assert epochs == list(range(1, model.n_iter_ + 1))


def test_memory_refused_to_a_second_solver_names_that_solver(monkeypatch, rng):
    X = rng.standard_normal((1000, 3))
    # too nearly dependent for XᵀX
    X[:, 2] = X[:, 0] + 1e-9 * X[:, 2]

    def refuse(*_):
        raise MemoryError

    monkeypatch.setattr(QR, "solve", refuse)
    with pytest.raises(MemoryLimitError, match="system refused memory that qr needs"):
        LinearRegression().fit(X, X.sum(axis=1))


@pytest.mark.parametrize("size", [1e200, 1e-200])
def test_score_of_values_far_from_1(size, X, y):
    model = LinearRegression().fit(X, y * size)
    assert model.score(X, y * size) == pytest.approx(LinearRegression().fit(X, y).score(X, y))


def test_random_starts_are_seeded(X, y):
    def first_loss(seed):
        return (
            LinearRegression(solver="cg", init="random", random_state=seed)
            .fit(X, y)
            .loss_history_[0]
        )

    assert first_loss(1) == first_loss(1) != first_loss(2)
    assert first_loss(np.random.RandomState(3)) > 0
    assert first_loss(np.random.default_rng(3)) > 0


def test_a_start_is_in_the_users_units(X, y):
    X = X * [1.0, 1e3, 1e-3, 1.0]
    model = LinearRegression(solver="cg", tol=1e-12).fit(X, y)
    again = LinearRegression(solver="cg", init=model.coef_).fit(X, y)
    assert again.n_iter_ == 0
    np.testing.assert_allclose(again.coef_, model.coef_, rtol=1e-12)


def test_progress_is_given_each_epochs_record(X, y):
    records = []
    model = LinearRegression(solver="cg", progress=records.append).fit(X, y)
    assert [record.epoch for record in records] == list(range(1, model.n_iter_ + 1))
    assert [record.loss for record in records] == model.loss_history_[:-1]


def test_a_plan_is_made_without_reading(X, y):
    class Unread:
        shape, dtype = (10**6, 50), np.dtype("f8")

        def __getitem__(self, key):
            raise AssertionError("planning must not read")

    made = streamreg.plan(Unread(), np.zeros(10**6), memory_limit="1 GiB", solver="cg")
    assert isinstance(made, Plan)
    assert made.chosen == "cg"
    assert streamreg.plan(X, y.tolist()).chosen == LinearRegression().fit(X, y).solver_
    with pytest.raises(MemoryLimitError):
        LinearRegression(memory_limit=1000).fit(Unread(), np.zeros(10**6))


def test_plan_stays_a_function_after_a_fit():
    code = "import streamreg; streamreg.LinearRegression; assert callable(streamreg.plan)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "name",
    [
        "config.fit_config",
        "fitting.fit",
        "model",
        "planning.plan",
        "predict.predictions",
        "statistics.statistics",
    ],
)
def test_only_estimators_need_scikit_learn(name):
    code = f"import sys, streamreg.{name}; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_streamreg_imports_no_library_of_data():
    code = (
        "import sys, streamreg; "
        "assert not {'sklearn', 'dask', 'zarr', 'cupy'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_dask_tells_fitted_models_apart():
    base = pytest.importorskip("dask.base")
    X = np.array([[1.0, 2.0], [3.0, 5.0], [4.0, 1.0], [0.0, 1.0]])
    models = [LinearRegression().fit(X, X @ w) for w in ([1.0, 2.0], [5.0, -7.0])]
    tokens = [base.tokenize(model) for model in [LinearRegression(), *models]]
    assert len(set(tokens)) == len(tokens)
