"""Count, mean, deviation and covariance with y, in O(D) memory, for standardising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator, Scaling
from streamreg.accumulators.merging import merge_means
from streamreg.kernels import scratch
from streamreg.kernels.states import MomentsState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class MomentsResult(NamedTuple):
    """First and second moments; of the scaled columns if the pass had a ``Scaling``."""

    n: int  #              rows
    mean: Float64  #       (D,)   x̄
    deviation: Float64  #  (D,)   √(Σ sᵢ (xᵢ - x̄)² / Σ sᵢ)
    low: Float64  #        (D,)   min x, never scaled
    high: Float64  #       (D,)   max x, never scaled
    y_mean: Float64  #     (K,)   ȳ
    y_variance: Float64  # (K,)   Σ sᵢ (yᵢ - ȳ)² / Σ sᵢ
    y_low: Float64  #      (K,)   min y, never scaled
    y_high: Float64  #     (K,)   max y, never scaled
    cross: Float64  #      (K, D) Σ sᵢ (yᵢ - ȳ)(xᵢ - x̄)ᵀ / Σ sᵢ
    stored: Float64 | None = None  # (D,) weight of rows that store it / Σ sᵢ; None if dense


@dataclass(frozen=True, eq=False)
class Moments(Accumulator[MomentsState, MomentsResult]):
    """Means, deviations, bounds and the covariance with y, each tile centred by its own mean.

    States a and b of different rows are merged, with n = nₐ + n_b and δ = x̄_b - x̄ₐ, by [1]_

        x̄ = x̄ₐ + (n_b / n) δ        M₂ = M₂ₐ + M₂_b + (nₐ n_b / n) δ²        (D,)

    Means are stored relative to the first row: a mean of 1e9 deviations costs no digits. One state
    holds 8·(D·(5 + K) + 5K + 2) bytes.

    References
    ----------
    .. [1] Chan, Golub & LeVeque (1983), The American Statistician 37(3), 242-247.
    """

    reads_tiles = True

    n_features: int  # D
    n_targets: int  # K
    scaling: Scaling | None = None

    @property
    def state_nbytes(self) -> int:
        d, k = self.n_features, self.n_targets
        return 8 * (d * (5 + k) + 5 * k + 2)

    @property
    def scratch_nbytes(self) -> int:
        return scratch.moments_nbytes(self.n_features, self.n_targets)

    def zero(self) -> MomentsState:
        return MomentsState.zero(self.n_features, self.n_targets)

    def update(self, state: MomentsState, block: Block, kernels: Kernels) -> MomentsState:
        x_scale, y_scale = self.scaling or (None, None)
        kernels.find("moments")(block, state, x_scale=x_scale, y_scale=y_scale)
        return state

    def merge(self, a: MomentsState, b: MomentsState) -> MomentsState:
        merged = merge_means(a, b)
        if merged is None:
            return a
        ratio, delta, y_delta = merged
        np.add(a.cross, b.cross + ratio * np.outer(y_delta, delta), out=a.cross)
        np.add(a.m2, b.m2 + ratio * delta * delta, out=a.m2)
        np.add(a.y_m2, b.y_m2 + ratio * y_delta * y_delta, out=a.y_m2)
        np.minimum(a.low, b.low, out=a.low)
        np.minimum(a.y_low, b.y_low, out=a.y_low)
        np.maximum(a.high, b.high, out=a.high)
        np.maximum(a.y_high, b.y_high, out=a.y_high)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: MomentsState) -> MomentsResult:
        s = np.float64(state.s)  # without rows the means are NaN
        return MomentsResult(
            n=int(state.n),
            mean=state.origin + state.mean,
            deviation=np.sqrt(state.m2 / s),
            low=state.low,
            high=state.high,
            y_mean=state.y_origin + state.y_mean,
            y_variance=state.y_m2 / s,
            y_low=state.y_low,
            y_high=state.y_high,
            cross=state.cross / s,
        )

    def is_finite(self, state: MomentsState) -> bool:
        return bool(np.isfinite(state.mean).all() and np.isfinite(state.y_mean).all())
