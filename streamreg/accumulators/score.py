"""Residuals, and the spread of y and of predictions, in O(K): R², RMSE and Pearson's r."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.accumulators.merging import copy_fields
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels import scratch
from streamreg.kernels.tiles import parts, sparse_part_rows, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


# of a tile: y, ŷ, r and ŷ of the next, y and ŷ centred, and two products
_ARRAYS_ALIVE = 8
# values of a tile of many targets, which are compared with y some at a time
_TILE_VALUES = 1 << 17


class ScoreState(NamedTuple):
    """Sums over the rows so far."""

    s: Float64  # ()    Σ sᵢ
    rr: Float64  # (K,)  Σ sᵢ (yᵢ - ŷᵢ)²
    y_origin: Float64  # (K,)  the first y
    y_mean: Float64  # (K,)  ȳ less it
    y_m2: Float64  # (K,)  Σ sᵢ (yᵢ - ȳ)²
    high: Float64  # (K,)  max |yᵢ|, never scaled
    p_origin: Float64  # (K,)  the first ŷ
    p_mean: Float64  # (K,)  the mean of ŷ less it
    p_m2: Float64  # (K,)  Σ sᵢ (ŷᵢ - mean)²
    cross: Float64  # (K,)  Σ sᵢ (yᵢ - ȳ)(ŷᵢ - mean)


class ScoreResult(NamedTuple):
    """How well predictions agree with y."""

    r2: Float64  #   (K,) the coefficient of determination; NaN where y is constant
    rmse: Float64  # (K,) √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ)
    high: Float64  # (K,) max |y|
    pearson_r: Float64  # (K,) the correlation of y and ŷ; NaN where either is constant


class PredictedTile(NamedTuple):
    """Some rows of k targets of y beside their predictions."""

    y: Float64  # (n, k)
    predicted: Float64  # (n, k)  ŷ
    residual: Float64  # (n, k)  (y - ŷ)·y_scale
    weight: Float64  # (n,)
    targets: slice  # which of the K


@dataclass(frozen=True, eq=False)
class Score(Accumulator[ScoreState, ScoreResult]):
    """How well predictions agree with each target: R², root mean square of residuals, correlation.

        R² = 1 - Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ (yᵢ - ȳ)²          (K,)
        RMSE = √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ)                   (K,)
        r = Σ sᵢ (yᵢ - ȳ)(ŷᵢ - p) / √(Σ sᵢ (yᵢ - ȳ)² · Σ sᵢ (ŷᵢ - p)²)     p the mean of ŷ; (K,)

    R² is NaN for a constant target, and r also for constant predictions. ``y_scale`` multiplies y
    and ŷ where their squares would leave float64's range. The state is O(K). Targets
    are predicted some at a time, so that a tile stays in the processor's cache.
    """

    coefficients: Float64  # (D, K)
    intercept: Float64  # (K,)
    y_scale: Float64 | None = None  # (K,)
    y_columns: slice | None = None  # the K columns of y, if y has more

    @property
    def reads_tiles(self) -> bool:  # type: ignore[override]
        """Whether X may stay in its files: BLAS predicts many targets, from rows in memory."""
        return not self._are_many

    @property
    def state_nbytes(self) -> int:
        return 8 * (9 * len(self.intercept) + 1)

    @property
    def scratch_nbytes(self) -> int:
        return scratch_nbytes(*map(int, self.coefficients.shape))

    @property
    def sparse_scratch_nbytes(self) -> int:
        """The most bytes that ``update`` allocates for sparse rows."""
        return sparse_scratch_nbytes(*map(int, self.coefficients.shape))

    def zero(self) -> ScoreState:
        k = len(self.intercept)
        return ScoreState(np.zeros(()), *(np.zeros(k) for _ in range(9)))

    def update(self, state: ScoreState, block: Block, kernels: Kernels) -> ScoreState:
        for tile in self.predict(block, kernels):
            state = self.add(state, tile)
        return state

    def predict(self, block: Block, kernels: Kernels) -> Iterator[PredictedTile]:
        """Yield the rows of a block with their predictions, a tile at a time."""
        d, k = self.coefficients.shape
        predict, step = kernels.find("predict"), k
        if self._are_many and block.kind != "sparse":
            predict, step = numpy_kernels.predict, _targets_at_once(d, k)
        for X, tile_y, weight in parts(block, numpy_kernels.predict_rows(d, k)):
            s = weights_of(weight, len(tile_y))
            whole_y = tile_y if self.y_columns is None else tile_y[:, self.y_columns]
            for start in range(0, k, step):
                targets = slice(start, min(start + step, k))
                y = whole_y[:, targets].astype(np.float64)
                w, b = self.coefficients[:, targets], self.intercept[targets]
                if self.y_scale is None:
                    predicted = predict(X, w, b)
                    residual = y - predicted
                else:
                    # scaled down before the product and up after it, so that nothing overflows
                    smaller = np.minimum(self.y_scale[targets], 1.0)
                    predicted = predict(X, w * smaller, b * smaller)
                    residual = (y * smaller - predicted) * np.maximum(self.y_scale[targets], 1.0)
                    predicted /= smaller
                yield PredictedTile(y, predicted, residual, s, targets)

    def add(self, state: ScoreState, tile: PredictedTile) -> ScoreState:
        """Add rows to a state, which is written to; the last targets of the rows count them."""
        y, predicted, r, s, targets = tile
        total, unit = s.sum(), None if self.y_scale is None else self.y_scale[targets]
        some = ScoreState(state.s.copy(), *(each[targets] for each in state[1:]))

        def centred(values: Float64, origin: Float64) -> tuple[Float64, Float64, Float64]:
            """Return the origin, the mean less it, and the centred values."""
            scaled = values if unit is None else values * unit
            if not some.s:
                origin = scaled[0].copy()
            z = scaled - origin
            mean = s @ z / total
            z -= mean
            return origin, mean, z

        y_origin, y_mean, y_z = centred(y, some.y_origin)
        p_origin, p_mean, p_z = centred(predicted, some.p_origin)
        added = ScoreState(
            s=total,
            rr=s @ (r * r),
            y_origin=y_origin,
            y_mean=y_mean,
            y_m2=s @ y_z**2,
            high=np.abs(y).max(axis=0),
            p_origin=p_origin,
            p_mean=p_mean,
            p_m2=s @ p_z**2,
            cross=s @ (y_z * p_z),
        )
        self.merge(some, added)
        if targets.stop == len(self.intercept):
            state.s[...] = some.s
        return state

    @property
    def _are_many(self) -> bool:
        return len(self.intercept) > numpy_kernels.FEW_TARGETS

    @property
    def _unit(self) -> Float64:
        return np.ones_like(self.intercept) if self.y_scale is None else self.y_scale

    def merge(self, a: ScoreState, b: ScoreState) -> ScoreState:
        if not b.s:
            return a
        if not a.s:
            copy_fields(a, b)
            return a
        share = b.s / (a.s + b.s)
        # in this order, because the difference of similar origins is exact
        delta = (b.y_origin - a.y_origin) + (b.y_mean - a.y_mean)
        p_delta = (b.p_origin - a.p_origin) + (b.p_mean - a.p_mean)
        np.add(a.y_m2, b.y_m2 + a.s * share * delta * delta, out=a.y_m2)
        np.add(a.p_m2, b.p_m2 + a.s * share * p_delta * p_delta, out=a.p_m2)
        np.add(a.cross, b.cross + a.s * share * delta * p_delta, out=a.cross)
        np.add(a.y_mean, share * delta, out=a.y_mean)
        np.add(a.p_mean, share * p_delta, out=a.p_mean)
        np.add(a.rr, b.rr, out=a.rr)
        np.maximum(a.high, b.high, out=a.high)
        np.add(a.s, b.s, out=a.s)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: ScoreState) -> ScoreResult:
        spread = _spread(state.s, state.y_m2, state.y_origin + state.y_mean)
        p_spread = _spread(state.s, state.p_m2, state.p_origin + state.p_mean)
        # apart, because the product of squares may leave float64's range
        pearson_r = state.cross / np.sqrt(spread) / np.sqrt(p_spread)
        return ScoreResult(
            r2=np.asarray(1 - state.rr / spread),
            rmse=np.asarray(np.sqrt(state.rr / state.s) / self._unit),
            high=state.high,
            pearson_r=np.clip(pearson_r, -1.0, 1.0),
        )

    def is_finite(self, state: ScoreState) -> bool:
        return bool(np.isfinite(state.rr).all())


def _spread(s: Float64, m2: Float64, mean: Float64) -> Float64:
    """Return sums of squares; NaN where values differ from their mean by rounding only."""
    noise = 4 * np.finfo(float).eps * np.abs(mean)
    return np.where(m2 <= s * noise**2, np.nan, m2)


def scratch_nbytes(n_features: int, n_targets: int) -> int:
    """Return the most bytes that ``Score.update`` allocates for K targets."""
    rows = numpy_kernels.predict_rows(n_features, n_targets)
    at_once = _targets_at_once(n_features, n_targets)
    predicted = scratch.predict_nbytes(n_features, n_targets)
    return predicted + 8 * at_once * (_ARRAYS_ALIVE * rows + n_features)


def sparse_scratch_nbytes(n_features: int, n_targets: int) -> int:
    """Return the most bytes that ``Score.update`` allocates for sparse rows."""
    return 8 * n_targets * (_ARRAYS_ALIVE * sparse_part_rows(n_targets) + n_features)


def _targets_at_once(n_features: int, n_targets: int) -> int:
    """Return how many targets of a tile are predicted at once: few all, else at least 64."""
    few, rows = numpy_kernels.FEW_TARGETS, numpy_kernels.predict_rows(n_features, n_targets)
    return min(n_targets, max(few, _TILE_VALUES // rows))
