"""Residuals and the spread of y, in O(K), for R² and their root mean square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels import scratch
from streamreg.kernels.tiles import tiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class ScoreState(NamedTuple):
    """Sums over the rows so far."""

    s: Float64  # ()    Σ sᵢ
    rr: Float64  # (K,)  Σ sᵢ (yᵢ - ŷᵢ)²
    y_origin: Float64  # (K,)  the first y
    y_mean: Float64  # (K,)  ȳ less it
    y_m2: Float64  # (K,)  Σ sᵢ (yᵢ - ȳ)²
    high: Float64  # (K,)  max |yᵢ|, never scaled


class ScoreResult(NamedTuple):
    """How well predictions agree with y."""

    r2: Float64  #   (K,) the coefficient of determination; NaN where y is constant
    rmse: Float64  # (K,) √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ)
    high: Float64  # (K,) max |y|


class PredictedTile(NamedTuple):
    """Some rows of y beside their predictions."""

    y: Float64  # (n, K)
    predicted: Float64  # (n, K)  ŷ
    residual: Float64  # (n, K)  (y - ŷ)·y_scale
    weight: Float64  # (n,)


@dataclass(frozen=True, eq=False)
class Score(Accumulator[ScoreState, ScoreResult]):
    """The coefficient of determination of each target, and the root mean square of residuals.

        R² = 1 - Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ (yᵢ - ȳ)²          (K,)
        RMSE = √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ)                   (K,)

    R² is NaN for a constant target. ``y_scale`` multiplies y and ŷ where their squares would leave
    float64's range.
    """

    reads_tiles = True

    coefficients: Float64  # (D, K)
    intercept: Float64  # (K,)
    y_scale: Float64 | None = None  # (K,)

    @property
    def state_nbytes(self) -> int:
        return 8 * (5 * len(self.intercept) + 1)

    @property
    def scratch_nbytes(self) -> int:
        d, k = map(int, self.coefficients.shape)
        rows = numpy_kernels.tile_rows(d)
        # y, ŷ and r of a tile and ŷ of the next, z, and two more while squares of z are summed
        return scratch.predict_nbytes(d) + 8 * 7 * rows * k

    def zero(self) -> ScoreState:
        k = len(self.intercept)
        return ScoreState(np.zeros(()), *(np.zeros(k) for _ in range(5)))

    def update(self, state: ScoreState, block: Block, kernels: Kernels) -> ScoreState:
        for tile in self.predict(block, kernels):
            state = self.add(state, tile)
        return state

    def predict(self, block: Block, kernels: Kernels) -> Iterator[PredictedTile]:
        """Yield the rows of a block with their predictions, a tile at a time."""
        predict, rows = kernels.find("predict"), numpy_kernels.tile_rows(block.X.shape[1])
        unit = self._unit
        # scaled down before the product and up after it, so that nothing overflows
        smaller, larger = np.minimum(unit, 1.0), np.maximum(unit, 1.0)
        w, b = self.coefficients * smaller, self.intercept * smaller
        for X, tile_y, weight in tiles(block, rows):
            y = tile_y.astype(np.float64)
            predicted = predict(X, w, b)
            residual = (y * smaller - predicted) * larger
            s = np.ones(len(y)) if weight is None else weight
            yield PredictedTile(y, predicted / smaller, residual, s)

    def add(self, state: ScoreState, tile: PredictedTile) -> ScoreState:
        """Add rows to a state, which is written to."""
        y, _, r, s = tile
        unit = self._unit
        origin = state.y_origin if state.s else y[0] * unit
        z = y * unit - origin
        total = s.sum()
        mean = s @ z / total
        squares, spread = s @ (r * r), s @ (z - mean) ** 2
        high = np.abs(y).max(axis=0)
        return self.merge(state, ScoreState(total, squares, origin, mean, spread, high))

    @property
    def _unit(self) -> Float64:
        return np.ones_like(self.intercept) if self.y_scale is None else self.y_scale

    def merge(self, a: ScoreState, b: ScoreState) -> ScoreState:
        if not b.s:
            return a
        if not a.s:
            for mine, other in zip(a, b, strict=True):
                mine[...] = other
            return a
        share = b.s / (a.s + b.s)
        # in this order, because the difference of similar origins is exact
        delta = (b.y_origin - a.y_origin) + (b.y_mean - a.y_mean)
        np.add(a.y_m2, b.y_m2 + a.s * share * delta * delta, out=a.y_m2)
        np.add(a.y_mean, share * delta, out=a.y_mean)
        np.add(a.rr, b.rr, out=a.rr)
        np.maximum(a.high, b.high, out=a.high)
        np.add(a.s, b.s, out=a.s)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: ScoreState) -> ScoreResult:
        # a y that differs from its mean by rounding only is constant
        noise = 4 * np.finfo(float).eps * np.abs(state.y_origin + state.y_mean)
        constant = state.y_m2 <= state.s * noise**2
        spread = np.where(constant, np.nan, state.y_m2)
        return ScoreResult(
            r2=np.asarray(1 - state.rr / spread),
            rmse=np.asarray(np.sqrt(state.rr / state.s) / self._unit),
            high=state.high,
        )

    def is_finite(self, state: ScoreState) -> bool:
        return bool(np.isfinite(state.rr).all())
