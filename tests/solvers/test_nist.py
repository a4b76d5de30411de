"""Correct digits of solvers, by the certified values of NIST's Statistical Reference Datasets."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from streamreg import LinearRegression

DATA = Path(__file__).parents[1] / "data" / "nist"

# Correct digits of all coefficients and the intercept. The tests require a digit or two less
# than was measured, because another BLAS may round differently. Measured on x86-64, in this order:
#   closed_form                       12.2 14.7 12.8 12.0 11.1  6.2
#   cg                                14.6 14.7 14.1 13.5 15.0 15.0
#   NumPy's lstsq                     10.9 14.7 12.3  6.2  9.3  5.9  (float64, and a column of ones)
#   scikit-learn's LinearRegression   13.8 14.7 12.1 none none none
#
# The condition number of the standardised columns is 110 for Longley and 1,600 for Wampler. If a
# fit has residuals, its weights lose 2 log10(condition number) digits. The residuals of Wampler5
# are as large as its fit, so no float64 solver gives more than about 16 - 2 log10(1600) - 2 digits.
DIGITS = {
    # name: closed_form, cg
    "Longley": (11, 13.5),
    "NoInt1": (14, 14),
    "Norris": (11.5, 13),
    "Pontius": (10.5, 12.5),
    # 9.93 to 10.2, depending on the order of sums
    "Wampler1": (9.9, 14),
    "Wampler5": (5.5, 14),
}
# gd at tol=1e-14: a loss near its minimum determines half the digits of the weights. The first step
# solves problems of one column; Longley and Wampler1 take more than 20,000 epochs. Nearly all of
# Wampler5's loss is residual, so that gd stops before the weights are right.
DIGITS_GD = {"NoInt1": 14, "Norris": 11.5, "Pontius": 6}


def certified(name):
    """Return X, y and NIST's description of their fit."""
    about = json.loads((DATA / f"{name}.json").read_text())
    with (DATA / f"{name}.csv").open() as file:
        rows = [{key: float(text) for key, text in row.items()} for row in csv.DictReader(file)]
    y = np.array([row.pop("y") for row in rows])
    X = np.array([list(row.values()) for row in rows])
    if about["model"]["degree"]:
        X = X ** np.arange(1, about["model"]["degree"] + 1)
    return X, y, about


def digits(found, true):
    """Return the correct digits of the worst number, at most 15."""
    off = np.abs(np.asarray(found) - true) / np.abs(true)
    return float(np.min(-np.log10(np.maximum(off, 1e-15))))


def fitted_digits(name, **parameters):
    X, y, about = certified(name)
    intercept = about["model"]["intercept"]
    model = LinearRegression(fit_intercept=intercept, **parameters).fit(X, y)
    weights = np.append(model.intercept_, model.coef_) if intercept else model.coef_
    r2 = about["certified"]["r_squared"]
    if intercept:
        # 1e-9 allows for rounding of the certified residuals, and of the terms of predictions
        assert abs(model.score(X, y) - r2) < 1e-9
    return digits(weights, np.array(about["certified"]["coefficients"]))


@pytest.mark.parametrize("name", DIGITS)
def test_closed_form_gives_the_expected_digits(name):
    assert fitted_digits(name, solver="closed_form") >= DIGITS[name][0]


# the tolerance may be below rounding: then the fit stops with a warning
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", DIGITS)
def test_cg_gives_the_expected_digits(name):
    assert fitted_digits(name, solver="cg", tol=1e-14) >= DIGITS[name][1]


@pytest.mark.parametrize("name", DIGITS_GD)
def test_gd_gives_the_expected_digits(name):
    assert fitted_digits(name, solver="gd", tol=1e-14) >= DIGITS_GD[name]


@pytest.mark.parametrize("name", ["Longley", "Wampler1"])
def test_gd_warns_if_it_runs_out_of_epochs(name):
    X, y, _ = certified(name)
    with pytest.warns(ConvergenceWarning, match="max_epochs ran out"):
        LinearRegression(solver="gd").fit(X, y)
