"""The loop that gradient descent and conjugate gradients share: it counts, checks and stops."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.gradient import gradient_state_nbytes
from streamreg.accumulators.moments import Moments
from streamreg.errors import DivergenceError
from streamreg.kernels import cpu
from streamreg.solvers.base import EpochRecord, Footprint, Solution, Solver, Status
from streamreg.solvers.coordinates import Coordinates, standardise

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Reduce, Report

# a loss this small beside the first is rounding: the square of float64's last digit
_NOTHING = np.finfo(float).eps ** 2
# θ, ∇f, the direction, ∇²f·d, both as columns of coefficients, and what is made of them
_VECTORS = 14


@dataclass(frozen=True, eq=False)
class Iterate:
    """Where a descent stands: all that the next epoch needs.

    Attributes
    ----------
    theta, gradient, direction
        (D + 1, K) in coordinates; the direction of the next epoch.
    loss
        (K,) f at θ.
    start_norm
        (K,) ‖∇f‖ where the fit began.
    epoch
        Epochs done.
    drift
        How far ∇f, computed anew, lay from what the epoch before foretold, in parts of itself.
    """

    theta: Float64
    gradient: Float64
    direction: Float64
    loss: Float64
    start_norm: Float64
    epoch: int = 0
    drift: float = 0.0

    @property
    def gradient_norm(self) -> Float64:
        """‖∇f‖ of each target."""
        return np.asarray(np.linalg.norm(self.gradient, axis=0))

    @property
    def relative_norm(self) -> float:
        """‖∇f‖ beside what it was at the start; of several targets the largest."""
        start = np.where(self.start_norm > 0, self.start_norm, 1.0)
        return float(np.max(self.gradient_norm / start))


@dataclass(frozen=True, eq=False)
class Descent(Solver):
    """One pass an epoch, O(D) state.

    Parameters
    ----------
    standardize
        Work in centred, scaled coordinates.
    max_epochs, tol
        When to stop.
    init
        w to start from, (D, K) in the user's units; ``None`` for zeros.
    """

    standardize: bool = True
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None

    @abstractmethod
    def advance(self, coordinates: Coordinates, reduce: Reduce, iterate: Iterate) -> Iterate:
        """Run one epoch."""

    @abstractmethod
    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        """Say whether the epoch between the two was the last."""

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        moments = Moments(d, k)
        return Footprint(
            state_nbytes=max(gradient_state_nbytes(d, 2 * k, k), moments.state_nbytes),
            scratch_nbytes=max(cpu.products_scratch_nbytes(d, 2 * k), moments.scratch_nbytes),
            solver_nbytes=8 * _VECTORS * (d + 1) * k,
        )

    def solve(self, problem: Problem, reduce: Reduce, report: Report) -> Solution:
        coordinates, iterate, warnings = self._begin(problem, reduce)
        first_loss = iterate.loss
        history = [coordinates.user_loss(iterate.loss)]
        status = self._settled(iterate)
        while status is None and iterate.epoch < self.max_epochs:
            before, iterate = iterate, self.advance(coordinates, reduce, iterate)
            if not np.isfinite(iterate.loss).all():
                raise DivergenceError(
                    f"the loss left the finite numbers in epoch {iterate.epoch} of {self.name}; "
                    "are there values beyond 1e300 in the data, or in init?"
                )
            loss = coordinates.user_loss(iterate.loss)
            history.append(loss)
            report(EpochRecord(iterate.epoch, history[-2], iterate.relative_norm))
            status = self.verdict(before, iterate)
            if status is None and (iterate.loss <= _NOTHING * first_loss).all():
                status = Status.EXACT_FIT
        coefficients, intercept = coordinates.to_user(iterate.theta)
        return Solution(
            coefficients, intercept, status or Status.OUT_OF_EPOCHS,
            iterate.epoch, history, warnings,
        )  # fmt: skip

    def _begin(
        self, problem: Problem, reduce: Reduce
    ) -> tuple[Coordinates, Iterate, list[str]]:
        warnings: list[str] = []
        evaluation = None
        d, k = problem.n_features, problem.n_targets
        if self.standardize:
            coordinates, theta, evaluation, warnings = standardise(problem, reduce)
        else:
            coordinates, theta = Coordinates.raw(problem), np.zeros((d + 1, k))
        if self.init is not None:
            theta = np.vstack([coordinates.weights_from_user(self.init), theta[-1:]])
            evaluation = None
        if evaluation is None:
            evaluation = coordinates.evaluate(reduce, theta)
        gradient = evaluation.gradient
        iterate = Iterate(
            theta, gradient, -gradient, evaluation.loss,
            start_norm=np.asarray(np.linalg.norm(gradient, axis=0)),
        )  # fmt: skip
        return coordinates, iterate, warnings

    def _settled(self, iterate: Iterate) -> Status | None:
        """Whether there is nothing to do: y is fitted already, or does not depend on X at all."""
        noise = 4 * np.finfo(float).eps * np.sqrt(2 * iterate.loss)
        return Status.SMALL_GRADIENT if (iterate.start_norm <= noise).all() else None


def line_search(coordinates: Coordinates, reduce: Reduce, iterate: Iterate) -> Iterate:
    """Run one pass and go to the least loss along the iterate's direction p.

    The step is α = -∇f·p / p·∇²f·p, and ∇f + α∇²f·p the gradient there. The pass gives ∇f and f at
    its start anew, so that what rounding does to the recurrence lasts no longer than an epoch.
    """
    p = iterate.direction
    loss, gradient, curvature = coordinates.evaluate(reduce, iterate.theta, p)
    slope = np.sum(gradient * p, axis=0)
    bend = np.sum(p * curvature, axis=0)
    # a target that has arrived has no direction left
    step = np.where((bend > 0) & (slope < 0), -slope / np.where(bend > 0, bend, 1.0), 0.0)
    off = np.linalg.norm(gradient - iterate.gradient, axis=0)
    norm = np.linalg.norm(gradient, axis=0)
    return replace(
        iterate,
        theta=iterate.theta + step * p,
        gradient=gradient + step * curvature,
        loss=np.maximum(loss + 0.5 * step * slope, 0.0),
        epoch=iterate.epoch + 1,
        drift=float(np.max(off / np.where(norm > 0, norm, 1.0))),
    )
