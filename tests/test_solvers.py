"""Solvers, given only ``reduce``: against NumPy's lstsq and scikit-learn's Ridge."""

from __future__ import annotations

from dataclasses import replace

import laws
import numpy as np
import pytest
from laws import Rows
from sklearn.linear_model import Ridge

from streamreg.errors import InputError
from streamreg.solvers.base import Problem, Status
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.gradient_descent import SteepestDescent

# The condition numbers below are at most 10 (standardised), so that ‖∇f‖ ≤ 1e-11·‖∇f at the
# start‖ bounds the error of a weight, in deviations of its column, by about 10² · 1e-11.
CG = ConjugateGradient(tol=1e-11)
# a loss that falls by 1e-12 of itself leaves √(10² · 1e-12), to some factor
GD = SteepestDescent(tol=1e-12, max_epochs=3000)
DIGITS = {ClosedForm(): 1e-9, CG: 1e-9, GD: 1e-4}
SOLVERS = [pytest.param(solver, bound, id=solver.name) for solver, bound in DIGITS.items()]


class Reduce:
    """A pass over rows in memory, in three segments; remembers what it was asked for."""

    def __init__(self, X, y, weight=None):
        y = np.asarray(y)
        rows = Rows(np.asarray(X), y if y.ndim == 2 else y[:, None], weight)
        n = len(rows.X)
        cuts = [0, n // 5, n // 2, n]
        self.segments = [rows.blocks([b - a], a) for a, b in zip(cuts, cuts[1:], strict=False)]
        self.asked = []

    def __call__(self, accumulator):
        self.asked.append(accumulator)
        # as the engine folds
        with np.errstate(all="ignore"):
            state = laws.reduce(accumulator, self.segments)
        return accumulator.finalize(state)


def solve(solver, X, y, weight=None, **problem):
    n_targets = 1 if np.ndim(y) == 1 else y.shape[1]
    reduce = Reduce(X, y, weight)
    solution = solver.solve(Problem(X.shape[1], n_targets, **problem), reduce, lambda _: None)
    return solution, reduce


def lstsq(X, y, weight=None, *, fit_intercept=True):
    """Return w and each column's deviation, (D, K) and (D,), from standardised columns."""
    X, y = X.astype(float), y.astype(float).reshape(len(X), -1)
    p = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
    if fit_intercept:
        # twice: the first mean is rounded
        for _ in range(2):
            X, y = X - p @ X, y - p @ y
    deviation = np.sqrt(p @ X**2)
    unit = np.where(deviation > 0, deviation, 1.0)
    root = np.sqrt(p)[:, None]
    w = np.linalg.lstsq(X / unit * root, y * root, rcond=1e-13)[0]
    return w / unit[:, None], deviation


def error(solution, w, deviation):
    """Return the largest difference of weights, in deviations, beside the largest weight."""
    size = deviation[:, None]
    return np.max(np.abs(solution.coefficients - w) * size) / np.max(np.abs(w) * size)


def table(n=600, d=6, k=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    y = X @ rng.standard_normal((d, k)) + 0.5 * rng.standard_normal((n, k)) + 3
    return X, y if k > 1 else y[:, 0]


def cases():
    X, y = table()
    rng = np.random.default_rng(1)
    sizes = 10.0 ** np.linspace(-6, 6, X.shape[1])
    yield "plain", X, y, None
    yield "many targets", *table(k=3), None
    yield "weights", X, y, rng.uniform(0.1, 5, len(X))
    yield "huge weights", X, y, rng.uniform(1, 2, len(X)) * 1e150
    yield "tiny weights", X, y, rng.uniform(1, 2, len(X)) * 1e-150
    yield "sizes from 1e-6 to 1e6", X * sizes, y, None
    yield "float32", X.astype("f4"), y.astype("f4"), None
    yield "float16", X.astype("f2"), y, None
    yield "bool and int", (X > 0), (10 * y).astype("i8"), None
    yield "big-endian", X.astype(">f8"), y.astype(">f4"), None
    yield "N = D + 1", *table(n=7, seed=4), None


def cases_about_the_mean():
    X, y = table()
    sizes = 10.0 ** np.linspace(-6, 6, X.shape[1])
    yield "offset 1e9", X + 1e9, y, None
    yield "y offset 1e9", X, y + 1e9, None
    yield "both", X - 1e9, y + 1e9, None
    yield "one column far away", X + 1e9 * (np.arange(6) == 2), y, None
    yield "offsets and sizes", (X + 1e6) * sizes, y, None
    yield "float32 offset", (X + 3e4).astype("f4"), y, None


def named(these):
    return [pytest.param(*case[1:], id=case[0]) for case in these]


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize(("X", "y", "weight"), named([*cases(), *cases_about_the_mean()]))
def test_weights_are_those_of_lstsq(solver, bound, X, y, weight):
    solution, _ = solve(solver, X, y, weight)
    assert error(solution, *lstsq(X, y, weight)) < bound
    assert solution.status.converged
    assert not solution.warnings


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize(("X", "y", "weight"), named(cases()))
def test_weights_without_intercept_are_those_of_lstsq(solver, bound, X, y, weight):
    solution, _ = solve(solver, X, y, weight, fit_intercept=False)
    assert error(solution, *lstsq(X, y, weight, fit_intercept=False)) < bound
    assert not solution.intercept.any()


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("X", "y", "weight"), named(cases()))
def test_a_penalty_is_that_of_ridge(solver, bound, fit_intercept, X, y, weight):
    l2 = 0.3
    solution, _ = solve(solver, X, y, weight, fit_intercept=fit_intercept, l2=l2)
    total = len(X) if weight is None else weight.sum()
    ridge = Ridge(alpha=l2 * total, fit_intercept=fit_intercept, solver="cholesky", tol=0)
    if total > 1e100 or total < 1e-100:
        # the same minimum; weights beyond 1e100 are too much for scikit-learn
        weight, ridge.alpha = weight / total, l2
    ridge.fit(X.astype(float), y, weight)
    w = np.atleast_2d(ridge.coef_).T
    _, deviation = lstsq(X, y, weight, fit_intercept=fit_intercept)
    assert error(solution, w, deviation) < bound
    # gd has the intercept as well as the weights: in deviations of y
    scale = np.std(y.astype(float))
    np.testing.assert_allclose(
        solution.intercept,
        np.ravel(ridge.intercept_) if fit_intercept else 0,
        atol=10 * bound * scale,
    )


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
def test_columns_with_a_penalty_are_scaled_by_it_too(solver, bound):
    X, y = table()
    X = X * 10.0 ** np.linspace(-3, 3, 6)
    solution, _ = solve(solver, X, y, l2=0.3)
    ridge = Ridge(alpha=0.3 * len(X), solver="svd").fit(X, y)
    assert error(solution, ridge.coef_[:, None], X.std(axis=0)) < bound
    # 80 epochs were needed by cg, and 10,000 by gd, when columns were scaled by deviations alone
    assert solution.n_epochs < 40


def test_two_million_rows_of_float32():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2_000_000, 4), dtype="f4") + np.float32(100)
    y = X @ np.array([1, -2, 3, -4], "f4") + rng.standard_normal(len(X), dtype="f4")
    w, deviation = lstsq(X, y)
    for solver in (ClosedForm(), CG):
        solution, _ = solve(solver, X, y)
        assert error(solution, w, deviation) < 1e-9


COLLINEAR = {
    "a column twice": lambda X: np.column_stack([X, X[:, 1]]),
    "a column thrice": lambda X: np.column_stack([X, X[:, 1], X[:, 1]]),
    "a column and its negative": lambda X: np.column_stack([X, -X[:, 1]]),
    "a sum of columns": lambda X: np.column_stack([X, X[:, 0] + X[:, 1] - X[:, 2]]),
    "one-hot": lambda X: np.column_stack([X, X[:, 0] > 0.5, X[:, 0] <= 0.5]).astype(float),
    "N < D": lambda X: X[:4],
    "N = D": lambda X: X[:6],
}


@pytest.mark.parametrize(
    "solver", [ClosedForm(), ConjugateGradient(tol=1e-12)], ids=["closed_form", "cg"]
)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("make", COLLINEAR.values(), ids=COLLINEAR.keys())
def test_dependent_columns_have_the_weights_of_least_norm(solver, fit_intercept, make):
    X, y = table()
    X = make(X)
    y = y[: len(X)]
    solution, _ = solve(solver, X, y, fit_intercept=fit_intercept)
    mean = fit_intercept * X.mean(axis=0)
    # NumPy's own: in the user's units, not standardised
    expected = np.linalg.lstsq(X - mean, y - fit_intercept * y.mean(), rcond=1e-10)[0]
    w, b = solution.coefficients[:, 0], solution.intercept[0]
    fitted = (X - mean) @ expected + fit_intercept * y.mean()
    np.testing.assert_allclose(X @ w + b, fitted, atol=1e-9 * np.std(y))
    np.testing.assert_allclose(w, expected, atol=1e-9 * np.max(np.abs(expected)))


@pytest.mark.parametrize("make", COLLINEAR.values(), ids=COLLINEAR.keys())
def test_closed_form_names_dependent_columns(make):
    X, y = table()
    X = make(X)
    solution, _ = solve(ClosedForm(), X, y[: len(X)])
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


def test_columns_that_are_only_alike_to_y_are_not_taken_for_multiples():
    # a balanced design: every column has the same covariance with y
    X = np.array(np.meshgrid(*[[-1.0, 1.0]] * 4)).reshape(4, -1).T
    assert not solve(CG, X, X.sum(axis=1))[0].warnings


def test_rows_too_few_for_the_columns_are_told_by_descent():
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
    assert solution.warnings == ["column 2 ('c') is constant; coefficients set to 0"]


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
def test_a_column_of_zeros_is_named_without_intercept(solver, bound):
    X, y = table()
    X[:, 2] = 0
    solution, _ = solve(solver, X, y, fit_intercept=False)
    assert error(solution, *lstsq(X, y, fit_intercept=False)) < bound
    assert solution.warnings == ["column 2 is zero in every row; coefficients set to 0"]


@pytest.mark.parametrize("solver", [ClosedForm(), CG, GD], ids=["closed_form", "cg", "gd"])
@pytest.mark.parametrize("value", [0.0, 3.3, -1e9, 1e200, 1e-200])
def test_a_constant_y_is_its_intercept(solver, value):
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
def test_values_far_from_1_have_the_weights_of_scaled_ones(
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


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
def test_a_penalty_holds_tiny_columns_at_nothing_and_huge_ones_not_at_all(solver, bound):
    X, y = table()
    powers = [664, -664, 0, 0, 0, 0]
    solution, _ = solve(solver, np.ldexp(X, powers), y, l2=0.1)
    # column 1 is left out, column 0 free
    kept = np.delete(X - X.mean(axis=0), 1, axis=1)
    penalty = np.sqrt(0.1 * len(X)) * np.diag([0.0, 1, 1, 1, 1])
    w = np.linalg.lstsq(
        np.vstack([kept, penalty]), np.append(y - y.mean(), np.zeros(5)), rcond=None
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


@pytest.mark.parametrize("kappa", [1e2, 1e3, 1e4, 1e5, 1e6])
def test_closed_form_keeps_the_digits_that_it_promises(kappa):
    X, y = table(n=2000)
    X[:, 3] = X[:, 1] + X[:, 3] / kappa
    solution, _ = solve(ClosedForm(), X, y)
    found = error(solution, *lstsq(X, y))
    # of either side: lstsq has a part in the difference
    assert found < 100 * kappa * np.finfo(float).eps
    # forming XᵀX alone leaves kappa² of rounding; corrections make up for it
    assert solution.n_epochs == (1 if kappa < 300 else solution.n_epochs) <= 5
    named = [text for text in solution.warnings if "nearly dependent, column" in text]
    assert bool(named) == (kappa >= 1e5)


def test_columns_too_alike_for_the_closed_form_are_named():
    X, y = table(n=2000)
    X[:, 3] = X[:, 1] + X[:, 3] * 1e-8
    (message,) = solve(ClosedForm(), X, y)[0].warnings
    assert message.startswith(("column 1 depends linearly", "column 3 depends linearly"))


def test_columns_far_from_zero_are_named_without_intercept():
    X, y = table()
    for solver in (CG, GD):
        messages = solve(solver, X + 1e9, y, fit_intercept=False)[0].warnings
        assert any("over 10,000 deviations from zero" in text for text in messages)
    (message,) = solve(ClosedForm(), X + 1e9, y, fit_intercept=False)[0].warnings
    assert "depend linearly" in message


def test_closed_form_reads_the_rows_once():
    for X, y in (table(), (np.column_stack([table()[0], np.zeros(600)]), table()[1])):
        solution, reduce = solve(ClosedForm(), X, y)
        assert len(reduce.asked) == solution.n_epochs == 1


def test_descent_reads_the_rows_once_before_its_first_epoch():
    for solver in (CG, GD):
        solution, reduce = solve(solver, *table())
        assert len(reduce.asked) == solution.n_epochs + 1


@pytest.mark.parametrize("solver", [ClosedForm(), CG, GD], ids=["closed_form", "cg", "gd"])
def test_no_pass_keeps_more_than_the_footprint_says(solver):
    X, y = table(k=2)
    X[:, 3] = X[:, 1] + X[:, 3] * 1e-5
    _, reduce = solve(solver, X * 1e200, y)
    planned = solver.footprint(Problem(6, 2)).passes
    for accumulator in reduce.asked:
        assert any(
            accumulator.state_nbytes <= each.state_nbytes
            and accumulator.scratch_nbytes <= each.scratch_nbytes
            for each in planned
        ), type(accumulator)
