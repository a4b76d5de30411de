"""Every figure beside statsmodels' on real tables, to 1e-8."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from problems import flights_csv
from sklearn.datasets import load_diabetes
from statsmodels.datasets import ccard, grunfeld, randhie, star98

from streamreg import LinearRegression

COV_TYPES = ("nonrobust", "HC0", "HC1", "HC2", "HC3", "cluster")
# relative; the P values of F statistics have errors of F times its value
CLOSE = 1e-8


def flights(tmp_path_factory):
    columns = ["dep_delay", "distance", "air_time", "arr_delay", "carrier", "month"]
    frame = pd.read_csv(flights_csv(tmp_path_factory.mktemp("flights")), usecols=columns)
    frame = frame.dropna().sample(20_000, random_state=0)
    X = frame[["dep_delay", "distance", "air_time"]].to_numpy(float)
    return X, frame["arr_delay"].to_numpy(), frame["carrier"], frame["month"].to_numpy(float)


def diabetes(_):
    X, y = load_diabetes(return_X_y=True)
    return X, y, np.sort(np.arange(len(y)) % 25), 1 + X[:, 0] ** 2


def credit(_):
    data = ccard.load_pandas().data
    X = data[["AGE", "INCOME", "OWNRENT"]].to_numpy(float)
    return X, data["AVGEXP"].to_numpy(), np.arange(len(X)) % 12, X[:, 1]


def investment(_):
    data = grunfeld.load_pandas().data
    X = data[["value", "capital"]].to_numpy(float)
    return X, data["invest"].to_numpy(), data["firm"], 1 + np.arange(len(X)) % 7


def doctors(_):
    data = randhie.load_pandas().data.iloc[::4]
    X = data.drop(columns="mdvis").to_numpy(float)
    return X, data["mdvis"].to_numpy(float), np.arange(len(X)) // 9, 1 + X[:, 0]


def schools(_):
    data = star98.load_pandas().data
    X = data.iloc[:, 2:12].to_numpy(float)
    return X, data["NABOVE"].to_numpy(float), np.arange(len(X)) % 30, 1 + X[:, 0]


TABLES = (flights, diabetes, credit, investment, doctors, schools)


@pytest.fixture(scope="module", params=TABLES, ids=lambda table: table.__name__)
def table(request, tmp_path_factory):
    return request.param(tmp_path_factory)


def by_statsmodels(X, y, weight, cov_type, groups, *, fit_intercept=True):
    exog = sm.add_constant(X, has_constant="raise") if fit_intercept else X
    model = sm.OLS(y, exog) if weight is None else sm.WLS(y, exog, weights=weight)
    if cov_type == "cluster":
        kwds = {"groups": pd.factorize(np.asarray(groups))[0]}
        # t with G - 1 degrees of freedom
        return model.fit(cov_type=cov_type, cov_kwds=kwds, use_t=True)
    return model.fit(cov_type=cov_type)


def assert_same(model, expected, *, wald=True):
    names = ["bse", "tvalues", "pvalues", "rsquared", "rsquared_adj", "llf", "aic", "bic"]
    names += ["nobs", "df_resid", "df_model", "scale", *(["fvalue", "f_pvalue"] if wald else [])]
    for name in names:
        found, value = getattr(model, f"{name}_"), getattr(expected, name)
        # P values below the smallest normal number have few digits
        np.testing.assert_allclose(found, value, rtol=CLOSE, atol=1e-290, err_msg=name)
    for alpha in (0.05, 0.1):
        np.testing.assert_allclose(model.conf_int(alpha), expected.conf_int(alpha), rtol=CLOSE)
    assert_same_covariance(model.cov_params(), expected.cov_params())


def assert_same_covariance(found, expected):
    # some covariances are 0, to rounding
    size = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert np.all(np.abs(found - expected) <= CLOSE * size)


@pytest.mark.parametrize("weighted", [False, True], ids=["OLS", "WLS"])
@pytest.mark.parametrize("cov_type", COV_TYPES)
def test_every_figure_is_that_of_statsmodels(table, cov_type, weighted):
    X, y, groups, weight = table
    weight = weight if weighted else None
    model = LinearRegression(cov_type=cov_type)
    model.fit(X, y, weight, groups=groups if cov_type == "cluster" else None)
    assert_same(model, by_statsmodels(X, y, weight, cov_type, groups))


@pytest.mark.parametrize("weighted", [False, True], ids=["OLS", "WLS"])
@pytest.mark.parametrize("cov_type", ["nonrobust", "HC0", "HC3", "cluster"])
def test_a_fit_without_intercept_has_uncentred_figures(cov_type, weighted):
    X, y, groups, weight = investment(None)
    weight = weight if weighted else None
    model = LinearRegression(cov_type=cov_type, fit_intercept=False, solver="qr")
    model.fit(X, y, weight, groups=groups if cov_type == "cluster" else None)
    assert_same(model, by_statsmodels(X, y, weight, cov_type, groups, fit_intercept=False))


@pytest.mark.parametrize("solver", ["closed_form", "qr"])
def test_a_constant_hidden_in_the_columns_makes_r2_centred(solver):
    X, y, groups, weight = investment(None)
    dummies = pd.get_dummies(groups).to_numpy(float)
    columns = np.column_stack([X, dummies])
    model = LinearRegression(cov_type="nonrobust", fit_intercept=False, solver=solver)
    model.fit(columns, y, weight)
    expected = sm.WLS(y, columns, weights=weight).fit()
    assert expected.k_constant == 1
    assert_same(model, expected)


@pytest.mark.parametrize("solver", ["closed_form", "qr"])
@pytest.mark.parametrize("weighted", [False, True])
def test_several_targets_are_as_each_alone(solver, weighted):
    X, y, _, weight = diabetes(None)
    weight = weight if weighted else None
    Y = np.column_stack([y, X[:, 0] - y**2, np.sin(y)])
    model = LinearRegression(cov_type="nonrobust", solver=solver).fit(X, Y, weight)
    assert model.bse_.shape == (3, 11)
    assert model.conf_int().shape == (3, 11, 2)
    for k in range(3):
        expected = by_statsmodels(X, Y[:, k], weight, "nonrobust", None)
        for name in ("bse", "tvalues", "rsquared", "fvalue", "llf", "bic", "scale"):
            value = getattr(expected, name)
            np.testing.assert_allclose(getattr(model, f"{name}_")[k], value, rtol=CLOSE)
        assert_same_covariance(model.cov_params()[k], expected.cov_params())


def test_rows_of_weight_0_are_left_out():
    X, y, _, weight = diabetes(None)
    weight = np.where(np.arange(len(y)) % 3, weight, 0.0)
    model = LinearRegression(cov_type="HC1").fit(X, y, weight)
    kept = weight > 0
    expected = by_statsmodels(X[kept], y[kept], weight[kept], "HC1", None)
    assert_same(model, expected)
    assert model.nobs_ == kept.sum()


def test_rows_left_out_for_nan_belong_to_no_group():
    X, y, _, weight = diabetes(None)
    groups = np.arange(len(y)) % 40
    X, y = X.copy(), y.copy()
    X[groups == 3, 1], y[7] = np.nan, np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearRegression(cov_type="cluster", nan_policy="omit")
        model.fit(X, y, weight, groups=groups)
    kept = np.isfinite(y) & np.isfinite(X).all(axis=1)
    expected = by_statsmodels(X[kept], y[kept], weight[kept], "cluster", groups[kept])
    assert_same(model, expected)
