"""Standardised coordinates, as algebra on the results of a pass: X is never copied or written.

With centres c, scales σ and v = σ·w, predictions are (x - c)·(v/σ) + b. A parameter vector θ is
(D + 1, K): v, and in its last row b, which stays 0 in a fit without intercept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.moments import Moments, MomentsResult

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Reduce

# means this many deviations from zero are taken from the rows; below, subtracting c·Σr from the
# products costs at most log10(32) digits and no second copy of each tile
_LARGE_MEAN = 32.0
# columns whose deviations differ by less are left as they are in relation to each other, so that
# the solution of least norm is that of the user's units
_ALIKE = 4.0
# squares of what lies beyond, times 10⁹ rows, leave float64's range
_LARGEST, _SMALLEST = 2.0**450, 2.0**-450


class Evaluation(NamedTuple):
    """f and its derivatives at θ, in coordinates; of K targets at once."""

    loss: Float64  #       (K,)      f
    gradient: Float64  #   (D + 1, K) ∇f
    curvature: Float64  #  (D + 1, K) ∇²f·d; (D + 1, 0) without a direction


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The map between the user's units and those in which a solver works.

    Attributes
    ----------
    problem
        The objective.
    centre
        c (D,); zeros where nothing is centred.
    scale
        σ (D,); infinite for constant columns, whose coefficients stay 0.
    y_scale
        (K,) powers of two that y is multiplied by; ones for ordinary data.
    subtracts
        Whether the kernel takes c from each row, rather than c·Σr from the products.
    """

    problem: Problem
    centre: Float64
    scale: Float64
    y_scale: Float64
    subtracts: bool

    @classmethod
    def raw(cls, problem: Problem) -> Coordinates:
        """Return the user's own units."""
        d, k = problem.n_features, problem.n_targets
        return cls(problem, np.zeros(d), np.ones(d), np.ones(k), subtracts=False)

    def to_user(self, theta: Float64) -> tuple[Float64, Float64]:
        """Return w (D, K) and b (K,)."""
        w = theta[:-1] / self.scale[:, None]
        b = theta[-1] - self.centre @ w
        if not self.problem.fit_intercept:
            b = np.zeros_like(b)
        return w / self.y_scale, b / self.y_scale

    def weights_from_user(self, w: Float64) -> Float64:
        """Return v of w (D, K)."""
        scale = np.where(np.isfinite(self.scale), self.scale, 0.0)
        return np.asarray(w * self.y_scale * scale[:, None])

    def user_loss(self, loss: Float64) -> float:
        """Return f, summed over targets, in the user's units."""
        return float(np.sum(loss / self.y_scale**2))

    def evaluate(
        self, reduce: Reduce, theta: Float64, direction: Float64 | None = None
    ) -> Evaluation:
        """Run one pass: f and ∇f at θ, and ∇²f along a direction."""
        k = self.problem.n_targets
        both = theta if direction is None else np.hstack([theta, direction])
        columns = both[:-1] / self.scale[:, None]
        offset = both[-1] if self.subtracts else both[-1] - self.centre @ columns
        scaled = bool((self.y_scale != 1).any())
        result = reduce(
            Gradient(
                columns, offset, k,
                shift=self.centre if self.subtracts else None,
                y_scale=self.y_scale if scaled else None,
            )
        )  # fmt: skip
        l2 = self.problem.l2
        return Evaluation(
            loss=0.5 * result.rr + 0.5 * l2 * np.sum(columns[:, :k] ** 2, axis=0),
            gradient=self._derivative(result.gradient, result.bias, columns[:, :k]),
            curvature=self._derivative(result.product, result.product_bias, columns[:, k:]),
        )

    def _derivative(self, products: Float64, sums: Float64, columns: Float64) -> Float64:
        if not self.subtracts:
            products = products - np.outer(self.centre, sums)
        inner = (products + self.problem.l2 * columns) / self.scale[:, None]
        return np.vstack([inner, sums if self.problem.fit_intercept else np.zeros_like(sums)])


class Start(NamedTuple):
    """Coordinates, and what the pass that measured them tells of θ = (0, ȳ)."""

    coordinates: Coordinates
    theta: Float64
    evaluation: Evaluation
    warnings: list[str]


def standardise(problem: Problem, reduce: Reduce) -> Start:
    """Measure the columns in one pass and return standardised coordinates."""
    moments, scaling = measure(problem, reduce)
    d, k = problem.n_features, problem.n_targets
    if problem.fit_intercept:
        spread, centre = moments.deviation, moments.mean
        y_centre = moments.y_mean
    else:
        spread, centre = np.hypot(moments.deviation, moments.mean), np.zeros(d)
        y_centre = np.zeros(k)
    constant = moments.low == moments.high if problem.fit_intercept else spread == 0
    scale = _scales(spread, constant)
    with np.errstate(divide="ignore", invalid="ignore"):
        far = np.abs(centre) > _LARGE_MEAN * spread
    coordinates = Coordinates(
        problem, centre, scale, scaling.y, subtracts=bool((far & ~constant).any())
    )
    # at w = 0, b = ȳ: r = ȳ - y, so that the gradient is minus the covariance
    cross = moments.cross.T / scaling.x[:, None]
    variance = moments.y_variance
    if not problem.fit_intercept:
        cross = cross + np.outer(moments.mean, moments.y_mean)
        variance = variance + moments.y_mean**2
    theta = np.vstack([np.zeros((d, k)), y_centre])
    gradient = np.vstack([-cross / scale[:, None], np.zeros((1, k))])
    warnings = []
    if constant.any():
        numbers = [int(j) for j in np.flatnonzero(constant)]
        what = "constant" if problem.fit_intercept else "zero in every row"
        warnings.append(f"{problem.columns(numbers)} {_is(numbers)} {what}; coefficients set to 0")
    return Start(
        coordinates, theta, Evaluation(0.5 * variance, gradient, np.empty((d + 1, 0))), warnings
    )


def measure(problem: Problem, reduce: Reduce) -> tuple[MomentsResult, Scaling]:
    """Return moments, and the powers of two that kept their squares in float64's range."""
    d, k = problem.n_features, problem.n_targets
    moments = reduce(Moments(d, k))
    sizes = np.maximum(np.abs(moments.low), np.abs(moments.high))
    scaling = Scaling(_power_of_two(sizes), _power_of_two(moments.y_high))
    if (scaling.x != 1).any() or (scaling.y != 1).any():
        moments = reduce(Moments(d, k, scaling))
    return moments, scaling


def _power_of_two(sizes: Float64) -> Float64:
    """Return the factor that brings each size near 1; 1 for sizes whose squares are safe."""
    safe = (sizes == 0) | ((sizes > _SMALLEST) & (sizes < _LARGEST))
    _, exponents = np.frexp(np.where(safe, 1.0, sizes))
    # 2¹⁰²³ is the largest power; what is smaller still is brought as near as it can be
    return np.where(safe, 1.0, np.ldexp(1.0, np.minimum(-exponents, 1023)))


def _scales(spread: Float64, constant: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Float64:
    varying = spread[~constant & (spread > 0)]
    if len(varying) and varying.max() <= _ALIKE * varying.min():
        scale = np.full_like(spread, np.exp(np.mean(np.log(varying))))
    else:
        scale = spread.copy()
    scale[constant | (spread == 0)] = np.inf
    return scale


def _is(numbers: list[int]) -> str:
    return "is" if len(numbers) == 1 else "are"
