"""Hard data: dependent and constant columns, values far from 1, outliers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from exact import exact_fit, right_digits
from problems import error, lstsq, solve, table

from streamreg.errors import InputError
from streamreg.solvers.base import Status
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.gradient_descent import GradientDescent
from streamreg.solvers.qr import QR

# test_closed_form.py explains the bounds
CG, GD = ConjugateGradient(tol=1e-11), GradientDescent(tol=1e-12, max_epochs=3000)
DIGITS = {ClosedForm(): 1e-9, QR(): 1e-9, CG: 1e-9, GD: 1e-4}
SOLVERS = [pytest.param(solver, bound, id=solver.name) for solver, bound in DIGITS.items()]


def standardised(X):
    X = X - X.mean(axis=0)
    return X / X.std(axis=0)


COLLINEAR = {
    "a column twice": lambda X: np.column_stack([X, X[:, 1]]),
    "a column thrice": lambda X: np.column_stack([X, X[:, 1], X[:, 1]]),
    "a column and its negative": lambda X: np.column_stack([X, -X[:, 1]]),
    "a sum of columns": lambda X: np.column_stack([X, X[:, 0] + X[:, 1] - X[:, 2]]),
    "one-hot": lambda X: np.column_stack([X, X[:, 0] > 0.5, X[:, 0] <= 0.5]).astype(float),
    # equal deviations, because cg minimises the norm of standardised weights if N < D
    "N < D": lambda X: standardised(X[:4]),
    "N = D": lambda X: standardised(X[:6]),
}


@pytest.mark.parametrize(
    "solver",
    [ClosedForm(), QR(), ConjugateGradient(tol=1e-12)],
    ids=["closed_form", "qr", "cg"],
)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("make", COLLINEAR.values(), ids=COLLINEAR.keys())
def test_dependent_columns_have_weights_of_least_norm(solver, fit_intercept, make):
    X, y = table()
    X = make(X)
    y = y[: len(X)]
    solution, _ = solve(solver, X, y, fit_intercept=fit_intercept)
    mean = fit_intercept * X.mean(axis=0)
    # in the user's units, not standardised
    expected = np.linalg.lstsq(X - mean, y - fit_intercept * y.mean(), rcond=1e-10)[0]
    w, b = solution.coefficients[:, 0], solution.intercept[0]
    fitted = (X - mean) @ expected + fit_intercept * y.mean()
    np.testing.assert_allclose(X @ w + b, fitted, atol=1e-9 * np.std(y))
    np.testing.assert_allclose(w, expected, atol=1e-9 * np.max(np.abs(expected)))


@pytest.mark.parametrize("solver", [ClosedForm(), QR()], ids=["closed_form", "qr"])
@pytest.mark.parametrize("make", COLLINEAR.values(), ids=COLLINEAR.keys())
def test_dependent_columns_are_named(make, solver):
    X, y = table()
    X = make(X)
    solution, _ = solve(solver, X, y[: len(X)])
    rank = np.linalg.matrix_rank(X - X.mean(axis=0))
    (message,) = solution.warnings
    assert "linearly on the others" in message
    assert f"rank {rank} of {X.shape[1]}" in message
    if rank < X.shape[1]:
        assert solution.status is Status.LEAST_NORM


@pytest.mark.parametrize("factor", [1.0, -3.0, 1e9])
def test_descent_names_columns_that_are_multiples_of_each_other(factor):
    X, y = table()
    X = np.column_stack([X, factor * X[:, 1] + 5])
    for solver in (CG, GD):
        (message,) = solve(solver, X, y)[0].warnings
        assert "columns 1, 6 are multiples" in message


def test_groups_of_equal_columns_are_named_separately():
    X, y = table()
    X = np.column_stack([X, 2 * X[:, 1], -X[:, 3], X[:, 1] + 1])
    for solver in (CG, GD):
        (message,) = solve(solver, X, y)[0].warnings
        assert message.startswith(
            "columns 1, 6, 8 are multiples of each other, and so are columns 3, 7, up to"
        )


def test_cg_names_columns_that_depend_on_several_others():
    X, y = table(d=9)
    X[:, 4] = X[:, 0] + X[:, 1] - X[:, 2]
    X[:, 8] = 3 * X[:, 6] - X[:, 7]
    solution, _ = solve(CG, X, y)
    (message,) = solution.warnings
    assert message.startswith("columns 0, 1, 2, 4, 6, 7, 8 depend on each other linearly")
    assert solution.status.converged


@pytest.mark.parametrize(
    ("difference", "status"),
    [
        (0.0, Status.SMALL_GRADIENT),
        (1e-8, Status.SMALL_GRADIENT),
        (1e-12, Status.TOO_DEPENDENT),
    ],
)
def test_cg_without_kept_directions_calls_only_rounding_a_dependence(difference, status):
    rng = np.random.default_rng(5)
    X, other = rng.standard_normal((800, 370)), rng.standard_normal(800)
    X = np.column_stack([X, X[:, 0] + X[:, 1] + difference * other])
    y = X[:, :5].sum(axis=1) + other
    solution, _ = solve(CG, X, y)
    assert solution.status is status
    messages = " ".join(solution.warnings)
    assert ("depend on each other linearly" in messages) == (difference == 0)
    assert ('solver="qr"' in messages) == (not status.converged)
    if status.converged:
        # all deviations are similar, so that norms are those of the weights as they are
        w = np.linalg.lstsq(X - X.mean(axis=0), y - y.mean(), rcond=1e-13)[0]
        assert np.abs(solution.coefficients[:, 0] - w).max() < 1e-3 * np.abs(w).max()


def test_columns_of_small_values_are_not_called_dependent_in_their_own_units():
    X, y = table(d=3)
    solution, _ = solve(ConjugateGradient(standardize=False), 1e-15 * X, y)
    assert not any("depend on each other linearly" in text for text in solution.warnings)
    # the intercept's column is 1e15 times as large, so that XᵀX loses theirs
    assert solution.status is Status.TOO_DEPENDENT


@pytest.mark.parametrize("l2", [0.0, 0.1])
def test_cg_converges_with_a_column_of_zeros_in_its_own_units(l2):
    X, y = table()
    X[:, 2] = 0
    solution, _ = solve(ConjugateGradient(standardize=False), X, y, l2=l2)
    assert solution.status is Status.SMALL_GRADIENT
    assert not solution.warnings
    exact = exact_fit(np.delete(X, 2, axis=1), y, l2=Fraction(l2))
    assert right_digits(np.delete(solution.coefficients[:, 0], 2), exact[:5]).min() > 12
    assert abs(solution.coefficients[2]) < 1e-30


@pytest.mark.parametrize("value", [3.0, -1e8, 1e-9])
@pytest.mark.parametrize("weighted", [False, True])
def test_cg_converges_with_a_constant_target_in_its_own_units(value, weighted):
    X, y = table(n=20, d=8)
    weight = np.random.default_rng(0).uniform(0.1, 5, len(y)) if weighted else None
    for Y in (np.full((len(y), 1), value), np.column_stack([np.full(len(y), value), y])):
        solution, _ = solve(ConjugateGradient(standardize=False), X, Y, weight)
        # weights are rounding, whose relative changes tell nothing
        assert solution.status.converged
        assert not solution.warnings
        assert abs(solution.coefficients[:, 0]).max() < 1e-15 * abs(value)
        assert solution.intercept[0] == pytest.approx(value, rel=1e-14)


def test_a_dependence_is_named_without_the_groups_that_were_named_before():
    X, y = table()
    X = np.column_stack([X, X[:, 4], X[:, 0] + X[:, 1]])
    first, second = solve(CG, X, y)[0].warnings
    assert first.startswith("columns 4, 6 are multiples of each other")
    assert second.startswith("columns 0, 1, 7 depend on each other linearly")


def test_equal_correlation_with_y_is_not_reported_as_duplicate():
    # a balanced design: every column has the same covariance with y
    X = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    assert not solve(CG, X, X.sum(axis=1))[0].warnings


def test_descent_reports_fewer_rows_than_columns():
    X, y = table(n=4)
    for solver in (CG, GD):
        messages = solve(solver, X, y)[0].warnings
        assert any("4 rows cannot determine the weights of 6 columns" in text for text in messages)


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize("value", [0.0, 7.3, 1e9 + 0.1, -1e-12, 1e300])
def test_a_constant_column_is_named_and_gets_no_weight(solver, bound, value):
    X, y = table()
    X[:, 2] = value
    solution, _ = solve(solver, X, y, feature_names=tuple("abcdef"))
    assert solution.coefficients[2] == 0
    others = replace(solution, coefficients=np.delete(solution.coefficients, 2, axis=0))
    assert error(others, *lstsq(np.delete(X, 2, axis=1), y)) < bound
    assert solution.warnings == ["column 2 ('c') is constant; coefficient set to 0"]


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
def test_a_column_of_zeros_is_named_without_intercept(solver, bound):
    X, y = table()
    X[:, 2] = 0
    solution, _ = solve(solver, X, y, fit_intercept=False)
    assert error(solution, *lstsq(X, y, fit_intercept=False)) < bound
    assert solution.warnings == ["column 2 is zero in every row; coefficient set to 0"]


@pytest.mark.parametrize(
    "solver", [ClosedForm(), QR(), CG, GD], ids=["closed_form", "qr", "cg", "gd"]
)
@pytest.mark.parametrize("value", [0.0, 3.3, -1e9, 1e200, 1e-200])
def test_a_constant_y_gives_only_an_intercept(solver, value):
    X, y = table()
    solution, _ = solve(solver, X, np.full(len(y), value))
    assert not solution.coefficients.any()
    assert solution.intercept == value
    assert solution.status.converged


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("y_power", [-400, 0, 400])
@pytest.mark.parametrize(
    "powers", [[664] * 6, [-664] * 6, [600, -600, 0, 0, 0, 0], [0, 1000, 0, 0, 0, 0]], ids=str
)
def test_values_far_from_1_have_the_weights_of_scaled_values(
    solver, bound, fit_intercept, y_power, powers
):
    # 2 to these powers is up to 1e300 and 1e-200, and rounds nothing
    X, y = table()
    scaled, y_scaled = np.ldexp(X, powers), np.ldexp(y, y_power)
    too_far = max(abs(y_power - power) for power in powers) > 1020
    if too_far:
        with pytest.raises(InputError, match="weights outside 1e-308 to 1e308"):
            solve(solver, scaled, y_scaled, fit_intercept=fit_intercept)
        return
    solution, _ = solve(solver, scaled, y_scaled, fit_intercept=fit_intercept)
    back = np.ldexp(solution.coefficients, np.array(powers)[:, None] - y_power)
    w, deviation = lstsq(X, y, fit_intercept=fit_intercept)
    assert error(replace(solution, coefficients=back), w, deviation) < bound


@pytest.mark.parametrize("n", [8, 60])
def test_conjugate_gradients_in_raw_units_find_penalised_weights_of_small_columns(n):
    rng = np.random.default_rng(0)
    for _ in range(6):
        size, l2 = 10.0 ** rng.uniform(-4.5, 4.5, 10), 10.0 ** rng.uniform(4, 8)
        X = rng.standard_normal((n, 10)) * size + rng.standard_normal(10)
        y = X @ (rng.standard_normal(10) / size) + 0.3 * rng.standard_normal(n)
        solution, _ = solve(ConjugateGradient(standardize=False), X, y, l2=l2)
        digits = right_digits(solution.coefficients[:, 0], exact_fit(X, y, l2=Fraction(l2))[:10])
        assert solution.status.converged
        assert digits.min() > 4


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
def test_a_penalty_zeroes_tiny_columns_and_leaves_huge_columns_free(solver, bound):
    X, y = table()
    powers = [664, -664, 0, 0, 0, 0]
    solution, _ = solve(solver, np.ldexp(X, powers), y, l2=0.1)
    # expected: column 1 has no weight, and column 0 has no penalty
    others = np.delete(X - X.mean(axis=0), 1, axis=1)
    penalty = np.sqrt(0.1 * len(X)) * np.diag([0.0, 1, 1, 1, 1])
    w = np.linalg.lstsq(
        np.vstack([others, penalty]), np.append(y - y.mean(), np.zeros(5)), rcond=None
    )[0]
    back = np.delete(np.ldexp(solution.coefficients, np.array(powers)[:, None]), 1, axis=0)
    deviation = np.delete(X.std(axis=0), 1)
    assert error(replace(solution, coefficients=back), w[:, None], deviation) < bound


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize("where", ["x", "y"])
def test_one_outlier_of_1e300_is_fitted_and_named(solver, bound, where):
    X, y = table()
    (X[:, 3] if where == "x" else y)[7] = 1e300
    solution, _ = solve(solver, X, y)
    unit = np.where(np.arange(6) == 3, 2.0**-996, 1.0) if where == "x" else np.ones(6)
    y_unit = 1.0 if where == "x" else 2.0**-996
    w, deviation = lstsq(X * unit, y * y_unit)
    back = solution.coefficients / unit[:, None] * y_unit
    assert error(replace(solution, coefficients=back), w, deviation) < bound
    (message,) = solution.warnings
    assert f"spread of {'column 3' if where == 'x' else 'y'}" in message


@pytest.mark.parametrize("kappa", [3, 1e2, 1e3, 1e4, 1e5, 1e6])
def test_closed_form_has_the_digits_that_it_promises(kappa):
    X, y = table(n=2000)
    X[:, 3] = X[:, 1] + X[:, 3] / kappa
    solution, _ = solve(ClosedForm(), X, y)
    found = error(solution, *lstsq(X, y))
    # the error of QR, which lstsq has too
    assert found < 100 * kappa * np.finfo(float).eps
    # forming XᵀX has a rounding error of kappa², which corrections remove
    assert (solution.n_epochs == 1) == (kappa == 3)
    assert solution.n_epochs <= 6
    assert solution.status.converged
    # without a correction, a bound of the worst case: 15 are right
    assert solution.digits.min() > (11 if kappa == 3 else 14)
    named = [text for text in solution.warnings if "nearly dependent, column" in text]
    assert bool(named) == (kappa >= 1e5)


def test_closed_form_names_columns_that_are_dependent_to_rounding():
    X, y = table(n=2000)
    X[:, 3] = X[:, 1] + X[:, 3] * 1e-8
    solution, _ = solve(ClosedForm(), X, y)
    (message,) = solution.warnings
    assert message.startswith(("column 1 depends linearly", "column 3 depends linearly"))
    assert "to the digits that XᵀX keeps" in message
    # a pass finds that they are independent
    assert solution.status is Status.COARSE_GRAM
    assert not solution.status.converged


@pytest.mark.parametrize("solver", [ClosedForm(), CG, GD])
def test_columns_hidden_by_weights_are_not_called_constant(solver):
    X, y = table(n=500)
    weight = np.ones(500)
    weight[77] = 1e40
    messages = " ".join(solve(solver, X, y, weight=weight)[0].warnings)
    assert "only in rows of negligible weight" in messages
    assert "constant; coefficients" not in messages


def test_columns_far_from_zero_are_named_without_intercept():
    X, y = table()
    for solver in (CG, GD):
        messages = solve(solver, X + 1e9, y, fit_intercept=False)[0].warnings
        assert any("over 10,000 deviations from zero" in text for text in messages)
    (message,) = solve(ClosedForm(), X + 1e9, y, fit_intercept=False)[0].warnings
    assert "depend linearly" in message
