"""Losses: the part of the objective that depends on the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamreg.accumulators.gradient import Gradient
from streamreg.kernels.base import AS_STORED, Affine

if TYPE_CHECKING:
    from streamreg.accumulators.gradient import GradientResult
    from streamreg.blocks import Float64


@dataclass(frozen=True)
class SquaredLoss:
    """Half the weighted mean of squared residuals, 1/(2 Σsᵢ) · Σᵢ sᵢ (xᵢ·w + b - yᵢ)²."""

    def statistic(
        self,
        coefficients: Float64,
        intercept: Float64,
        n_targets: int,
        x: Affine = AS_STORED,
        y: Affine = AS_STORED,
    ) -> Gradient:
        """Return the accumulator of the loss and its derivatives at (w, b)."""
        return Gradient(coefficients, intercept, n_targets, x=x, y=y)

    def value(self, result: GradientResult) -> Float64:
        """Return the loss of each target, (K,)."""
        return 0.5 * result.rr
