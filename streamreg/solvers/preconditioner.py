"""A preconditioner: cheap to apply, and about the inverse of ∇²f, but for a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Float64


class Preconditioner(NamedTuple):
    """M⁻¹, as one of three: I; I - WᵀW; or WᵀW for chosen columns and I for the others."""

    factor: Float64  # W: (k, D + 1), or of chosen columns (k, k); without rows M⁻¹ is I
    columns: Float64  # (k,) the numbers of the chosen columns, else (0,)

    def applied(self, gradients: Float64) -> Float64:
        """Return M⁻¹ times gradients, (D + 1, M)."""
        if not len(self.factor):
            return gradients
        if not len(self.columns):
            return np.asarray(gradients - self.factor.T @ (self.factor @ gradients))
        columns = self.columns.astype(np.intp)
        out = gradients.copy()
        out[columns] = self.factor.T @ (self.factor @ gradients[columns])
        return out


NO_PRECONDITIONER = Preconditioner(*np.empty((2, 0)))


class Found(NamedTuple):
    """What is found of a preconditioner, by one pass or none."""

    preconditioner: Preconditioner
    reduction: float  # about how often fewer epochs are needed, at most
    n_passes: int = 1
