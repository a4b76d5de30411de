"""CONTRIBUTING.md's recipe "a solver", followed: FISTA, with an l1 penalty.

Beck & Teboulle 2009, "A fast iterative shrinkage-thresholding algorithm for linear inverse
problems", SIAM J. Imaging Sciences 2(1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from problems import Reduce
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso

from streamreg import InputError, LinearRegression, MemoryLimitError, plan
from streamreg.accumulators.gradient import gradient_nbytes
from streamreg.accumulators.moments import Moments
from streamreg.solvers import registry
from streamreg.solvers.base import (
    NO_ITERATE_STORE,
    EpochRecord,
    Footprint,
    PassFootprint,
    Problem,
    Solution,
    Solver,
    Status,
)
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.penalties import Penalty

# 1. a penalty: a sibling of l2


@dataclass(frozen=True)
class L1Penalty(Penalty):
    """λ‖w‖₁, of the lasso."""

    name = "l1"

    def value(self, w, x_scale=1.0):
        return self.strength * np.abs(x_scale * w).sum(axis=0)

    def shrink(self, w, step):
        """Return argmin_v ½‖v - w‖² + step·λ‖v‖₁."""
        return np.sign(w) * np.maximum(np.abs(w) - step * self.strength, 0)


# 2. a solver: what it needs, known without data, and how it asks for passes


class Iterate(NamedTuple):
    w: np.ndarray  #        (D, K)
    b: np.ndarray  #        (K,)
    w_ahead: np.ndarray  #  (D, K) where the next gradient is taken
    b_ahead: np.ndarray  #  (K,)
    momentum: np.ndarray  # ()
    losses: np.ndarray  #   (epochs,) f, summed over targets


@dataclass(frozen=True)
class Fista(Solver):
    """Proximal gradient descent with momentum: an error of O(1/k²) after k epochs."""

    name = "fista"
    summary = "sparse weights, O(D) state"

    l1: float  # λ
    max_epochs: int
    tol: float

    def penalty(self, l2):
        del l2  # a fit refuses it
        return L1Penalty(self.l1)

    def footprint(self, problem):
        d, k = problem.n_features, problem.n_targets
        moments = Moments(d, k)
        return Footprint(
            (
                PassFootprint(*gradient_nbytes(d, k, k)),
                PassFootprint(moments.state_nbytes, moments.scratch_nbytes),
            ),
            solver_nbytes=8 * 8 * (d + 1) * k,
            n_passes=min(200, self.max_epochs) + 1,
            row_flops=4.0 * d * k,
        )

    def identity(self):
        return {**super().identity(), "l1": self.l1, "tol": self.tol}

    def solve(self, problem, reduce, report, iterates):
        d, k = problem.n_features, problem.n_targets
        moments = reduce(Moments(d, k))
        # the trace of the Hessian bounds its largest eigenvalue; the intercept adds 1
        step = 1 / (np.sum(moments.deviation**2 + moments.mean**2) + 1)
        w, b = np.zeros((d, k)), np.zeros(k)
        now = iterates.load(Iterate(w, b, w, b, np.ones(()), np.empty(0)))
        status = None
        while status is None and len(now.losses) < self.max_epochs:
            iterates.save(now)
            before, now = now, self._advance(problem, reduce, step, now)
            moved = max(np.abs(now.w - before.w).max(), np.abs(now.b - before.b).max())
            report(EpochRecord(len(now.losses), float(now.losses[-1]), np.nan))
            if moved <= self.tol * np.abs(now.w).max():
                status = Status.SMALL_GRADIENT
        losses = now.losses.tolist()
        return Solution(now.w, now.b, status or Status.OUT_OF_EPOCHS, len(losses), losses)

    def _advance(self, problem, reduce, step, now):
        result = reduce(problem.loss.accumulator(now.w_ahead, now.b_ahead, problem.n_targets))
        loss = problem.loss.value(result) + problem.penalty.value(now.w_ahead)
        w = problem.penalty.shrink(now.w_ahead - step * result.gradient, step)
        b = now.b_ahead - step * result.bias if problem.fit_intercept else now.b
        momentum = (1 + np.sqrt(1 + 4 * now.momentum**2)) / 2
        beyond = (now.momentum - 1) / momentum
        return Iterate(
            w,
            b,
            w + beyond * (w - now.w),
            b + beyond * (b - now.b),
            momentum,
            np.append(now.losses, loss.sum()),
        )


# 3. a line in the registry


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(
        registry.SOLVERS,
        "fista",
        lambda settings: Fista(0.1, settings.max_epochs, settings.tol),
    )


@pytest.fixture(scope="module")
def problem():
    """X (30 000, 8), half of whose columns have no effect on y (30 000,)."""
    random = np.random.default_rng(0)
    X = random.standard_normal((30_000, 8)) + 0.5
    y = X @ [3, -2, 0, 0, 1, 0, 0.05, 0] + 7 + random.standard_normal(len(X))
    return X, y


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_the_weights_are_those_of_the_lasso_of_scikit_learn(problem, fit_intercept):
    model = LinearRegression(solver="fista", fit_intercept=fit_intercept, tol=1e-10).fit(*problem)
    lasso = Lasso(alpha=0.1, fit_intercept=fit_intercept, tol=1e-12).fit(*problem)
    np.testing.assert_allclose(model.coef_, lasso.coef_, atol=1e-6)
    np.testing.assert_allclose(model.intercept_, lasso.intercept_, atol=1e-6)
    assert np.array_equal(model.coef_ == 0, lasso.coef_ == 0)
    assert model.n_iter_ == len(model.loss_history_) < 1000


def test_the_loss_is_the_objective_of_the_lasso(problem):
    X, y = problem
    losses = LinearRegression(solver="fista", tol=1e-10).fit(X, y).loss_history_
    lasso = Lasso(alpha=0.1, tol=1e-12).fit(X, y)
    least = 0.5 * np.mean((lasso.predict(X) - y) ** 2) + 0.1 * np.abs(lasso.coef_).sum()
    np.testing.assert_allclose([losses[0], losses[-1]], [0.5 * np.mean(y**2), least], rtol=1e-10)


def test_l2_is_refused_because_the_lasso_has_none(problem):
    says = r'l2=1.0 has no effect with solver="fista", which minimises least squares, with l1'
    with pytest.raises(InputError, match=says):
        LinearRegression(solver="fista", l2=1.0).fit(*problem)


@pytest.mark.parametrize("solver", [ClosedForm(), ConjugateGradient()])
def test_solvers_of_linear_equations_refuse_another_penalty(problem, solver):
    X, y = problem
    lasso = Problem(X.shape[1], 1, penalty=L1Penalty(0.1))
    with pytest.raises(InputError, match="l1 is not a quadratic penalty"):
        solver.solve(lasso, Reduce(X, y), lambda _: None, NO_ITERATE_STORE)


def test_a_refusal_offers_no_solver_of_another_objective(problem):
    limit = plan(*problem).candidates["fista"].needed_nbytes
    refused = plan(*problem, memory_limit=limit, solver="closed_form")
    assert [name for name, each in refused.candidates.items() if each.fits] == ["fista"]
    with pytest.raises(MemoryLimitError, match="Raise memory_limit to") as caught:
        refused.require_fit()
    assert "fista" not in str(caught.value)


def test_threads_and_a_cluster_give_bitwise_identical_coefficients(problem, client_here, store):
    X, y = store(problem[0], "X.zarr", chunks=(7_000, 8)), store(problem[1], "y.zarr")
    one, two, cluster = (
        LinearRegression(solver="fista", tol=1e-5, **where).fit(X, y).coef_.tobytes()
        for where in ({"n_threads": 1}, {"n_threads": 2}, {"client": client_here})
    )
    assert one == two == cluster


def test_a_fit_that_ran_out_of_epochs_is_resumed_to_the_same_bits(problem, tmp_path):
    path = tmp_path / "checkpoint"
    whole = LinearRegression(solver="fista").fit(*problem)
    with pytest.warns(ConvergenceWarning, match="fista did not converge in 20 epochs"):
        LinearRegression(solver="fista", max_epochs=20, checkpoint=path).fit(*problem)
    resumed = LinearRegression(solver="fista", checkpoint=path).fit(*problem)
    assert resumed.coef_.tobytes() == whole.coef_.tobytes()
    assert resumed.loss_history_ == whole.loss_history_
