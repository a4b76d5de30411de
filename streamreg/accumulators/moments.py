"""Count, mean, deviation and covariance with y, in O(D): what standardising needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator, Scaling
from streamreg.kernels import cpu
from streamreg.kernels.states import MomentsState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels import Parallel


class MomentsResult(NamedTuple):
    """First and second moments. y is in units of ``Scaling.y`` where the pass had a scaling."""

    n: int  #              rows
    s: float  #            Σ sᵢ
    mean: Float64  #       (D,)   x̄
    deviation: Float64  #  (D,)   √(Σ sᵢ (xᵢ - x̄)² / Σ sᵢ)
    low: Float64  #        (D,)   min
    high: Float64  #       (D,)   max
    y_mean: Float64  #     (K,)   ȳ
    y_variance: Float64  # (K,)   Σ sᵢ (yᵢ - ȳ)² / Σ sᵢ
    y_high: Float64  #     (K,)   max |y|
    cross: Float64  #      (K, D) Σ sᵢ (yᵢ - ȳ)(xᵢ - x̄)ᵀ / Σ sᵢ, x in units of ``Scaling.x``


@dataclass(frozen=True)
class Moments(Accumulator[MomentsState, MomentsResult]):
    """Means, deviations, bounds and the covariance with y, each tile centred by its own mean.

    Rows a and rows b merge, with n = nₐ + n_b and δ = x̄_b - x̄ₐ, by [1]_

        x̄ = x̄ₐ + (n_b / n) δ        M₂ = M₂ₐ + M₂_b + (nₐ n_b / n) δ²        (D,)

    so a mean a billion times the deviation costs no digits.

    Parameters
    ----------
    n_features, n_targets
        D and K. One state holds 8·(D·(4 + K) + 3K + 2) bytes.
    scaling
        For values whose squares would leave float64's range.

    References
    ----------
    .. [1] Chan, Golub & LeVeque (1983), The American Statistician 37(3), 242-247.
    """

    n_features: int
    n_targets: int
    scaling: Scaling | None = None

    @property
    def state_nbytes(self) -> int:
        d, k = self.n_features, self.n_targets
        return 8 * (d * (4 + k) + 3 * k + 2)

    @property
    def scratch_nbytes(self) -> int:
        return cpu.moments_scratch_nbytes(self.n_features, self.n_targets)

    def zero(self) -> MomentsState:
        return MomentsState.zero(self.n_features, self.n_targets)

    def update(self, state: MomentsState, block: Block, parallel: Parallel) -> MomentsState:
        del parallel  # the state is small: each thread has its own
        x_scale, y_scale = (None, None) if self.scaling is None else self.scaling
        cpu.moments(block, state, x_scale=x_scale, y_scale=y_scale)
        return state

    def merge(self, a: MomentsState, b: MomentsState) -> MomentsState:
        if not a.s or not b.s:
            filled = a if a.s else b
            for kept, value in zip(a, filled, strict=True):
                kept[...] = value
            return a
        share = float(b.s) / float(a.s + b.s)
        ratio = float(a.s) * share
        delta, y_delta = b.mean - a.mean, b.y_mean - a.y_mean
        np.add(a.cross, b.cross + ratio * np.outer(y_delta, delta), out=a.cross)
        np.add(a.m2, b.m2 + ratio * delta * delta, out=a.m2)
        np.add(a.y_m2, b.y_m2 + ratio * y_delta * y_delta, out=a.y_m2)
        np.add(a.mean, share * delta, out=a.mean)
        np.add(a.y_mean, share * y_delta, out=a.y_mean)
        np.minimum(a.low, b.low, out=a.low)
        np.maximum(a.high, b.high, out=a.high)
        np.maximum(a.y_high, b.y_high, out=a.y_high)
        np.add(a.n, b.n, out=a.n)
        np.add(a.s, b.s, out=a.s)
        return a

    def finalize(self, state: MomentsState) -> MomentsResult:
        s = float(state.s)
        unit = 1.0 if self.scaling is None else self.scaling.x
        return MomentsResult(
            n=int(state.n), s=s,
            mean=state.mean / unit, deviation=np.sqrt(state.m2 / s) / unit,
            low=state.low / unit, high=state.high / unit,
            y_mean=state.y_mean.copy(), y_variance=state.y_m2 / s, y_high=state.y_high.copy(),
            cross=state.cross / s,
        )  # fmt: skip

    def is_finite(self, state: MomentsState) -> bool:
        return bool(np.isfinite(state.mean).all() and np.isfinite(state.y_mean).all())
