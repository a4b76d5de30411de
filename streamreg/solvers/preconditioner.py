"""A preconditioner: cheap to apply, and about the inverse of ∇²f, but for a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Float64


class Preconditioner(NamedTuple):
    """M⁻¹ = I - WᵀW, with k rows of W; without rows it changes nothing."""

    factor: Float64  # (k, D + 1) W

    def applied(self, gradients: Float64) -> Float64:
        """Return M⁻¹ times gradients, (D + 1, M)."""
        if not len(self.factor):
            return gradients
        return np.asarray(gradients - self.factor.T @ (self.factor @ gradients))
