"""The loop that gradient descent and conjugate gradients share: it counts, checks and stops."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from streamreg.accumulators.gradient import gradient_state_nbytes
from streamreg.accumulators.moments import Moments
from streamreg.errors import DivergenceError, InputError, Message, Parameter, Part, Remedy
from streamreg.formatting import format_nbytes
from streamreg.kernels import numpy as numpy_kernels
from streamreg.solvers.base import (
    EPS,
    NO_ITERATE_STORE,
    EpochRecord,
    Footprint,
    PassFootprint,
    Solution,
    Solver,
    Status,
    Work,
)
from streamreg.solvers.diagnostics import duplicate_warnings
from streamreg.solvers.standardization import Coordinates, standardise

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import IterateStore, Problem, Reduce, Report
    from streamreg.solvers.standardization import Evaluation

    Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]

# a gradient that lies so far from what was foretold, in parts of itself, is rounding
ROUNDING_DRIFT = 0.1
# of the loss, where residuals are what rounding and the columns' condition leave of y
_NOTHING = 1e-20
# θ, ∇f, the direction, ∇²f·d, both as columns of coefficients, the coordinates, and what is made
# of them
_VECTORS = 24


class Iterate(NamedTuple):
    """Where a descent stands: all that the next epoch needs.

    Attributes
    ----------
    theta, gradient
        (D + 1, K) in coordinates.
    direction
        (D + 1, K) where the next epoch goes; of a constant step, where the last one went.
    loss
        (K,) f at θ.
    measured_loss, decrease
        (K,) f where the last pass was, and by how much the last epoch lowered it, worked out from
        gradients: the difference of two losses would be rounding long before the gradient is.
    start_norm, start_loss
        (K,) ‖∇f‖ and f where the fit began, or at w = 0 if they are larger there.
    lowest_norm, idle_epochs
        (K,) the smallest ‖∇f‖ so far, and the epochs since it was last halved.
    arrived, stalled
        (K,) targets that met the tolerance, and those whose gradient is rounding.
    losses
        (epochs + 1,) f at the start of each epoch and now, summed over targets, in the user's
        units.
    """

    theta: Float64
    gradient: Float64
    direction: Float64
    loss: Float64
    measured_loss: Float64
    decrease: Float64
    start_norm: Float64
    start_loss: Float64
    lowest_norm: Float64
    idle_epochs: Float64
    arrived: Flags
    stalled: Flags
    losses: Float64

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.losses) - 1

    @property
    def gradient_norm(self) -> Float64:
        """‖∇f‖ of each target."""
        return np.asarray(np.linalg.norm(self.gradient, axis=0))

    @property
    def relative_norm(self) -> float:
        """‖∇f‖ beside what it was at the start; of several targets the largest."""
        start = np.where(self.start_norm > 0, self.start_norm, 1.0)
        return float(np.max(self.gradient_norm / start))

    @property
    def fits_exactly(self) -> Flags:
        """Targets whose loss is rounding: of D + 1 terms that cancel, squared."""
        rounding = (16 * EPS) ** 2 * len(self.theta)
        return np.asarray(self.measured_loss <= rounding * self.start_loss)

    @property
    def end_by_rounding(self) -> Status:
        """Why a fit stops whose gradients are rounding: nothing is left of the loss, or of them."""
        nothing = self.measured_loss <= _NOTHING * self.start_loss
        return Status.EXACT_FIT if nothing.all() else Status.STALLED


@dataclass(frozen=True, eq=False)
class IterativeSolver(Solver):
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

    typical_epochs: ClassVar[int]

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

    def doubts(self, last: Iterate, status: Status | None) -> list[str]:
        """Return warnings about a fit that met its tolerance, where it is no reason to stop."""
        del last, status
        return []

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        moments = Moments(d, k)
        # with a direction, and without
        shapes = [
            (gradient_state_nbytes(d, m, k), numpy_kernels.products_scratch_nbytes(d, m))
            for m in (2 * k, k)
        ]
        shapes.append((moments.state_nbytes, moments.scratch_nbytes))
        passes = tuple(
            PassFootprint(state, scratch, why=f"{format_nbytes(state)} each")
            for state, scratch in shapes
        )
        return Footprint(passes, solver_nbytes=8 * _VECTORS * (d + 1) * k)

    def work(self, problem: Problem, n_rows: int) -> Work:
        # two products with X and two with its transpose: of the residual, and along a direction
        return Work(pass_flops=8.0 * n_rows * problem.n_features * problem.n_targets)

    def passes(self) -> int:
        # and one for the means and deviations
        return min(self.typical_epochs, self.max_epochs) + 1

    def identity(self) -> dict[str, Any]:
        start = None if self.init is None else np.ascontiguousarray(self.init)
        return {
            **super().identity(),
            "standardize": self.standardize,
            "tol": self.tol,
            "init": "zeros" if start is None else f"{zlib.crc32(start.data):08x}",
        }

    # what leaves float64's range is looked for, and told in words
    @np.errstate(all="ignore")
    def solve(
        self,
        problem: Problem,
        reduce: Reduce,
        report: Report,
        iterates: IterateStore = NO_ITERATE_STORE,
    ) -> Solution:
        coordinates, iterate, warnings = self._begin(problem, reduce)
        iterate = iterates.load(iterate)
        if iterate.epoch > self.max_epochs:
            raise InputError(
                Message(
                    Parameter("max_epochs", self.max_epochs),
                    f" but the checkpoint is of a fit that has run {iterate.epoch} epochs; pass "
                    "more, or remove the checkpoint to start again",
                )
            )
        status = Status.SMALL_GRADIENT if iterate.arrived.all() else None
        while status is None and iterate.epoch < self.max_epochs:
            iterates.save(iterate)
            before, iterate = iterate, self.advance(coordinates, reduce, iterate)
            self._require_finite(iterate)
            report(EpochRecord(iterate.epoch, float(iterate.losses[-2]), iterate.relative_norm))
            status = self.verdict(before, iterate)
        coefficients, intercept = coordinates.to_user(iterate.theta)
        warnings += self.doubts(iterate, status)
        return Solution(
            coefficients, intercept, status or Status.OUT_OF_EPOCHS,
            iterate.epoch, iterate.losses.tolist(), warnings,
        )  # fmt: skip

    def _begin(self, problem: Problem, reduce: Reduce) -> tuple[Coordinates, Iterate, list[str]]:
        theta = np.zeros((problem.n_features + 1, problem.n_targets))
        coordinates, warnings = Coordinates.raw(problem), []
        at_zero: Evaluation | None = None
        if self.standardize:
            start = standardise(problem, reduce)
            coordinates, at_zero, warnings = start.coordinates, start.evaluation, start.warnings
            if problem.penalty.is_zero:
                warnings += duplicate_warnings(
                    problem,
                    start.evaluation.gradient,
                    # to columns of deviation 1; constant ones become 0
                    np.where(start.spread > 0, coordinates.scale / start.spread, 0.0),
                    lambda d: coordinates.evaluate(reduce, np.zeros_like(d), d).curvature,
                )
        if self.init is not None:
            theta[:-1] = coordinates.weights_from_user(self.init)
        if self.init is not None or at_zero is None:
            now = coordinates.evaluate(reduce, theta)
        else:
            now = at_zero
        norms = [np.linalg.norm(e.gradient, axis=0) for e in (now, at_zero or now)]
        start_norm, start_loss = np.maximum(*norms), np.maximum(now.loss, (at_zero or now).loss)
        # y is fitted already, or does not depend on X at all: what is left is rounding
        noise = 4 * EPS * np.sqrt(2 * start_loss * len(theta))
        iterate = Iterate(
            theta, now.gradient, np.where(norms[0] <= noise, 0.0, -now.gradient),
            now.loss, now.loss, now.loss, start_norm, start_loss, norms[0], 0 * norms[0],
            arrived=norms[0] <= noise, stalled=np.zeros(problem.n_targets, bool),
            losses=np.array([coordinates.user_loss(now.loss)]),
        )  # fmt: skip
        self._require_finite(iterate)
        return coordinates, iterate, warnings

    def _require_finite(self, iterate: Iterate) -> None:
        if not (np.isfinite(iterate.loss).all() and np.isfinite(iterate.gradient_norm).all()):
            raise self._out_of_range(iterate.epoch)

    def _out_of_range(self, epoch: int) -> DivergenceError:
        cure: list[Part] = []
        if not self.standardize:
            cure = [", or pass ", Remedy("standardize", value=True)]
        return DivergenceError(
            Message(
                f"the loss left the finite numbers in epoch {epoch} of {self.name}: values in the "
                "data, or in ",
                Parameter("init"),
                ", have squares beyond 1e308; store them in other units",
                *cure,
            )
        )


def line_search(
    coordinates: Coordinates, reduce: Reduce, iterate: Iterate
) -> tuple[Iterate, Float64]:
    """Run one pass and go to the least loss along the iterate's direction p.

    The step is α = -∇f·p / p·∇²f·p, and ∇f + α∇²f·p the gradient there. The pass gives ∇f and f at
    its start anew, so that what rounding does to the recurrence lasts no longer than an epoch.

    Returns
    -------
    after
        The iterate there; its direction is still p.
    drift
        (K,) how far ∇f, computed anew, lay from what the epoch before foretold, in parts of itself.
    """
    p = iterate.direction
    loss, gradient, curvature = coordinates.evaluate(reduce, iterate.theta, p)
    slope = np.sum(gradient * p, axis=0)
    bend = np.sum(p * curvature, axis=0)
    # a target that has arrived has no direction left
    step = np.where((bend > 0) & (slope < 0), -slope / bend, 0.0)
    decrease = -0.5 * step * slope
    norm = np.linalg.norm(gradient, axis=0)
    off = np.linalg.norm(gradient - iterate.gradient, axis=0)
    # the difference knows nothing below the last digit of its terms; a rise is rounding
    least = np.minimum(np.maximum(loss - decrease, EPS * loss), iterate.loss)
    after = iterate._replace(
        theta=iterate.theta + step * p,
        gradient=gradient + step * curvature,
        loss=least,
        measured_loss=loss,
        decrease=decrease,
        losses=np.append(iterate.losses, coordinates.user_loss(least)),
    )
    return after, np.where(norm > 0, off / norm, 0.0)
