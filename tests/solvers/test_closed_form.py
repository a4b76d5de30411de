"""Solvers, given only ``reduce``: against NumPy's lstsq and scikit-learn's Ridge."""

from __future__ import annotations

import numpy as np
import pytest
from problems import error, lstsq, solve, table
from sklearn.linear_model import Ridge

from streamreg.solvers.base import Problem
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.gradient_descent import GradientDescent
from streamreg.solvers.qr import QR

# The condition numbers below are at most 10 (standardised), so that ‖∇f‖ ≤ 1e-11·‖∇f at the
# start‖ bounds the error of a weight, in deviations of its column, by about 10² · 1e-11.
CG = ConjugateGradient(tol=1e-11)
# a loss that falls by 1e-12 of itself leaves an error of √(10² · 1e-12), up to a factor
GD = GradientDescent(tol=1e-12, max_epochs=3000)
DIGITS = {ClosedForm(): 1e-9, QR(): 1e-9, CG: 1e-9, GD: 1e-4}
SOLVERS = [pytest.param(solver, bound, id=solver.name) for solver, bound in DIGITS.items()]


def cases():
    X, y = table()
    rng = np.random.default_rng(1)
    sizes = 10.0 ** np.linspace(-6, 6, X.shape[1])
    yield "plain", X, y, None
    yield "many targets", *table(k=3), None
    yield "weights", X, y, rng.uniform(0.1, 5, len(X))
    yield "huge weights", X, y, rng.uniform(1, 2, len(X)) * 1e110
    yield "tiny weights", X, y, rng.uniform(1, 2, len(X)) * 1e-110
    yield "sizes from 1e-6 to 1e6", X * sizes, y, None
    yield "float32", X.astype("f4"), y.astype("f4"), None
    yield "float16", X.astype("f2"), y, None
    yield "bool and int", (X > 0), (10 * y).astype("i8"), None
    yield "big-endian", X.astype(">f8"), y.astype(">f4"), None
    X = np.sqrt(7) * np.linalg.qr(rng.standard_normal((7, 6)))[0]
    yield "N = D + 1", X, y[:7], None


def cases_about_the_mean():
    X, y = table()
    sizes = 10.0 ** np.linspace(-6, 6, X.shape[1])
    yield "offset 1e9", X + 1e9, y, None
    yield "y offset 1e9", X, y + 1e9, None
    yield "both", X - 1e9, y + 1e9, None
    yield "one column far away", X + 1e9 * (np.arange(6) == 2), y, None
    yield "offsets and sizes", (X + 1e6) * sizes, y, None
    yield "float32 offset", (X + 3e4).astype("f4"), y, None


def named(named_cases):
    return [pytest.param(*values, id=name) for name, *values in named_cases]


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize(("X", "y", "weight"), named([*cases(), *cases_about_the_mean()]))
def test_weights_equal_lstsq(solver, bound, X, y, weight):
    solution, _ = solve(solver, X, y, weight)
    assert error(solution, *lstsq(X, y, weight)) < bound
    assert solution.status.converged
    assert not solution.warnings


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize(("X", "y", "weight"), named(cases()))
def test_weights_without_intercept_equal_lstsq(solver, bound, X, y, weight):
    solution, _ = solve(solver, X, y, weight, fit_intercept=False)
    assert error(solution, *lstsq(X, y, weight, fit_intercept=False)) < bound
    assert not solution.intercept.any()


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("X", "y", "weight"), named(cases()))
def test_penalised_weights_equal_ridge(solver, bound, fit_intercept, X, y, weight):
    l2 = 0.3
    solution, _ = solve(solver, X, y, weight, fit_intercept=fit_intercept, l2=l2)
    total = len(X) if weight is None else weight.sum()
    ridge = Ridge(alpha=l2 * total, fit_intercept=fit_intercept, solver="cholesky", tol=0)
    if total > 1e100 or total < 1e-100:
        # the same minimum, because scikit-learn fails with weights beyond 1e100
        weight, ridge.alpha = weight / total, l2
    ridge.fit(X.astype(float), y, weight)
    w = np.atleast_2d(ridge.coef_).T
    _, deviation = lstsq(X, y, weight, fit_intercept=fit_intercept)
    assert error(solution, w, deviation) < bound
    # gd iterates on the intercept too; its error is in deviations of y
    scale = np.std(y.astype(float))
    np.testing.assert_allclose(
        solution.intercept,
        np.ravel(ridge.intercept_) if fit_intercept else 0,
        atol=10 * bound * scale,
    )


@pytest.mark.parametrize(("solver", "bound"), SOLVERS)
def test_scales_of_columns_include_the_penalty(solver, bound):
    X, y = table()
    X = X * 10.0 ** np.linspace(-3, 3, 6)
    solution, _ = solve(solver, X, y, l2=0.3)
    ridge = Ridge(alpha=0.3 * len(X), solver="svd").fit(X, y)
    assert error(solution, ridge.coef_[:, None], X.std(axis=0)) < bound
    # scaled by deviations alone, cg needed 80 epochs and gd 10,000
    assert solution.n_epochs < 40


def test_two_million_rows_of_float32_equal_lstsq():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2_000_000, 4), dtype="f4") + np.float32(100)
    y = X @ np.array([1, -2, 3, -4], "f4") + rng.standard_normal(len(X), dtype="f4")
    w, deviation = lstsq(X, y)
    for solver in (ClosedForm(), CG):
        solution, _ = solve(solver, X, y)
        assert error(solution, w, deviation) < 1e-9


def test_closed_form_reads_the_rows_once():
    for X, y in (table(), (np.column_stack([table()[0], np.zeros(600)]), table()[1])):
        solution, reduce = solve(ClosedForm(), X, y)
        assert len(reduce.asked) == solution.n_epochs == 1


def test_descent_reads_the_rows_once_before_its_first_epoch():
    for solver in (CG, GD):
        solution, reduce = solve(solver, *table())
        assert len(reduce.asked) == solution.n_epochs + 1


@pytest.mark.parametrize(
    "solver", [ClosedForm(), QR(), CG, GD], ids=["closed_form", "qr", "cg", "gd"]
)
def test_no_pass_needs_more_memory_than_its_footprint(solver):
    X, y = table(k=2)
    X[:, 3] = X[:, 1] + X[:, 3] * 1e-5
    _, reduce = solve(solver, X * 1e200, y)
    planned = solver.footprint(Problem(6, 2)).passes
    for accumulator in reduce.asked:
        assert any(
            accumulator.state_nbytes <= each.state_nbytes
            and accumulator.scratch_nbytes
            <= each.scratch_nbytes + each.fixed_nbytes + each.part_row_nbytes * (each.tile_rows + 1)
            for each in planned
        ), type(accumulator)
