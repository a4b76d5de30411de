"""Standard errors of chosen columns, by cg: beside statsmodels, and where D² does not fit."""

from __future__ import annotations

import warnings

import laws
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from laws import Rows

from streamreg import LinearRegression
from streamreg.accumulators.contrasts import Contrasts
from streamreg.errors import DataWarning, InputError, MemoryLimitError


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((500, 6)) * [1, 1e3, 1e-3, 1, 1, 1] + [0, 0, 0, 9, 0, 1e4]
    y = X @ np.ones(6) + rng.standard_normal(500) * (1 + np.abs(X[:, 0]))
    return X, y, rng.uniform(0.2, 2, 500)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("cov_type", ["nonrobust", "HC0", "HC1"])
def test_chosen_errors_are_those_of_statsmodels(rows, cov_type, fit_intercept, weighted):
    X, y, weight = rows
    model = LinearRegression(
        solver="cg",
        cov_type=cov_type,
        inference_for=[1, 3, 5],
        tol=1e-13,
        fit_intercept=fit_intercept,
    )
    with warnings.catch_warnings():
        # cg may end by rounding
        warnings.simplefilter("ignore")
        model.fit(X, y, weight if weighted else None)
    exog = sm.add_constant(X) if fit_intercept else X
    expected = sm.WLS(y, exog, weights=weight if weighted else 1.0).fit(cov_type=cov_type)
    known = [0, 2, 4, 6] if fit_intercept else [1, 3, 5]
    # cg solves to 1e-9, and residuals are those of its weights
    np.testing.assert_allclose(model.bse_[known], expected.bse[known], rtol=1e-6)
    assert np.isnan(np.delete(model.bse_, known)).all()
    for name in ("rsquared", "llf", "scale", "nobs", "df_resid", "df_model"):
        np.testing.assert_allclose(getattr(model, f"{name}_"), getattr(expected, name), rtol=1e-7)
    assert "not asked for" in str(model.summary())
    with pytest.raises(AttributeError, match="is not kept"):
        model.cov_params()


def test_columns_may_be_named(rows):
    X, y, _ = rows
    frame = pd.DataFrame(X, columns=list("abcdef"))
    model = LinearRegression(solver="cg", cov_type="nonrobust", inference_for="b, f").fit(frame, y)
    assert np.flatnonzero(np.isfinite(model.bse_)).tolist() == [0, 2, 6]
    with pytest.raises(InputError, match="names 'q', which is no column"):
        LinearRegression(cov_type="nonrobust", inference_for=["q"]).fit(frame, y)


def test_a_column_that_depends_on_others_is_nan(rows):
    X, y, _ = rows
    columns = np.column_stack([X[:, :3], X[:, 0], np.ones(len(X))])
    model = LinearRegression(solver="cg", cov_type="HC0", inference_for=[1, 3, 4], max_epochs=60)
    with pytest.warns(DataWarning) as caught:
        model.fit(columns, y)
    assert any("not all standard errors were found" in str(each.message) for each in caught)
    assert np.flatnonzero(np.isfinite(model.bse_)).tolist() == [0, 2]


def test_a_constant_column_is_named_as_that_alone(rows):
    X, y, _ = rows
    X = np.column_stack([X[:, :3], np.full(len(X), 7.0)])
    model = LinearRegression(solver="cg", cov_type="nonrobust", inference_for=[1, 3])
    with pytest.warns(DataWarning) as caught:
        model.fit(X, y)
    assert [str(each.message)[:20] for each in caught] == ["column 3 is constant"]
    assert np.flatnonzero(np.isfinite(model.bse_)).tolist() == [0, 2]
    expected = sm.OLS(y, sm.add_constant(X[:, :3])).fit()
    np.testing.assert_allclose(model.bse_[[0, 2]], expected.bse[[0, 2]], rtol=1e-8)


@pytest.mark.parametrize("y", ["constant", "zeros", "constant and not"])
def test_a_fit_that_needs_no_epoch_knows_the_rank(rows, y):
    X, noisy, _ = rows
    targets = {"constant": 0 * noisy + 2.5, "zeros": 0 * noisy}
    y = targets.get(y, np.column_stack([targets["constant"], noisy]))
    model = LinearRegression(solver="cg", cov_type="nonrobust", inference_for=[1, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, y)
    assert (np.asarray(model.df_resid_) == len(X) - 7).all()
    errors = np.atleast_2d(model.bse_)[:, [0, 2, 4]]
    assert (errors[0] < 1e-12).all()
    if y.ndim == 2:
        expected = sm.OLS(noisy, sm.add_constant(X)).fit()
        np.testing.assert_allclose(errors[1], expected.bse[[0, 2, 4]], rtol=1e-9)


@pytest.mark.parametrize("table", ["equal columns", "indicators"])
def test_figures_that_need_the_rank_are_nan_where_columns_depend_on_others(rows, table):
    X, y, _ = rows
    indicators = np.eye(3)[np.arange(len(X)) % 3]
    columns = np.column_stack([X[:, :3], X[:, 0] if table == "equal columns" else indicators])
    model = LinearRegression(solver="cg", cov_type="nonrobust", inference_for=[1], max_epochs=60)
    with pytest.warns(DataWarning) as caught:
        model.fit(columns, y)
    assert any("columns depend on others" in str(each.message) for each in caught)
    for name in ("bse", "rsquared_adj", "fvalue", "f_pvalue", "aic", "bic", "df_resid", "scale"):
        assert np.isnan(getattr(model, f"{name}_")).all()
    expected = sm.OLS(y, np.linalg.qr(np.column_stack([np.ones(len(X)), columns[:, :-1]]))[0]).fit()
    np.testing.assert_allclose(
        [model.rsquared_, model.llf_], [expected.rsquared, expected.llf], rtol=1e-9
    )
    assert "depend on others is not known" in str(model.summary())


@pytest.mark.parametrize("y_mean", [10, 1e6])
def test_a_constant_among_sums_of_columns_is_found(rows, y_mean):
    X, y, weight = rows
    columns = np.column_stack([np.eye(3)[np.arange(len(X)) % 3], X[:, :2] / [1, 1e3]])
    y = y_mean + columns[:, 3] + y / np.std(y)
    model = LinearRegression(
        solver="cg", cov_type="nonrobust", inference_for=[3], fit_intercept=False
    ).fit(columns, y, weight)
    expected = sm.WLS(y, columns, weights=weight).fit()
    for name in ("rsquared", "rsquared_adj", "fvalue", "df_model", "aic"):
        np.testing.assert_allclose(getattr(model, f"{name}_"), getattr(expected, name), rtol=1e-7)


class Wide:
    """Columns that need 1.5 GiB of XᵀX, of which no row may be read."""

    shape, dtype, ndim = (300, 14_000), np.dtype(float), 2

    def __getitem__(self, rows):
        raise AssertionError(f"{rows} were read")


def test_a_refusal_names_inference_for():
    with pytest.raises(MemoryLimitError, match="pass inference_for"):
        LinearRegression(cov_type="HC1", memory_limit="256 MiB").fit(Wide(), np.arange(300.0))
    with pytest.raises(MemoryLimitError) as caught:
        LinearRegression(cov_type="HC3", memory_limit="256 MiB").fit(Wide(), np.arange(300.0))
    assert "inference_for" not in str(caught.value)


def test_what_cg_does_not_give_is_refused(rows):
    X, y, _ = rows
    for parameters in (
        {"cov_type": "HC1"},
        {"cov_type": "HC3", "inference_for": [0]},
    ):
        with pytest.raises(InputError, match="gives no standard errors") as caught:
            LinearRegression(solver="cg", **parameters).fit(X, y)
        # which would not help HC3
        assert ("inference_for" in str(caught.value)) == (parameters["cov_type"] == "HC1")
    with pytest.raises(InputError, match=r'solver="gd" gives no .* cov_type="HC1": pass'):
        LinearRegression(solver="gd", cov_type="HC1").fit(X, y)
    with pytest.raises(InputError, match="checkpoint cannot save"):
        LinearRegression(cov_type="HC1", inference_for=[0], checkpoint="a").fit(X, y)
    for wrong in ([], [0, 0], 3, [1.5]):
        with pytest.raises(InputError, match="inference_for"):
            LinearRegression(cov_type="HC1", inference_for=wrong).fit(X, y)


@pytest.mark.parametrize(
    "law",
    [
        laws.assert_zero_is_neutral,
        laws.assert_an_empty_block_adds_nothing,
        laws.assert_finalize_writes_nothing,
        laws.assert_second_arguments_are_left_alone,
    ],
)
def test_law(law, rows):
    X, y, weight = rows
    rng = np.random.default_rng(0)
    statistic = Contrasts(rng.standard_normal((6, 3)), np.zeros(3), np.array([2.0]))
    law(statistic, Rows(X, y[:, None], weight))
    state = statistic.zero()
    assert sum(field.nbytes for field in state) == statistic.state_nbytes
