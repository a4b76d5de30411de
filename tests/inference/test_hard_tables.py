"""Standard errors where columns are nearly dependent, far from 0 or of leverage 1: an 80-bit QR."""

from __future__ import annotations

import csv
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from wide_errors import standard_errors

from streamreg import LinearRegression, load
from streamreg.errors import DataWarning, InputError

COV_TYPES = ("nonrobust", "HC0", "HC1", "HC2", "HC3", "cluster")
NIST = Path(__file__).parents[1] / "data" / "nist"
N = 300


def noise(rng, X):
    spread = 1 + np.abs(rng.standard_normal(len(X)))
    return X @ np.full(X.shape[1], 0.1) + spread * rng.standard_normal(len(X))


def dependent(kappa, rng):
    left, _ = np.linalg.qr(rng.standard_normal((N, 5)))
    right, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    return 20 * (left * np.geomspace(1, 1 / kappa, 5)) @ right.T + rng.standard_normal(5)


def leverage(rng):
    # of row 7, 1 - 1e-7
    X = rng.standard_normal((N, 5))
    X[:, 4] *= 1e-7**0.5 / np.sqrt(N)
    X[7, 4] = 1
    return X


TABLES = {
    "condition 1e2": lambda rng: dependent(1e2, rng),
    "condition 1e4": lambda rng: dependent(1e4, rng),
    "condition 1e6": lambda rng: dependent(1e6, rng),
    "condition 1e7": lambda rng: dependent(1e7, rng),
    "years": lambda _: np.linspace(1900, 2000, N)[:, None] ** np.arange(1, 4),
    "far": lambda rng: rng.standard_normal((N, 4)) + 1e8,
    "leverage": leverage,
}


@pytest.mark.parametrize("solver", ["auto", "qr"])
@pytest.mark.parametrize("name", TABLES)
def test_standard_errors_are_those_of_80_bits(name, solver):
    rng = np.random.default_rng(0)
    X = TABLES[name](rng)
    y, weight = noise(rng, X), rng.uniform(0.2, 3, N)
    groups = np.sort(rng.integers(0, 40, N))
    for cov_type in COV_TYPES:
        given = {"groups": groups} if cov_type == "cluster" else {}
        with warnings.catch_warnings():
            # of columns that are nearly dependent
            warnings.simplefilter("ignore", DataWarning)
            model = LinearRegression(solver=solver, cov_type=cov_type).fit(X, y, weight, **given)
        expected = standard_errors(X, y, cov_type, weight=weight, **given)
        np.testing.assert_allclose(model.bse_, expected, rtol=1e-6, err_msg=cov_type)


@pytest.mark.parametrize("size", [1e-2, 1e-5, 1e-7])
@pytest.mark.parametrize("solver", ["closed_form", "qr"])
def test_small_residuals_have_the_digits_of_large_ones(solver, size):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 4)) + 50
    y = X @ np.ones(4) + size * rng.standard_normal(N)
    for cov_type in ("nonrobust", "HC1", "HC3"):
        model = LinearRegression(solver=solver, cov_type=cov_type).fit(X, y)
        expected = standard_errors(X, y, cov_type)
        # y is rounded to 1e-14, and residuals too
        tolerance = 1e-9 if cov_type == "nonrobust" else 1e-6
        np.testing.assert_allclose(model.bse_, expected, rtol=tolerance)


def certified(name):
    about = json.loads((NIST / f"{name}.json").read_text())
    with (NIST / f"{name}.csv").open() as file:
        rows = [{key: float(text) for key, text in row.items()} for row in csv.DictReader(file)]
    y = np.array([row.pop("y") for row in rows])
    X = np.array([list(row.values()) for row in rows])
    if about["model"]["degree"]:
        X = X ** np.arange(1, about["model"]["degree"] + 1)
    return X, y, about


@pytest.mark.parametrize("name", ["Longley", "NoInt1", "Norris", "Pontius", "Wampler5"])
def test_qr_gives_13_digits_of_nists_standard_errors(name):
    X, y, about = certified(name)
    model = LinearRegression(
        solver="qr", cov_type="nonrobust", fit_intercept=about["model"]["intercept"]
    ).fit(X, y)
    known = about["certified"]
    np.testing.assert_allclose(model.bse_, known["std_errors"], rtol=1e-13)
    np.testing.assert_allclose(model.scale_**0.5, known["residual_sd"], rtol=1e-13)
    np.testing.assert_allclose(model.rsquared_, known["r_squared"], rtol=0, atol=1e-14)
    # written with 15 digits
    np.testing.assert_allclose(model.fvalue_, float(known["F_str"]), rtol=1e-12)


def test_an_exact_fit_has_standard_errors_of_rounding():
    X, y, _ = certified("Wampler1")
    model = LinearRegression(solver="qr", cov_type="nonrobust").fit(X, y)
    # the certified values are 0
    assert np.max(model.bse_) < 1e-9
    assert model.rsquared_ == 1


def test_few_certain_digits_are_said():
    rng = np.random.default_rng(0)
    X = dependent(1e11, rng)
    with pytest.warns(DataWarning) as caught:
        LinearRegression(solver="qr", cov_type="nonrobust").fit(X, noise(rng, X))
    assert any("of the standard errors are certain" in str(each.message) for each in caught)


@pytest.mark.parametrize("far", [1e3, 1e4, 1e5])
@pytest.mark.parametrize("solver", ["auto", "closed_form", "qr", "cg"])
def test_columns_far_from_0_are_no_constant(solver, far):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 4)) + far
    y = X @ [1, 2, 1, -4] + rng.standard_normal(N)
    with warnings.catch_warnings():
        # of columns that are nearly dependent, and of few digits
        warnings.simplefilter("ignore")
        model = LinearRegression(
            solver=solver,
            cov_type="nonrobust",
            inference_for=[0] if solver == "cg" else None,
            fit_intercept=False,
        ).fit(X, y)
    # R² about 0, where statsmodels finds no constant
    expected = sm.OLS(y, X).fit()
    assert not expected.k_constant
    np.testing.assert_allclose(model.rsquared_, expected.rsquared, rtol=1e-10)


@pytest.mark.parametrize("cov_type", ["HC2", "HC3"])
def test_a_row_of_leverage_1_is_named(cov_type):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 2))
    X[:, 1] = 0
    X[17, 1] = 1
    y = noise(rng, X)
    with pytest.warns(DataWarning, match=r"passes through 1 row, the first near row 17"):
        model = LinearRegression(cov_type=cov_type).fit(X, y)
    # the other coefficients do not depend on this row
    assert np.isnan(model.bse_).tolist() == [False, False, True]
    others = np.delete(np.arange(N), 17)
    expected = sm.OLS(y[others], sm.add_constant(X[others, :1])).fit(cov_type=cov_type)
    np.testing.assert_allclose(model.bse_[:2], expected.bse, rtol=1e-7)
    assert np.isnan([model.fvalue_, model.cov_params()[1, 2]]).all()
    # the coefficient is determined, and its error is not
    assert model.tidy()["estimate"].tolist() == [model.intercept_, *model.coef_]
    assert "rows of leverage 1 determine this coefficient" in str(model.summary())
    assert "do not determine" not in str(model.summary())


@pytest.mark.parametrize("cov_type", COV_TYPES)
def test_without_degrees_of_freedom_errors_are_nan(cov_type, tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((4, 3)), rng.standard_normal(4)
    given = {"groups": [0, 0, 1, 1]} if cov_type == "cluster" else {}
    with pytest.warns(DataWarning) as caught:
        model = LinearRegression(cov_type=cov_type).fit(X, y, **given)
    # nothing that qr would find
    assert model.solver_ == "closed_form"
    assert any("no degrees of freedom are left: 4 rows" in str(each.message) for each in caught)
    for name in ("bse", "pvalues", "fvalue", "f_pvalue", "scale"):
        assert np.isnan(getattr(model, f"{name}_")).all()
    assert np.isnan(model.cov_params()).all()
    model.save(tmp_path / "m.npz")
    loaded = load(tmp_path / "m.npz")
    np.testing.assert_equal(loaded.bse_, model.bse_)
    np.testing.assert_equal(loaded.fvalue_, model.fvalue_)


def test_one_group_of_positive_weight_is_refused():
    rng = np.random.default_rng(0)
    X, groups = rng.standard_normal((20, 2)), np.arange(20) % 2
    for order in (np.argsort(groups), np.arange(20)):
        with pytest.raises(InputError, match="one group"):
            LinearRegression(cov_type="cluster").fit(
                X, X[:, 0], 1.0 - groups[order], groups=groups[order]
            )


@pytest.mark.parametrize(("n", "d"), [(80, 6), (400, 4), (2000, 3)])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e5, 1e6])
@pytest.mark.parametrize("cov_type", ["HC2", "HC3"])
def test_errors_beside_a_row_of_huge_values_are_right_or_nan(n, d, size, cov_type):
    rng = np.random.default_rng(80)
    X = rng.standard_normal((n, d))
    X[0] *= size
    y = noise(rng, X)
    expected = standard_errors(X, y, cov_type)
    for solver in ("auto", "closed_form", "qr"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = LinearRegression(solver=solver, cov_type=cov_type).fit(X, y)
        known = np.isfinite(model.bse_)
        # of XᵀX, with the digits that a warning states
        rtol = 1e-6 if model.converged_ else 1e-2
        np.testing.assert_allclose(model.bse_[known], expected[known], rtol=rtol)
        if solver != "closed_form" and size**2 < 1e8 * n:
            assert known.all()


@pytest.mark.parametrize("y_of", ["columns", "one column", "3"])
@pytest.mark.parametrize("cov_type", ["nonrobust", "HC1", "HC3"])
def test_an_exact_fit_is_shown(cov_type, y_of, tmp_path):
    X = np.random.default_rng(0).standard_normal((60, 3))
    y = {"columns": X @ [1, 2, 3], "one column": X[:, 0], "3": np.full(60, 3.0)}[y_of]
    model = LinearRegression(solver="qr", cov_type=cov_type).fit(X, y)
    text = str(model.summary())
    assert "essentially perfect" in text
    # no line has more digits than its cell: none is folded
    assert not re.search(r"^ {10,}[0-9.]+$", text, re.MULTILINE)
    model.save(tmp_path / "m.npz")
    np.testing.assert_equal(load(tmp_path / "m.npz").pvalues_, model.pvalues_)


@pytest.mark.parametrize("size", [1e-300, 1e-165, 1e154, 1e300])
@pytest.mark.parametrize("solver", ["closed_form", "qr", "cg"])
@pytest.mark.parametrize("cov_type", ["nonrobust", "HC1"])
def test_squares_of_y_beyond_float64_leave_all_figures(size, solver, cov_type, tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 3))
    y = noise(rng, X)
    chosen = [0, 1, 2] if solver == "cg" else None
    model = LinearRegression(solver=solver, cov_type=cov_type, inference_for=chosen)
    model.fit(X, y * size).save(tmp_path / "m.npz")
    expected = sm.OLS(y, sm.add_constant(X)).fit(cov_type=cov_type)
    names = ["tvalues", "pvalues", "rsquared", "rsquared_adj"]
    if cov_type == "nonrobust":
        names += ["fvalue", "f_pvalue"]
    for each in (model, load(tmp_path / "m.npz")):
        for name in names:
            found = getattr(each, f"{name}_")
            np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-8, err_msg=name)
        np.testing.assert_allclose(each.bse_, expected.bse * size, rtol=1e-8)
        np.testing.assert_allclose(each.llf_, expected.llf - N * np.log(size), rtol=1e-12)
