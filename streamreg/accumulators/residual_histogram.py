"""How residuals are distributed over fitted values: counts in bins that widen as rows are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.accumulators.score import Score, ScoreState
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.tiles import sparse_part_rows

if TYPE_CHECKING:
    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Kernels

# no bin is narrower than 2⁻⁴⁰ of the largest value, because rounding would fill several
_PRECISION_BITS = 40
_SMALLEST_EXPONENT = -1074  # of float64


class ResidualHistogramState(NamedTuple):
    """Sums and counts over the rows so far; the first ten fields are those of ``ScoreState``."""

    s: Float64  # ()
    rr: Float64  # (K,)
    y_origin: Float64  # (K,)
    y_mean: Float64  # (K,)
    y_m2: Float64  # (K,)
    y_high: Float64  # (K,)
    p_origin: Float64  # (K,)
    p_mean: Float64  # (K,)
    p_m2: Float64  # (K,)
    cross: Float64  # (K,)
    n: Float64  # ()  rows
    low: Float64  # (2,)  the least fitted value and residual
    high: Float64  # (2,)  the largest
    counts: Float64  # (F, R)  rows in each bin


class ResidualHistogramResult(NamedTuple):
    """How well predictions agree with y, and the rows in each bin.

    Edges are equidistant; the bins of the lowest and the highest values are not empty.
    """

    r2: Float64  # (K,) the coefficient of determination; NaN where y is constant
    rmse: Float64  # (K,) root mean square of residuals
    high: Float64  # (K,) max |y|
    pearson_r: Float64  # (K,) the correlation of y and ŷ; NaN where either is constant
    n: Float64  # () rows
    fitted_edges: Float64  # (f + 1,)
    residual_edges: Float64  # (r + 1,)
    counts: Float64  # (f, r)


class Bins(NamedTuple):
    """The intervals [i·2ᵉ, (i + 1)·2ᵉ), of which the first that is counted has i = ``first``."""

    exponent: int  # e
    first: int
    size: int  # the number of intervals from the lowest value to the highest

    @classmethod
    def between(cls, low: float, high: float, most: int) -> Bins:
        """Return the narrowest bins of which at most ``most`` hold all values in [low, high].

        They are a function of the range alone. If the range grows, bins are joined in pairs, so
        that counts are exact whatever the order of the rows.
        """
        _, largest = np.frexp(max(abs(low), abs(high)))
        e = max(int(largest) - _PRECISION_BITS, _SMALLEST_EXPONENT)
        if width := high / most - low / most:
            # the lowest e that could do: 2ᵉ ≤ (high - low) / most
            e = max(e, int(np.frexp(width)[1]) - 1)
        while (size := _number(high, e) - _number(low, e) + 1) > most:
            e += 1
        return cls(e, _number(low, e), size)

    def places(self, values: Float64) -> Array:
        """Return the bin of each value, from 0."""
        return _numbers(values, self.exponent).astype(np.int64) - self.first

    def joined_in(self, wider: Bins) -> tuple[Array, slice]:
        """Return the first of these bins in each bin of ``wider``, and the place of those."""
        numbers = np.arange(self.first, self.first + self.size)
        numbers >>= min(wider.exponent - self.exponent, 63)
        firsts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        place = int(numbers[0]) - wider.first
        return firsts, slice(place, place + len(firsts))

    @property
    def edges(self) -> Float64:
        """The limits of the bins, (size + 1,)."""
        numbers = np.arange(self.first, self.first + self.size + 1, dtype=np.float64)
        edges: Float64 = np.ldexp(numbers, self.exponent)
        return edges


def _number(value: float, exponent: int) -> int:
    return int(_numbers(np.asarray(value), exponent))


def _numbers(values: Float64, exponent: int) -> Float64:
    """Return the numbers of the intervals that hold these values."""
    scaled = np.ldexp(values, -exponent)
    # small negative values would become 0, and change to the interval above 0
    scaled = np.where(values < 0, np.minimum(scaled, -np.finfo(float).smallest_subnormal), scaled)
    return np.asarray(np.floor(scaled))


@dataclass(frozen=True, eq=False)
class ResidualHistogram(Accumulator[ResidualHistogramState, ResidualHistogramResult]):
    """Rows counted by fitted value ŷ and residual y - ŷ of one target, and R² and RMSE of all.

    The bins are intervals of a power of two, and are joined in pairs while rows are read, so that
    one pass is enough. Between half and all of the F × R bins are in use. Rows count as one,
    whatever their weights; R² and RMSE are weighted.
    """  # noqa: RUF002

    reads_tiles = True

    coefficients: Float64  # (D, K)
    intercept: Float64  # (K,)
    y_scale: Float64 | None = None  # (K,)  of R² and RMSE
    target: int = 0
    shape: tuple[int, int] = (256, 512)  # F, R
    y_columns: slice | None = None  # the K columns of y, if y has more

    @property
    def state_nbytes(self) -> int:
        return self._score.state_nbytes + 8 * (1 + 2 + 2) + self._counts_nbytes

    @property
    def scratch_nbytes(self) -> int:
        rows = numpy_kernels.predict_rows(*map(int, self.coefficients.shape))
        # places of a tile's rows, and copies of the counts while bins are joined
        return self._score.scratch_nbytes + 8 * 10 * rows + 3 * self._counts_nbytes

    @property
    def sparse_scratch_nbytes(self) -> int:
        """The most bytes that ``update`` allocates for sparse rows."""
        rows = sparse_part_rows(len(self.intercept))
        return self._score.sparse_scratch_nbytes + 8 * 10 * rows + 3 * self._counts_nbytes

    def zero(self) -> ResidualHistogramState:
        none = np.full(2, np.inf)
        score = self._score.zero()
        return ResidualHistogramState(*score, np.zeros(()), none, -none, np.zeros(self.shape))

    def update(
        self, state: ResidualHistogramState, block: Block, kernels: Kernels
    ) -> ResidualHistogramState:
        unit = 1.0 if self.y_scale is None else self.y_scale[self.target]
        for tile in self._score.predict(block, kernels):
            self._score.add(_score_of(state), tile)
            at = self.target - tile.targets.start
            if 0 <= at < tile.y.shape[1]:
                fitted, residual = tile.predicted[:, at], tile.residual[:, at] / unit
                self._count(state, np.stack([fitted, residual]))
        return state

    def merge(self, a: ResidualHistogramState, b: ResidualHistogramState) -> ResidualHistogramState:
        if b.n:
            self._score.merge(_score_of(a), _score_of(b))
            self._widen(a, b.low, b.high)
            if np.isfinite([a.low, a.high]).all():
                self._add_counts(a.counts, self._bins(a), b.counts, self._bins(b))
            a.n[...] += b.n
        return a

    def finalize(self, state: ResidualHistogramState) -> ResidualHistogramResult:
        score = self._score.finalize(_score_of(state))
        if not (state.n and self.is_finite(state)):
            none, no_counts = np.zeros(1), np.zeros((0, 0))
            return ResidualHistogramResult(*score, state.n, none, none, no_counts)
        fitted, residual = self._bins(state)
        counts = state.counts[: fitted.size, : residual.size].copy()
        return ResidualHistogramResult(*score, state.n, fitted.edges, residual.edges, counts)

    def is_finite(self, state: ResidualHistogramState) -> bool:
        is_finite = np.isfinite([state.low, state.high]).all() or not state.n
        return bool(is_finite) and self._score.is_finite(_score_of(state))

    @property
    def _score(self) -> Score:
        return Score(self.coefficients, self.intercept, self.y_scale, self.y_columns)

    @property
    def _counts_nbytes(self) -> int:
        return 8 * self.shape[0] * self.shape[1]

    def _bins(self, state: ResidualHistogramState) -> list[Bins]:
        ranges = zip(state.low.tolist(), state.high.tolist(), self.shape, strict=True)
        return [Bins.between(*each) for each in ranges]

    def _count(self, state: ResidualHistogramState, values: Float64) -> None:
        """Count rows, whose fitted values and residuals are (2, n)."""
        self._widen(state, values.min(axis=1), values.max(axis=1))
        state.n[...] += values.shape[1]
        if np.isfinite([state.low, state.high]).all():
            fitted, residual = self._bins(state)
            places = fitted.places(values[0]) * self.shape[1] + residual.places(values[1])
            # one flat index, which NumPy adds at ten times as fast as at two
            np.add.at(state.counts.reshape(-1), places, 1.0)

    def _widen(self, state: ResidualHistogramState, low: Float64, high: Float64) -> None:
        """Join bins until they hold the range from ``low`` to ``high``.

        A range that is not finite is kept, and rows are no longer counted.
        """
        bins = self._bins(state) if state.n and np.isfinite([state.low, state.high]).all() else None
        np.minimum(state.low, low, out=state.low)
        np.maximum(state.high, high, out=state.high)
        if bins is None or not np.isfinite([state.low, state.high]).all():
            return
        wider = self._bins(state)
        if wider != bins:
            before = state.counts.copy()
            state.counts[...] = 0.0
            self._add_counts(state.counts, wider, before, bins)

    @staticmethod
    def _add_counts(counts: Float64, wider: list[Bins], others: Float64, bins: list[Bins]) -> None:
        """Add counts of some bins to those of bins that contain them."""
        (rows, fitted), (columns, residual) = (
            old.joined_in(new) for old, new in zip(bins, wider, strict=True)
        )
        used = others[: bins[0].size, : bins[1].size]
        joined = np.add.reduceat(np.add.reduceat(used, rows, axis=0), columns, axis=1)
        counts[fitted, residual] += joined


def _score_of(state: ResidualHistogramState) -> ScoreState:
    return ScoreState(*state[: len(ScoreState._fields)])
