"""Conjugate gradients: O(D) state, and about as many epochs as the condition number of X."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamreg.solvers.base import Status
from streamreg.solvers.descent import Descent, line_search

if TYPE_CHECKING:
    from streamreg.solvers.coordinates import Coordinates
    from streamreg.solvers.base import Reduce
    from streamreg.solvers.descent import Iterate

# a gradient this small beside the first, and this far from what was foretold, is rounding
_NEAR_ROUNDING = 1e-6
_ROUNDING_DRIFT = 0.3
_TYPICAL_EPOCHS = 40


@dataclass(frozen=True, eq=False)
class ConjugateGradient(Descent):
    """Conjugate gradients on the normal equations of the standardised columns [1]_.

    From p = -∇f each epoch takes, with one pass,

        α = -∇f·p / p·∇²f·p        w ← w + α p        p ← -∇f + β p

    where β = ∇f₊·(∇f₊ - ∇f) / ∇f·∇f (Polak & Ribière), at least 0. It stops when
    ‖∇f‖ ≤ tol·‖∇f at the start‖ for every target.

    References
    ----------
    .. [1] Hestenes & Stiefel (1952), J. Res. Natl. Bur. Stand. 49(6), 409-436.
    """

    name: ClassVar[str] = "cg"

    def passes(self) -> int:
        return min(_TYPICAL_EPOCHS, self.max_epochs) + 1

    def advance(self, coordinates: Coordinates, reduce: Reduce, iterate: Iterate) -> Iterate:
        after = line_search(coordinates, reduce, iterate)
        before, now = iterate.gradient, after.gradient
        squared = np.sum(before * before, axis=0)
        beta = np.sum(now * (now - before), axis=0) / np.where(squared > 0, squared, 1.0)
        return replace(after, direction=-now + np.maximum(beta, 0.0) * iterate.direction)

    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        if (after.gradient_norm <= self.tol * after.start_norm).all():
            return Status.SMALL_GRADIENT
        # the gradient foretold and the one computed anew agree no longer: both are rounding
        if after.drift > _ROUNDING_DRIFT and after.relative_norm < _NEAR_ROUNDING:
            return Status.STALLED
        return None
