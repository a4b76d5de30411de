"""Losses: the part of the objective that depends on the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.sparse_gradient import SparseGradient

if TYPE_CHECKING:
    from streamreg.accumulators.gradient import GradientResult
    from streamreg.blocks import Float64


@dataclass(frozen=True)
class SquaredLoss:
    """1/(2 Σsᵢ) · Σᵢ sᵢ (xᵢ·w + b - yᵢ)², with sᵢ = 1 for rows without weights."""

    name: ClassVar[str] = "least squares"
    # built with (w, b); a pass computes the loss and its derivatives at that point
    accumulator: ClassVar[type[Gradient]] = Gradient
    sparse_accumulator: ClassVar[type[SparseGradient]] = SparseGradient  # for sparse rows

    def value(self, result: GradientResult) -> Float64:
        """Return the loss of each target, (K,)."""
        return 0.5 * result.rr
