"""The loop of epochs that gradient descent and conjugate gradients share."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from streamreg.accumulators.gradient import gradient_nbytes
from streamreg.accumulators.moments import Moments
from streamreg.errors import DivergenceError, InputError, Parameter, Part, Remedy
from streamreg.solvers.base import (
    EPS,
    EpochRecord,
    Footprint,
    PassFootprint,
    Solution,
    Solver,
    Status,
)
from streamreg.solvers.contrasts import infer_contrasts, with_contrasts
from streamreg.solvers.standardization import Coordinates, standardise

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import IterateStore, Mask, Problem, Reduce, Report
    from streamreg.solvers.standardization import Evaluation

# a gradient that differs from its prediction by more than this share is rounding
_ROUNDING_DRIFT = 0.1
# if rounding stops the solver, a loss below this share of the first one is an exact fit
_EXACT_FIT_SHARE = 1e-20
# arrays as large as θ: θ, ∇f, direction, ∇²f·d, coefficients [w, d], coordinates, temporaries
_VECTORS = 24


class Iterate(NamedTuple):
    """All that the next epoch needs."""

    theta: Float64  # (D + 1, K) in coordinates
    gradient: Float64  # (D + 1, K) ∇f at θ
    direction: Float64  # (D + 1, K) of the next epoch; with a constant step, of the last
    loss: Float64  # (K,) f at θ
    measured_loss: Float64  # (K,) f at the θ of the last pass
    # computed from gradients, because a difference of losses is lost to rounding much earlier
    decrease: Float64  # (K,) of f in the last epoch
    start_norm: Float64  # (K,) ‖∇f‖ at the start, or at w = 0 if it is larger there
    start_loss: Float64  # (K,) f at the start, or at w = 0 if it is larger there
    lowest_norm: Float64  # (K,) the smallest ‖∇f‖ so far
    idle_epochs: Float64  # (K,) epochs since it was last halved
    arrived: Mask  # (K,) targets that met the tolerance
    stalled: Mask  # (K,) targets whose gradient is rounding
    losses: Float64  # (epochs + 1,) Σ f over targets at each epoch's start and now, in users' units

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.losses) - 1

    @property
    def gradient_norm(self) -> Float64:
        """‖∇f‖ of each target."""
        return np.asarray(np.linalg.norm(self.gradient, axis=0))

    @property
    def relative_norm(self) -> float:
        """‖∇f‖ relative to the start, the largest of all targets."""
        start = np.where(self.start_norm > 0, self.start_norm, 1.0)
        return float(np.max(self.gradient_norm / start))

    @property
    def fits_exactly(self) -> Mask:
        """Targets whose loss is the squared rounding of D + 1 terms that cancel."""
        rounding = (16 * EPS) ** 2 * len(self.theta)
        return np.asarray(self.measured_loss <= rounding * self.start_loss)

    @property
    def end_by_rounding(self) -> Status:
        """Status of a fit whose gradients are rounding."""
        exact = self.measured_loss <= _EXACT_FIT_SHARE * self.start_loss
        return Status.EXACT_FIT if exact.all() else Status.STALLED


@dataclass(frozen=True, eq=False)
class IterativeSolver(Solver):
    """One pass an epoch, O(D) state."""

    typical_epochs: ClassVar[int]

    standardize: bool = True  # work in centred, scaled coordinates
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None  # w at the start, (D, K) in the user's units; ``None`` for zeros
    request: InferenceRequest | None = None  # of ``cg``: chosen standard errors

    @abstractmethod
    def advance(self, coordinates: Coordinates, iterate: Iterate) -> Iterate:
        """Run one epoch."""

    @abstractmethod
    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        """Return why the fit stops after the epoch between the two, or ``None``."""

    def early_stop_warnings(self, last: Iterate, status: Status | None) -> list[str]:
        """Return warnings if the fit met its tolerance far from the minimum."""
        del last, status
        return []

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        moments = Moments(d, k)
        # passes with a direction, without one, and the one before the first epoch
        footprint = Footprint(
            (
                PassFootprint(*gradient_nbytes(d, 2 * k, k)),
                PassFootprint(*gradient_nbytes(d, k, k)),
                PassFootprint(moments.state_nbytes, moments.scratch_nbytes),
            ),
            solver_nbytes=8 * _VECTORS * (d + 1) * k,
            # one pass more, for the means and deviations
            n_passes=min(self.typical_epochs, self.max_epochs) + 1,
            # two products with X and two with Xᵀ: one each for the residual and a direction
            row_flops=8.0 * d * k,
        )
        return with_contrasts(footprint, problem, self.request, self.max_epochs)

    def identity(self) -> dict[str, Any]:
        start = None if self.init is None else np.ascontiguousarray(self.init)
        return {
            **super().identity(),
            "standardize": self.standardize,
            "tol": self.tol,
            "init": "zeros" if start is None else f"{zlib.crc32(start.data):08x}",
        }

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        coordinates, iterate, warnings = self._begin(problem, reduce)
        iterate = iterates.load(iterate)
        if iterate.epoch > self.max_epochs:
            raise InputError(
                Parameter("max_epochs", self.max_epochs),
                f" but the checkpoint is of a fit that has run {iterate.epoch} epochs; pass "
                "more, or remove the checkpoint to start again",
            )
        status = Status.SMALL_GRADIENT if iterate.arrived.all() else None
        while status is None and iterate.epoch < self.max_epochs:
            iterates.save(iterate)
            before, iterate = iterate, self.advance(coordinates, iterate)
            self._require_finite(iterate)
            report(EpochRecord(iterate.epoch, float(iterate.losses[-2]), iterate.relative_norm))
            status = self.verdict(before, iterate)
        inference = None
        warnings += self.early_stop_warnings(iterate, status)
        if self.request is not None:
            inference, more = infer_contrasts(
                coordinates, iterate.theta, iterate.loss, self.request, self.max_epochs
            )
            warnings += more
        return Solution(
            *coordinates.to_user(iterate.theta),
            status or Status.OUT_OF_EPOCHS,
            iterate.epoch,
            iterate.losses.tolist(),
            warnings,
            inference=inference,
        )

    def _begin(self, problem: Problem, reduce: Reduce) -> tuple[Coordinates, Iterate, list[str]]:
        theta = np.zeros((problem.n_features + 1, problem.n_targets))
        at_zero: Evaluation | None = None
        if self.standardize:
            coordinates, at_zero, warnings = standardise(problem, reduce)
        else:
            coordinates, warnings = Coordinates.raw(problem, reduce), []
        if self.init is not None:
            theta[:-1] = coordinates.weights_from_user(self.init)
        now = at_zero
        if now is None or self.init is not None:
            now = coordinates.evaluate(theta)
        norms = [np.linalg.norm(e.gradient, axis=0) for e in (now, at_zero or now)]
        start_loss = np.maximum(now.loss, (at_zero or now).loss)
        # y is fitted already, or does not depend on X: the gradient is rounding
        arrived = norms[0] <= 4 * EPS * np.sqrt(2 * start_loss * len(theta))
        iterate = Iterate(
            theta,
            now.gradient,
            direction=np.where(arrived, 0.0, -now.gradient),
            loss=now.loss,
            measured_loss=now.loss,
            decrease=now.loss,
            start_norm=np.maximum(*norms),
            start_loss=start_loss,
            lowest_norm=norms[0],
            idle_epochs=0 * norms[0],
            arrived=arrived,
            stalled=np.zeros_like(arrived),
            losses=np.array([coordinates.user_loss(now.loss)]),
        )
        self._require_finite(iterate)
        return coordinates, iterate, warnings

    def _require_finite(self, iterate: Iterate) -> None:
        if not (np.isfinite(iterate.loss).all() and np.isfinite(iterate.gradient_norm).all()):
            raise self._out_of_range(iterate.epoch)

    def _out_of_range(self, epoch: int) -> DivergenceError:
        standardize = Remedy("standardize", value=True)
        cure: list[Part] = [] if self.standardize else [", or pass ", standardize]
        return DivergenceError(
            f"the loss became inf or NaN in epoch {epoch} of {self.name}: values in the "
            "data, or in ",
            Parameter("init"),
            ", have squares beyond 1e308; store them in other units",
            *cure,
        )


def line_search(coordinates: Coordinates, iterate: Iterate) -> Iterate:
    """Run one pass and go to the least loss along the iterate's direction p.

    The step is α = -∇f·p / p·∇²f·p; the gradient becomes ∇f + α∇²f·p. Each pass recomputes f and
    ∇f, so that rounding in the recurrence does not accumulate.

    The result still has direction p. A target is stalled if ∇f is far from its prediction.
    """
    p = iterate.direction
    loss, gradient, curvature = coordinates.evaluate(iterate.theta, p)
    slope = np.sum(gradient * p, axis=0)
    p_curvature = np.sum(p * curvature, axis=0)
    # the direction of a target that has arrived is 0
    step = np.where((p_curvature > 0) & (slope < 0), -slope / p_curvature, 0.0)
    decrease = -0.5 * step * slope
    norm = np.linalg.norm(gradient, axis=0)
    off = np.linalg.norm(gradient - iterate.gradient, axis=0)
    # the difference is exact to EPS·loss only; a loss above the last one is rounding
    least = np.minimum(np.maximum(loss - decrease, EPS * loss), iterate.loss)
    return iterate._replace(
        theta=iterate.theta + step * p,
        gradient=gradient + step * curvature,
        loss=least,
        measured_loss=loss,
        decrease=decrease,
        stalled=np.where(norm > 0, off / norm, 0.0) > _ROUNDING_DRIFT,
        losses=np.append(iterate.losses, coordinates.user_loss(least)),
    )
