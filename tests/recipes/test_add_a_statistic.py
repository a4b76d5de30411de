"""CONTRIBUTING.md's recipe "a statistic", followed: the covariances of marginal regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import laws
import numpy as np
import pytest
from sklearn.linear_model import LinearRegression as ScikitLearn

from streamreg import InputError, LinearRegression, plan
from streamreg.accumulators.base import Accumulator
from streamreg.solvers import registry
from streamreg.solvers.base import (
    EpochRecord,
    Footprint,
    PassFootprint,
    Solution,
    Solver,
    Status,
)

# 1. a state: float64 arrays in a named tuple, which merge without the rows


class Comoments(NamedTuple):
    weight: np.ndarray  #   ()     Σ sᵢ
    mean: np.ndarray  #     (D,)
    y_mean: np.ndarray  #   (K,)
    squares: np.ndarray  #  (D,)   Σ sᵢ (xᵢ - mean)²
    products: np.ndarray  # (D, K) Σ sᵢ (xᵢ - mean)(yᵢ - y_mean)


class Slopes(NamedTuple):
    slopes: np.ndarray  # (D, K)
    mean: np.ndarray  #   (D,)
    y_mean: np.ndarray  # (K,)


# 2. an accumulator: how a block is added, how two states merge, what they amount to


@dataclass(frozen=True)
class MarginalSlopes(Accumulator[Comoments, Slopes]):
    """cov(x_j, y) / var(x_j) of each column alone; merged as Chan, Golub & LeVeque 1983 do."""

    n_features: int
    n_targets: int
    scratch_nbytes: ClassVar[int] = 3 * 2**20  # three copies of 1 MiB of rows

    @property
    def state_nbytes(self) -> int:
        d, k = self.n_features, self.n_targets
        return 8 * (1 + 2 * d + k + d * k)

    def zero(self):
        d, k = self.n_features, self.n_targets
        return Comoments(*(np.zeros(shape) for shape in ((), d, k, d, (d, k))))

    def update(self, state, block, kernels):
        del kernels  # of loops that this statistic does not need
        height = max(1, 2**20 // (8 * self.n_features))
        for first in range(0, block.n_rows, height):
            rows = slice(first, first + height)
            weight = None if block.weight is None else block.weight[rows]
            state = self.merge(state, _comoments(block.X[rows], block.y[rows], weight))
        return state

    def merge(self, a, b):
        weight = a.weight + b.weight
        if weight == 0:
            return a
        share = b.weight / weight
        apart, y_apart = b.mean - a.mean, b.y_mean - a.y_mean
        return Comoments(
            weight,
            a.mean + share * apart,
            a.y_mean + share * y_apart,
            a.squares + b.squares + a.weight * share * apart**2,
            a.products + b.products + a.weight * share * np.outer(apart, y_apart),
        )

    def finalize(self, state):
        return Slopes(state.products / state.squares[:, None], state.mean, state.y_mean)

    def is_finite(self, state):
        return bool(np.isfinite(state.squares).all() and np.isfinite(state.products).all())


def _comoments(X, y, weight):
    X, y = X.astype(np.float64), y.astype(np.float64)
    s = np.ones(len(X)) if weight is None else weight
    mean, y_mean = s @ X / s.sum(), s @ y / s.sum()
    X, y = X - mean, y - y_mean
    return Comoments(s.sum(), mean, y_mean, s @ X**2, X.T @ (s[:, None] * y))


# 3. a solver that asks for it


class MarginalRegression(Solver):
    """w_j = cov(x_j, y) / var(x_j): exact where no two columns are correlated."""

    name = "marginal"
    summary = "uncorrelated columns, one pass, O(D) state"
    objective = "one regression a column"

    def footprint(self, problem):
        statistic = MarginalSlopes(problem.n_features, problem.n_targets)
        only = PassFootprint(statistic.state_nbytes, statistic.scratch_nbytes)
        return Footprint(
            (only,),
            solver_nbytes=2 * statistic.state_nbytes,
            n_passes=1,
            row_flops=4.0 * problem.n_features * problem.n_targets,
            is_exact=True,
        )

    def solve(self, problem, reduce, report, iterates):
        del iterates  # there are none: a resumed fit reads the saved result of its pass
        result = reduce(MarginalSlopes(problem.n_features, problem.n_targets))
        report(EpochRecord(1, np.nan, np.nan))
        intercept = result.y_mean - result.mean @ result.slopes
        return Solution(result.slopes, intercept, Status.SOLVED, 1, [])


# 4. a line in the registry


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(registry.SOLVERS, "marginal", lambda _: MarginalRegression())


def problem(n_rows=60_000):
    random = np.random.default_rng(0)
    X = random.standard_normal((n_rows, 5)) * [1, 10, 1, 1, 3] + 100
    y = X @ random.standard_normal((5, 2)) + random.standard_normal((n_rows, 2))
    return X, y, random.uniform(0.5, 2, n_rows)


@pytest.mark.parametrize("weighted", [False, True])
def test_each_slope_is_that_of_a_regression_on_one_column(weighted):
    X, y, weight = problem()
    weight = weight if weighted else None
    model = LinearRegression(solver="marginal").fit(X, y, weight)
    for j in range(X.shape[1]):
        alone = ScikitLearn().fit(X[:, [j]], y, weight)
        np.testing.assert_allclose(model.coef_[:, j], alone.coef_[:, 0], rtol=1e-9)


def test_threads_and_a_cluster_give_bitwise_identical_coefficients(client_here, store):
    X, y, _ = problem()
    X, y = store(X, "X.zarr", chunks=(7_000, 5)), store(y, "y.zarr", chunks=(60_000, 2))
    one, two, cluster = (
        LinearRegression(solver="marginal", **where).fit(X, y).coef_.tobytes()
        for where in ({"n_threads": 1}, {"n_threads": 2}, {"client": client_here})
    )
    assert one == two == cluster


def test_the_laws_of_accumulators_hold():
    X, y, weight = problem(60)
    rows = laws.Rows(X, y, weight)
    statistic = MarginalSlopes(5, 2)
    laws.assert_zero_is_neutral(statistic, rows)
    laws.assert_finalize_writes_nothing(statistic, rows)


def test_a_plan_names_it_beside_the_others():
    X, y, _ = problem(1000)
    table = plan(X, y, solver="marginal")
    assert set(table.candidates) == {"closed_form", "qr", "dual", "gd", "cg", "marginal"}
    assert "marginal ←" in str(table)


def test_nan_in_a_row_is_refused_by_its_place():
    X, y, _ = problem(1000)
    X[712, 3] = np.nan
    with pytest.raises(InputError, match=r"row 712, column 3"):
        LinearRegression(solver="marginal").fit(X, y)
