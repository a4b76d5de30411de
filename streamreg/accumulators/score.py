"""Residuals and the spread of y, in O(K): what R² needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.kernels import cpu

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels import Parallel


class ScoreState(NamedTuple):
    """Sums over the rows so far."""

    n: Float64  # ()    rows
    s: Float64  # ()    Σ sᵢ
    rr: Float64  # (K,)  Σ sᵢ (yᵢ - ŷᵢ)²
    y_mean: Float64  # (K,)  ȳ
    y_m2: Float64  # (K,)  Σ sᵢ (yᵢ - ȳ)²
    high: Float64  # (K,)  max |yᵢ|, never scaled


class ScoreResult(NamedTuple):
    """How well predictions agree with y."""

    n: int  #        rows
    r2: Float64  #   (K,) the coefficient of determination; NaN where y is constant
    high: Float64  # (K,) max |y|


@dataclass(frozen=True, eq=False)
class Score(Accumulator[ScoreState, ScoreResult]):
    """The coefficient of determination of each target.

        R² = 1 - Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ (yᵢ - ȳ)²          (K,)

    NaN for a target that is constant, where the quotient means nothing.

    Parameters
    ----------
    coefficients, intercept
        w (D, K) and b (K,).
    y_scale
        (K,) factors of y and ŷ, where squares would leave float64's range; ``None`` for ones.
    """

    coefficients: Float64
    intercept: Float64
    y_scale: Float64 | None = None

    @property
    def state_nbytes(self) -> int:
        return 8 * (4 * len(self.intercept) + 2)

    @property
    def scratch_nbytes(self) -> int:
        d, k = self.coefficients.shape
        return cpu.predict_scratch_nbytes(d) + 8 * 4 * cpu.tile_rows(d) * k

    def zero(self) -> ScoreState:
        k = len(self.intercept)
        return ScoreState(np.zeros(()), np.zeros(()), *(np.zeros(k) for _ in range(4)))

    def update(self, state: ScoreState, block: Block, parallel: Parallel) -> ScoreState:
        del parallel  # the state is small: each thread has its own
        rows = cpu.tile_rows(block.X.shape[1])
        unit = 1.0 if self.y_scale is None else self.y_scale
        for start in range(0, len(block.X), rows):
            part = slice(start, start + rows)
            y = block.y[part].astype(np.float64)
            high = np.abs(y).max(axis=0)
            r = (y - cpu.predict(block.X[part], self.coefficients, self.intercept)) * unit
            y *= unit
            s = np.ones(len(y)) if block.weight is None else block.weight[part]
            total = s.sum()
            mean = s @ y / total
            tile = ScoreState(
                np.array(len(y)), total, s @ (r * r), mean, s @ (y - mean) ** 2, high
            )
            state = self.merge(state, tile)
        return state

    def merge(self, a: ScoreState, b: ScoreState) -> ScoreState:
        if not b.s:
            return a
        share = b.s / (a.s + b.s)
        delta = b.y_mean - a.y_mean
        np.add(a.y_m2, b.y_m2 + a.s * share * delta * delta, out=a.y_m2)
        np.add(a.y_mean, share * delta, out=a.y_mean)
        np.add(a.rr, b.rr, out=a.rr)
        np.maximum(a.high, b.high, out=a.high)
        np.add(a.n, b.n, out=a.n)
        np.add(a.s, b.s, out=a.s)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: ScoreState) -> ScoreResult:
        # y that differs from its mean by rounding only is constant
        noise = np.finfo(float).eps * np.abs(state.y_mean)
        constant = state.y_m2 <= state.s * (4 * noise) ** 2
        spread = np.where(constant, np.nan, state.y_m2)
        return ScoreResult(int(state.n), np.asarray(1 - state.rr / spread), state.high.copy())

    def is_finite(self, state: ScoreState) -> bool:
        return bool(np.isfinite(state.rr).all())
