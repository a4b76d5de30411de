"""Conjugate gradients: O(D) state, and about as many epochs as the condition number of X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamreg.solvers.base import EPS, Status
from streamreg.solvers.iterative import IterativeSolver, line_search

if TYPE_CHECKING:
    from streamreg.solvers.iterative import Iterate
    from streamreg.solvers.standardization import Coordinates

# a gradient below this share of the first one has stalled if not halved in this number of epochs
_NEAR_ROUNDING, _MOST_IDLE_EPOCHS = 1e-12, 150
_LEAST_TOL = 16 * EPS


@dataclass(frozen=True, eq=False)
class ConjugateGradient(IterativeSolver):
    """Conjugate gradients on the normal equations of the standardised columns [1]_.

    From p = -∇f each epoch takes, with one pass,

        α = -∇f·p / p·∇²f·p        w ← w + α p        p ← -∇f + β p

    where β = max(0, ∇f₊·(∇f₊ - ∇f) / ∇f·∇f) (Polak & Ribière). It stops when every target has
    ‖∇f‖ ≤ tol·‖∇f at the start‖, or a ∇f that is only rounding.

    References
    ----------
    .. [1] Hestenes & Stiefel (1952), J. Res. Natl. Bur. Stand. 49(6), 409-436.
    """

    name: ClassVar[str] = "cg"
    summary: ClassVar[str] = "O(D) state, few passes"
    typical_epochs: ClassVar[int] = 40

    @property
    def infers(self) -> bool:
        request = self.request
        return request is not None and request.columns is not None and request.is_diagonal

    def advance(self, coordinates: Coordinates, iterate: Iterate) -> Iterate:
        after = line_search(coordinates, iterate)
        before, now = iterate.gradient, after.gradient
        squared = np.sum(before * before, axis=0)
        beta = np.sum(now * (now - before), axis=0) / np.where(squared > 0, squared, 1.0)
        direction = -now + np.maximum(beta, 0.0) * iterate.direction
        # no tol below _LEAST_TOL is met, because so small a predicted gradient is below rounding
        small = after.gradient_norm <= self.tol * after.start_norm
        small &= self.tol > _LEAST_TOL
        arrived = iterate.arrived | small | after.fits_exactly
        halved = after.gradient_norm < 0.5 * iterate.lowest_norm
        lowest = np.where(halved, after.gradient_norm, iterate.lowest_norm)
        idle = np.where(halved, 0, iterate.idle_epochs + 1)
        is_idle = (idle >= _MOST_IDLE_EPOCHS) & (lowest <= _NEAR_ROUNDING * after.start_norm)
        stalled = iterate.stalled | after.stalled | is_idle
        return after._replace(
            direction=np.where(arrived | stalled, 0.0, direction),
            lowest_norm=lowest,
            idle_epochs=idle,
            arrived=arrived,
            stalled=stalled & ~arrived,
        )

    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        del before
        if after.arrived.all():
            return Status.EXACT_FIT if after.fits_exactly.all() else Status.SMALL_GRADIENT
        return after.end_by_rounding if (after.arrived | after.stalled).all() else None
