"""The iterate of gradient descent, and one epoch with exact line search."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.solvers.base import EPS, Status

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Mask
    from streamreg.solvers.standardization import Coordinates

# a gradient that differs from its prediction by more than this share is rounding
_ROUNDING_DRIFT = 0.1
# if rounding stops the solver, a loss below this share of the first one is an exact fit
_EXACT_FIT_SHARE = 1e-20


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
    def is_finite(self) -> bool:
        """Whether nothing left float64's range."""
        return bool(np.isfinite(self.loss).all() and np.isfinite(self.gradient_norm).all())

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
