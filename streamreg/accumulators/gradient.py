"""Loss, gradient and the product along a direction, in O(D): what descent needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.kernels import cpu
from streamreg.kernels.states import ProductState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels import Parallel


class GradientResult(NamedTuple):
    """Means over the rows, weights counted: of r = (x - c)·w + b - y and u = (x - c)·d + e."""

    n: int  #               rows
    s: float  #             Σ sᵢ
    rr: Float64  #          (K,)   mean of r²
    ru: Float64  #          (K,)   mean of r·u
    uu: Float64  #          (K,)   mean of u²
    gradient: Float64  #    (D, K) mean of r·(x - c)
    bias: Float64  #        (K,)   mean of r
    product: Float64  #     (D, K) mean of u·(x - c); (D, 0) without a direction
    product_bias: Float64  # (K,)  mean of u; (0,) without a direction


@dataclass(frozen=True, eq=False)
class Gradient(Accumulator[ProductState, GradientResult]):
    """The loss and gradient at (w, b), and XᵀX times a direction, from one reading of the rows.

    With r = (X - c)w + b - y and u = (X - c)d + e, both (N, K), it gathers

        f = 1/(2Σsᵢ) Σ sᵢ rᵢ²        g = (X - c)ᵀ s r / Σsᵢ        q = (X - c)ᵀ s u / Σsᵢ

    in O(D·K) numbers; no column of ones is stored and X is never copied. The shift c takes away
    means that are large against the deviations, which would cost log₁₀(mean/deviation) digits.

    Parameters
    ----------
    coefficients, intercept
        [w] or [w, d], (D, M), and [b] or [b, e], (M,); M is K, or 2K with a direction.
    n_targets
        K.
    shift
        c (D,); ``None`` for zeros.
    y_scale
        (K,) factors of y; ``None`` for ones.
    """

    coefficients: Float64
    intercept: Float64
    n_targets: int
    shift: Float64 | None = None
    y_scale: Float64 | None = None

    @property
    def state_nbytes(self) -> int:
        return gradient_state_nbytes(*self.coefficients.shape, self.n_targets)

    @property
    def scratch_nbytes(self) -> int:
        return cpu.products_scratch_nbytes(*self.coefficients.shape)

    def zero(self) -> ProductState:
        d, m = self.coefficients.shape
        return ProductState.zero(d, self.n_targets, m)

    def update(self, state: ProductState, block: Block, parallel: Parallel) -> ProductState:
        del parallel  # the state is small: each thread has its own
        cpu.products(
            block, state, coefficients=self.coefficients, bias=self.intercept,
            shift=self.shift, y_scale=self.y_scale,
        )  # fmt: skip
        return state

    def merge(self, a: ProductState, b: ProductState) -> ProductState:
        for mine, other in zip(a, b, strict=True):
            np.add(mine, other, out=mine)
        return a

    def finalize(self, state: ProductState) -> GradientResult:
        s, k = float(state.s), self.n_targets
        products, sums = state.products / s, state.sums / s
        return GradientResult(
            n=int(state.n), s=s, rr=state.rr / s, ru=state.ru / s, uu=state.uu / s,
            gradient=products[:k].T, bias=sums[:k],
            product=products[k:].T, product_bias=sums[k:],
        )  # fmt: skip

    def is_finite(self, state: ProductState) -> bool:
        return bool(np.isfinite(state.rr).all() and np.isfinite(state.sums).all())


def gradient_state_nbytes(n_features: int, n_columns: int, n_targets: int) -> int:
    """Bytes of one state with M columns of coefficients."""
    return 8 * (n_columns * (n_features + 1) + 3 * n_targets + 2)
