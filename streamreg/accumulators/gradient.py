"""Loss, gradient and XᵀX times a direction, in O(D) memory, for iterative solvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator, State
from streamreg.accumulators.merging import add_fields
from streamreg.kernels import scratch
from streamreg.kernels.base import AS_STORED, Affine
from streamreg.kernels.states import ProductState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class GradientResult(NamedTuple):
    """Weighted means over the rows, where r = xw + b - y and u = xd + e."""

    rr: Float64  #       (K,)   mean of r²
    gradient: Float64  # (D, M) mean of r·x; with a direction, then of u·x
    bias: Float64  #     (M,)   mean of r; with a direction, then of u


@dataclass(frozen=True, eq=False)
class Derivatives(Accumulator[State, GradientResult]):
    """The loss and its derivatives at (w, b), from one pass over rows of either kind."""

    reads_tiles = True

    coefficients: Float64  # (D, M) [w], M = K; or [w, d], M = 2K
    intercept: Float64  # (M,) [b] or [b, e]
    n_targets: int  # K
    x: Affine = AS_STORED
    y: Affine = AS_STORED

    @property
    def _sizes(self) -> tuple[int, int, int]:
        """D, M and K."""
        return len(self.coefficients), len(self.intercept), self.n_targets

    def is_finite(self, state: Any) -> bool:  # noqa: ANN401  (a named tuple)
        return bool(np.isfinite(state.rr).all() and np.isfinite(state.sums).all())


@dataclass(frozen=True, eq=False)
class Gradient(Derivatives[ProductState]):
    """The loss and gradient at (w, b), and XᵀX times a direction, from one pass.

    With r = Xw + b - y and u = Xd + e, both (N, K), it computes

        f = 1/(2Σsᵢ) Σ sᵢ rᵢ²        g = Xᵀ s r / Σsᵢ        q = Xᵀ s u / Σsᵢ

    in O(D·K) memory. Means much larger than the deviations would cost log₁₀(mean/deviation)
    digits, so the shifts in ``x`` and ``y`` subtract the means.
    """

    def __post_init__(self) -> None:
        # the loops read a column at a time
        object.__setattr__(self, "coefficients", np.asfortranarray(self.coefficients))

    @property
    def state_nbytes(self) -> int:
        return gradient_nbytes(*self._sizes)[0]

    @property
    def scratch_nbytes(self) -> int:
        return gradient_nbytes(*self._sizes)[1]

    def zero(self) -> ProductState:
        return ProductState.zero(len(self.coefficients), self.n_targets, len(self.intercept))

    def update(self, state: ProductState, block: Block, kernels: Kernels) -> ProductState:
        kernels.find("products")(
            block, state, coefficients=self.coefficients, bias=self.intercept, x=self.x, y=self.y
        )
        return state

    def merge(self, a: ProductState, b: ProductState) -> ProductState:
        add_fields(a, b)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: ProductState) -> GradientResult:
        s = np.float64(state.s)  # without rows the means are NaN
        return GradientResult(state.rr / s, gradient=(state.products / s).T, bias=state.sums / s)


def gradient_nbytes(n_features: int, n_columns: int, n_targets: int) -> tuple[int, int]:
    """Bytes of one state, and of scratch memory, with M columns of coefficients."""
    state_nbytes = 8 * (n_columns * (n_features + 1) + n_targets + 2)
    return state_nbytes, scratch.products_nbytes(n_features, n_columns)
