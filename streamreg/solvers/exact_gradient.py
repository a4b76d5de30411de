"""f and ∇f in two floats, and the point at which they are measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.residuals import Residuals
from streamreg.kernels.two_float import TwoFloats, product

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.standardization import Coordinates


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
        return ExactPoint(self.w.plus(TwoFloats.of(columns)), self.b.plus(offset))


class Measured(NamedTuple):
    """What a pass measures."""

    loss: Float64  # (K,) f
    gradient: Float64  # (D + 1, K) ∇f, in coordinates
    image: Float64  # (D + 1, 1) ∇²f·d of a direction d; (D + 1, 0) without one


def _at_centre(coordinates: Coordinates, columns: Float64) -> TwoFloats:
    """Return c·w, (K,)."""
    return product(TwoFloats.of(coordinates.centre[:, None]), TwoFloats.of(columns))


def measure_exactly(
    coordinates: Coordinates, point: ExactPoint, direction: Float64 | None = None
) -> Measured:
    """Run one pass in two floats, perhaps with a direction (D + 1, 1)."""
    problem, units, scale = coordinates.problem, coordinates.units, coordinates.scale[:, None]
    w, b, k = point.w, point.b, problem.n_targets
    if direction is not None:
        columns = direction[:-1] / scale
        offset = TwoFloats.of(direction[-1]).plus(-_at_centre(coordinates, columns))
        w = TwoFloats(np.hstack([w.high, columns]), np.hstack([w.low, 0 * columns]))
        b = TwoFloats(*(np.append(*pair) for pair in zip(b, offset, strict=True)))
    result = coordinates.reduce(Residuals(w, b, k, None if units.is_one else units))
    moved = TwoFloats.of(coordinates.centre[:, None]).times(result.sums)
    products = result.products.plus(-moved)
    rr = TwoFloats(result.rr.high[:k], result.rr.low[:k])
    root = problem.penalty.root(units.x)[:, None]
    if root.any():
        penalised = TwoFloats.of(root).times(w)
        squares = product(penalised, penalised)
        rr = rr.plus(result.s.times(TwoFloats(squares.high[:k], squares.low[:k])))
        products = products.plus(result.s.times(TwoFloats.of(root).times(penalised)))
    s = result.s.high
    inner = products.high / s / scale
    bias = result.sums.high[None] / s
    gradient = np.vstack([inner, bias if problem.fit_intercept else np.zeros_like(bias)])
    return Measured(0.5 * rr.high / s, gradient[:, :k], gradient[:, k:])
