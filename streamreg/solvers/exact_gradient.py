"""f and ∇f in two floats, and the point at which they are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.residuals import Residuals
from streamreg.kernels.two_float import TwoFloats, total, two_product

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Float64
    from streamreg.solvers.standardization import Coordinates

# rows of this size are computed at a time
_PART_NBYTES = 1 << 17


class ExactPoint(NamedTuple):
    """Weights of columns in the units of :class:`Scaling`, not in coordinates; and intercepts."""

    w: TwoFloats  # (D, K)
    b: TwoFloats  # (K,)

    @classmethod
    def of(cls, coordinates: Coordinates, theta: Float64) -> ExactPoint:
        """Return the point of θ (D + 1, K)."""
        k = theta.shape[1]
        zero = cls(TwoFloats.of(np.zeros((len(theta) - 1, k))), TwoFloats.of(0 * theta[-1]))
        start = zero.moved(coordinates, theta)
        return start._replace(b=start.b.plus(TwoFloats.of(coordinates.y_centre)))

    def theta(self, coordinates: Coordinates) -> Float64:
        """Return θ of the point, (D + 1, K), rounded."""
        w, problem = self.w.rounded(), coordinates.problem
        scale = np.where(np.isfinite(coordinates.scale), coordinates.scale, 0.0)
        b = self.b.rounded() - coordinates.y_centre + coordinates.centre @ w
        return np.vstack([w * scale[:, None], b if problem.fit_intercept else 0 * b])

    def moved(self, coordinates: Coordinates, step: Float64) -> ExactPoint:
        """Return the point after a step of θ, (D + 1, K)."""
        columns = step[:-1] / coordinates.scale[:, None]
        offset = TwoFloats.of(step[-1]).plus(-_at_centre(coordinates, columns))
        if not coordinates.problem.fit_intercept:
            offset = TwoFloats.of(0 * step[-1])
        w = TwoFloats(*np.empty((2, *columns.shape)))
        for rows in _parts(columns):
            moved = _rows(self.w, rows).plus(TwoFloats.of(columns[rows]))
            w.high[rows], w.low[rows] = moved
        return ExactPoint(w, self.b.plus(offset))


class Measured(NamedTuple):
    """What a pass measures."""

    loss: Float64  # (K,) f
    gradient: Float64  # (D + 1, K) ∇f, in coordinates
    image: Float64  # (D + 1, 1) ∇²f·d of a direction d; (D + 1, 0) without one


def _at_centre(coordinates: Coordinates, columns: Float64) -> TwoFloats:
    """Return c·w, (K,)."""
    high, low = np.empty_like(columns), np.empty_like(columns)
    for rows in _parts(columns):
        high[rows], low[rows] = two_product(coordinates.centre[rows, None], columns[rows])
    return total(high, low)


def _parts(columns: Float64) -> Iterator[slice]:
    """Divide rows, because sums and products in two floats take ten arrays as large."""
    step = max(1, _PART_NBYTES // (8 * columns.shape[1]))
    for start in range(0, len(columns), step):
        yield slice(start, start + step)


def measure_exactly(
    coordinates: Coordinates, point: ExactPoint, direction: Float64 | None = None
) -> Measured:
    """Run one pass in two floats, perhaps with a direction (D + 1, 1)."""
    problem, units, k = coordinates.problem, coordinates.units, coordinates.problem.n_targets
    both = *_with_direction(coordinates, point, direction), k, None if units.is_one else units
    residuals = Residuals(*both)
    # frees its arrays, which are copied
    del both
    w, result = residuals.coefficients, coordinates.reduce(residuals)
    root, scale = problem.penalty.root(units.x), coordinates.scale
    rr, s = TwoFloats(result.rr.high[:k], result.rr.low[:k]), result.s.high
    gradient = np.zeros((w.high.shape[1], len(scale) + 1)).T
    squares = TwoFloats(*np.zeros((2, len(scale), k)))
    for rows in _parts(w.high):
        moved = TwoFloats.of(coordinates.centre[rows, None]).times(result.sums)
        products = _rows(result.products, rows).plus(-moved)
        if root.any():
            share = TwoFloats.of(root[rows, None])
            penalised = share.times(_rows(w, rows))
            products = products.plus(result.s.times(share.times(penalised)))
            squared = penalised.times(penalised)
            squares.high[rows], squares.low[rows] = squared.high[:, :k], squared.low[:, :k]
        gradient[:-1][rows] = products.high / s / scale[rows, None]
    if root.any():
        rr = rr.plus(result.s.times(total(*squares)))
    if problem.fit_intercept:
        gradient[-1] = result.sums.high / s
    return Measured(0.5 * rr.high / s, gradient[:, :k], gradient[:, k:])


def _with_direction(
    coordinates: Coordinates, point: ExactPoint, direction: Float64 | None
) -> tuple[TwoFloats, TwoFloats]:
    """Return weights and intercepts of the point, and of a direction as the last column."""
    if direction is None:
        return point.w, point.b
    columns = direction[:-1] / coordinates.scale[:, None]
    offset = TwoFloats.of(direction[-1]).plus(-_at_centre(coordinates, columns))
    w = TwoFloats(
        np.hstack([point.w.high, columns]), np.hstack([point.w.low, np.zeros_like(columns)])
    )
    return w, TwoFloats(*(np.append(*pair) for pair in zip(point.b, offset, strict=True)))


def _rows(values: TwoFloats, rows: slice) -> TwoFloats:
    return TwoFloats(values.high[rows], values.low[rows])
