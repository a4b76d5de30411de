"""Count, mean, deviation and covariance with y of sparse rows, in O(D) memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.base import Accumulator, Scaling
from streamreg.accumulators.merging import merge_if_empty, merge_target_moments
from streamreg.accumulators.moments import MomentsResult
from streamreg.kernels.sparse_merge import MERGE_NBYTES, merge_columns
from streamreg.kernels.states import (
    CROSS,
    HIGH,
    LOW,
    ORIGIN,
    SQUARES,
    SUM,
    WEIGHT,
    SparseMomentsState,
)

if TYPE_CHECKING:
    from streamreg.blocks import Block
    from streamreg.kernels.base import Kernels

# columns that are finalised at a time, because each takes arrays as large
_STEP = 1 << 12


@dataclass(frozen=True, eq=False)
class SparseMoments(Accumulator[SparseMomentsState, MomentsResult]):
    """What :class:`Moments` computes, from the stored values of sparse rows alone.

    A column has weight S₁ in rows that store it, with mean x̄₁ and sum of squares M₁ about it, and
    weight S₀ in the others, whose values are 0. With S = S₀ + S₁, by Chan, Golub & LeVeque (1983),

        x̄ = (S₁ / S) x̄₁        M₂ = M₁ + (S₀ S₁ / S) x̄₁²        Σ s (y - ȳ)(x - x̄) = Σ₁ s (y - ȳ) x

    Values are stored relative to the first one of the column: a column that every row stores keeps
    its digits, whatever its mean is. One state holds 8·(D·(6 + 2K) + 5K + 3) bytes.
    """

    reads_tiles = True

    n_features: int  # D
    n_targets: int  # K
    scaling: Scaling | None = None

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.n_features * (CROSS + 2 * self.n_targets) + 5 * self.n_targets + 3)

    @property
    def scratch_nbytes(self) -> int:
        return MERGE_NBYTES

    def zero(self) -> SparseMomentsState:
        return SparseMomentsState.zero(self.n_features, self.n_targets)

    def update(
        self, state: SparseMomentsState, block: Block, kernels: Kernels
    ) -> SparseMomentsState:
        x_scale, y_scale = self.scaling or (None, None)
        kernels.find("sparse_moments")(block, state, x_scale=x_scale, y_scale=y_scale)
        return state

    def merge(self, a: SparseMomentsState, b: SparseMomentsState) -> SparseMomentsState:
        if merge_if_empty(a, b):
            return a
        merge_columns(a.columns, b.columns, b.y_origin - a.y_origin)
        np.minimum(a.y_low, b.y_low, out=a.y_low)
        np.maximum(a.y_high, b.y_high, out=a.y_high)
        np.add(a.check, b.check, out=a.check)
        merge_target_moments(a, b)
        return a

    @np.errstate(invalid="ignore", over="ignore", divide="ignore")
    def finalize(self, state: SparseMomentsState) -> MomentsResult:
        d, k = self.n_features, self.n_targets
        s = np.float64(state.s)  # without rows the means are NaN
        # apart, because a part of one array would keep all of it
        mean, deviation, low, high = (np.empty(d) for _ in range(4))
        cross, stored_share = np.empty((k, d)), np.empty(d)
        for first in range(0, d, _STEP):
            part = slice(first, first + _STEP)
            columns = state.columns[part]
            origin, weight = columns[:, ORIGIN], columns[:, WEIGHT]
            # by weight, because sums of weights are made in the order of rows
            is_everywhere, stored = weight == s, weight > 0
            share = stored_share[part] = np.where(is_everywhere, 1.0, weight / s)
            stored_mean = np.where(stored, columns[:, SUM] / np.where(stored, weight, 1.0), 0.0)
            squares = np.maximum(columns[:, SQUARES] - stored_mean * columns[:, SUM], 0.0)
            stored_mean = origin + stored_mean
            mean[part] = share * stored_mean
            squares += (s - weight).clip(0.0) * share * stored_mean**2
            deviation[part] = np.sqrt(squares / s)
            zero = np.where(is_everywhere, np.nan, 0.0)
            low[part] = np.where(stored, np.fmin(columns[:, LOW], zero), zero)
            high[part] = np.where(stored, np.fmax(columns[:, HIGH], zero), zero)
            for at in range(k):
                y_mean = state.y_mean[at]
                cross_sum, y_sum = columns[:, CROSS + 2 * at], columns[:, CROSS + 2 * at + 1]
                centred = cross_sum - y_mean * columns[:, SUM]
                moved = origin * (y_sum - y_mean * weight)
                cross[at, part] = (centred + np.where(is_everywhere, 0.0, moved)) / s
        return MomentsResult(
            n=int(state.n),
            mean=mean,
            deviation=deviation,
            low=low,
            high=high,
            y_mean=state.y_origin + state.y_mean,
            y_variance=state.y_m2 / s,
            y_low=state.y_low,
            y_high=state.y_high,
            cross=cross,
            stored=stored_share,
        )

    def is_finite(self, state: SparseMomentsState) -> bool:
        return bool(np.isfinite(state.check) and np.isfinite(state.y_mean).all())
