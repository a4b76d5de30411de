"""A fit of statistics is the fit of their rows, or says what it is not."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from exact import exact_fit, right_digits
from problems import table
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge

from streamreg import (
    DataWarning,
    InputError,
    LinearRegression,
    MemoryLimitError,
    Statistics,
    read_table,
)

KINDS = ["gram", "qr"]
SOLVERS = {"gram": "closed_form", "qr": "qr"}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def weight():
    return np.random.default_rng(3).integers(0, 4, 600) * 0.5


def fitted(X, y, weight=None, **parameters):
    """Fit the rows by the solver with most digits."""
    return LinearRegression(solver="qr", **parameters).fit(X, y, weight)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_weights_and_losses_are_those_of_the_rows(kind, k, fit_intercept, l2, weight):
    X, y = table(k=k)
    parameters = {"fit_intercept": fit_intercept, "l2": l2}
    found = LinearRegression(**parameters).fit(Statistics.of(X + 3, y, weight, kind=kind))
    expected = fitted(X + 3, y, weight, **parameters)
    assert found.solver_ == SOLVERS[kind]
    assert found.converged_
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.intercept_, expected.intercept_, rtol=1e-10, atol=1e-12)
    first, *_, last = expected.loss_history_
    np.testing.assert_allclose(found.loss_history_, [first, last], rtol=1e-10)
    assert np.shape(found.digits_) == found.coef_.shape
    assert found.n_rows_ == 600


def test_another_l2_is_a_ridge_of_the_same_statistics(kind):
    X, y = table()
    statistics = Statistics.of(X, y, kind=kind)
    for l2 in (1e-6, 1e-2, 1e2):
        found = LinearRegression(l2=l2).fit(statistics)
        expected = Ridge(alpha=l2 * len(X)).fit(X, y)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9)


def test_selected_columns_are_a_fit_of_these_columns(kind, weight):
    X, y = table(d=6, k=3)
    statistics = Statistics.of(pd.DataFrame(X, columns=list("abcdef")), y, weight, kind=kind)
    part = statistics.select(["e", 0, "c"], targets=[2, 0])
    found = LinearRegression(fit_intercept=False).fit(part)
    expected = fitted(X[:, [4, 0, 2]], y[:, [2, 0]], weight, fit_intercept=False)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-10)
    assert list(found.feature_names_in_) == ["e", "a", "c"]
    np.testing.assert_allclose(part.xx, statistics.xx[np.ix_([4, 0, 2], [4, 0, 2])], rtol=1e-12)
    merged = part.merge(
        Statistics.of(pd.DataFrame(X[:, [4, 0, 2]], columns=list("eac")), y[:, [2, 0]], kind=kind)
    )
    assert merged.n_rows == 600 + np.count_nonzero(weight)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["a", "z"], "'z' .* is none of the 6 columns"),
        ([0, 6], "6 is none of the 6 columns"),
        ([-1], "-1 is none"),
        ([True], "True is none"),
        ([1.0], "1.0 is none"),
        ([0, "a"], "each once"),
        ([], "each once"),
        (slice(0, 3), "names or numbers"),
    ],
)
def test_columns_that_cannot_be_selected_are_named(columns, message):
    X, y = table(d=6)
    statistics = Statistics.of(pd.DataFrame(X, columns=list("abcdef")), y)
    with pytest.raises(InputError, match=message.replace(" .* ", ".*")):
        statistics.select(columns)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_standard_errors_need_no_rows(kind, fit_intercept, weight):
    X, y = table()
    weight = weight + 0.5
    parameters = {"cov_type": "nonrobust", "fit_intercept": fit_intercept}
    found = LinearRegression(**parameters).fit(Statistics.of(X + 1, y, weight, kind=kind))
    expected = fitted(X + 1, y, weight, **parameters)
    for name in ("bse_", "rsquared_", "fvalue_", "llf_", "aic_", "scale_", "df_resid_"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-8)
    np.testing.assert_allclose(found.cov_params(), expected.cov_params(), rtol=1e-8, atol=1e-15)


NO_READ = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
import numpy as np
from streamreg import LinearRegression, Statistics
statistics = Statistics.of(sys.argv[1])
assert any(sys.argv[1] in path for path in opened)
opened.clear()
LinearRegression().fit(statistics)
LinearRegression(l2=0.1, fit_intercept=False).fit(statistics)
LinearRegression(cov_type="nonrobust").fit(statistics.select([0, 2]))
print([path for path in opened if sys.argv[1] in path])
"""


def test_no_file_of_the_rows_is_opened_again(tmp_path):
    import zarr  # noqa: PLC0415

    X, y = table()
    group = zarr.create_group(tmp_path / "rows.zarr")
    group.create_array("X", data=X, chunks=(100, 6))
    group.create_array("y", data=y)
    done = subprocess.run(
        [sys.executable, "-c", NO_READ, str(tmp_path / "rows.zarr")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_table_is_gathered_with_its_names_and_schema(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((300, 2)), columns=["a", "b"])
    frame["c"] = rng.choice(["x", "y", "z"], 300)
    frame["t"] = frame.a - 2 * frame.b + 3 * (frame.c == "y") + 0.1 * rng.standard_normal(300)
    frame.to_csv(tmp_path / "t.csv", index=False)
    rows = read_table(tmp_path / "t.csv", target="t", one_hot=["c"])
    model = LinearRegression().fit(Statistics.of(rows))
    assert list(model.feature_names_in_) == ["a", "b", "c=y", "c=z"]
    expected = LinearRegression().fit(rows)
    np.testing.assert_array_equal(model.coef_, expected.coef_)
    assert model.schema_ == expected.schema_ is not None
    # the model of statistics reads raw rows too
    again = read_table(tmp_path / "t.csv", like=model)
    assert model.score(again) > 0.99


@pytest.mark.parametrize("solver", ["gd", "cg"])
def test_a_solver_that_needs_rows_is_refused(solver):
    statistics = Statistics.of(*table())
    message = 'statistics of kind .gram.: pass solver="closed_form", or fit the data'
    with pytest.raises(InputError, match=message):
        LinearRegression(solver=solver).fit(statistics)


@pytest.mark.parametrize(("kind", "solver"), [("gram", "qr"), ("qr", "closed_form")])
def test_a_solver_of_another_kind_is_refused(kind, solver):
    with pytest.raises(InputError, match=f'pass solver="{SOLVERS[kind]}"'):
        LinearRegression(solver=solver).fit(Statistics.of(*table(), kind=kind))


@pytest.mark.parametrize("cov_type", ["HC0", "HC3", "cluster"])
def test_errors_that_need_residuals_are_refused(kind, cov_type):
    with pytest.raises(
        InputError, match='keep no rows: fit the data, or pass cov_type="nonrobust"'
    ):
        LinearRegression(cov_type=cov_type).fit(Statistics.of(*table(), kind=kind))


def test_y_beside_statistics_is_refused():
    X, y = table()
    with pytest.raises(InputError, match="statistics hold y and the weights"):
        LinearRegression().fit(Statistics.of(X, y), y)


def hard(kappa, n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3))
    X[:, 2] = X[:, 0] + X[:, 1] + X[:, 2] / kappa
    return X, X @ [1.0, 2.0, 3.0] + 0.1 * rng.standard_normal(n)


@pytest.mark.parametrize("exponent", range(0, 15, 2))
@pytest.mark.filterwarnings("ignore")
def test_no_digit_is_claimed_that_is_not_right(kind, exponent):
    for seed in range(3):
        X, y = hard(10.0**exponent, n=60, seed=seed)
        found = LinearRegression().fit(Statistics.of(X, y, kind=kind))
        claimed = np.nan_to_num(found.digits_, nan=0.0)
        right = right_digits(found.coef_, exact_fit(X, y)[:3])
        assert (claimed <= right + 0.01).all()


def test_a_coarse_gram_does_not_converge_and_names_the_other_kind():
    X, y = hard(1e6)
    statistics = Statistics.of(X, y)
    with (
        pytest.warns(DataWarning, match="nearly dependent"),
        pytest.warns(DataWarning, match="the loss is known to within"),
        pytest.warns(ConvergenceWarning, match='gather them with kind="qr", or fit the data'),
    ):
        model = LinearRegression().fit(statistics)
    assert not model.converged_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        assert LinearRegression().fit(Statistics.of(X, y, kind="qr")).converged_


def test_a_dependence_is_confirmed_by_r_only():
    X, y = table()
    X[:, 3] = X[:, 1] + X[:, 2]
    with pytest.warns(DataWarning, match="depends linearly on the others"):
        by_root = LinearRegression().fit(Statistics.of(X, y, kind="qr"))
    assert by_root.converged_
    with pytest.warns(DataWarning), pytest.warns(ConvergenceWarning, match='kind="qr"'):
        by_gram = LinearRegression().fit(Statistics.of(X, y))
    np.testing.assert_allclose(by_gram.coef_, by_root.coef_, rtol=1e-8)
    assert np.isnan(by_gram.digits_).all()
    assert np.isfinite(by_root.digits_).sum() == 3


def test_a_loss_that_sums_do_not_tell_is_reported():
    X, _ = table()
    with pytest.warns(
        DataWarning, match=r"the loss is known to within \de-1\d of that at the start"
    ):
        model = LinearRegression().fit(Statistics.of(X, X @ np.arange(6.0)))
    assert 0 <= model.loss_history_[-1] < 1e-11 * model.loss_history_[0]
    # 15 digits of R are 30 of the loss
    with pytest.warns(DataWarning, match=r"the loss is known to within \de-2\d of that"):
        model = LinearRegression().fit(Statistics.of(X, X @ np.arange(6.0), kind="qr"))
    with pytest.warns(DataWarning), pytest.warns(ConvergenceWarning, match='kind="qr"'):
        LinearRegression(cov_type="nonrobust").fit(Statistics.of(X, X @ np.arange(6.0)))


@pytest.mark.parametrize("exponent", [-300, 300])
def test_squares_beyond_float64_are_kept_in_other_units(kind, exponent):
    X, y = table()
    X[:, 2] *= 10.0**exponent
    expected = fitted(X, y).coef_
    for parameters in ({}, {"fit_intercept": False}):
        found = LinearRegression(**parameters).fit(Statistics.of(X, y, kind=kind))
        expected = fitted(X, y, **parameters)
        np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9)


def test_means_far_from_zero_need_no_units_until_the_intercept_is_left_out(kind):
    # deviations of 1, and a mean whose square is infinite
    rng = np.random.default_rng(0)
    X = np.column_stack([1e200 * (1 + 1e-3 * rng.standard_normal(200)), rng.standard_normal(200)])
    y = X[:, 0] * 1e-200 + X[:, 1]
    statistics = Statistics.of(X, y, kind=kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found = LinearRegression(fit_intercept=False).fit(statistics)
    np.testing.assert_allclose(found.coef_ * [1e200, 1], [1, 1], rtol=1e-9)


def test_a_refused_gathering_reads_nothing(tmp_path, store, chunks_opened):
    X, y = table(n=64, d=400)
    paths = store(X, chunks=(8, 400)), store(y, "y.zarr", chunks=(8,))
    before = chunks_opened()
    with pytest.raises(MemoryLimitError, match=r"statistics needs .*no data was read"):
        Statistics.of(*paths, memory_limit="1 MiB")
    assert chunks_opened() == before


def test_a_refused_fit_names_the_state():
    statistics = Statistics.of(*table(n=300, d=200))
    with pytest.raises(MemoryLimitError, match=r"(?s)closed_form needs .*XᵀX +318\.8 KiB"):
        LinearRegression(memory_limit="1 MiB").fit(statistics)


def test_public_attributes_are_numpys(kind, weight):
    X, y = table(k=2)
    statistics = Statistics.of(X, y, weight, kind=kind)
    p = weight / weight.sum()
    x_mean, y_mean = p @ X, p @ y
    Z, T = X - x_mean, y - y_mean
    root = np.sqrt(weight)[:, None]
    np.testing.assert_allclose(statistics.x_mean, x_mean, rtol=1e-12)
    np.testing.assert_allclose(statistics.y_mean, y_mean, rtol=1e-12)
    np.testing.assert_allclose(statistics.xx, (root * Z).T @ (root * Z), rtol=1e-10)
    np.testing.assert_allclose(statistics.xy, (root * Z).T @ (root * T), rtol=1e-10)
    np.testing.assert_allclose(statistics.yy, np.sum((root * T) ** 2, axis=0), rtol=1e-12)
    assert statistics.weight_sum == weight.sum()
    assert (statistics.n_rows, statistics.n_omitted) == (np.count_nonzero(weight), 0)
    assert (statistics.n_features, statistics.n_targets) == (6, 2)
    assert [(piece.source, piece.n_rows) for piece in statistics.pieces] == [("X", 600)]
    assert repr(statistics).startswith(f"<Statistics {kind}: ")
    with pytest.raises(ValueError, match="read-only"):
        statistics.xx[0, 0] = 1.0


def test_rows_left_out_are_counted():
    X, y = table()
    X[7, 2] = np.nan
    with pytest.warns(DataWarning, match="1 of 600 rows holds NaN"):
        statistics = Statistics.of(X, y, nan_policy="omit")
    model = LinearRegression().fit(statistics)
    assert (statistics.n_omitted, model.rows_omitted_, model.n_rows_) == (1, 1, 599)


def test_statistics_are_made_by_of_and_load_only():
    with pytest.raises(InputError, match=r"Statistics\.of\(X, y\) or Statistics\.load"):
        Statistics()
    with pytest.raises(InputError, match="kind='r' is not known; choose 'gram' or 'qr'"):
        Statistics.of(*table(), kind="r")


def test_one_column_of_y_gives_one_row_of_weights(kind, tmp_path):
    X, y = table()
    statistics = Statistics.of(X, y[:, None], kind=kind)
    statistics.save(tmp_path / "s.npz")
    assert LinearRegression().fit(Statistics.load(tmp_path / "s.npz")).coef_.shape == (1, 6)
    assert LinearRegression().fit(Statistics.of(X, y, kind=kind)).coef_.shape == (6,)
