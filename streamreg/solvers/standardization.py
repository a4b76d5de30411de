"""Standardised coordinates, as algebra on the results of a pass: X is never copied or written.

With centres c, scales σ and v = σ·w, predictions are ȳ + (x - c)·(v/σ) + b. A parameter vector θ
is (D + 1, K): v, and in its last row b, which stays 0 in a fit without intercept. If squares of the
data would leave float64's range, all this is in units of :class:`Scaling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Scaling, power_of_two
from streamreg.errors import InputError
from streamreg.kernels.base import Affine
from streamreg.solvers.base import EPS
from streamreg.solvers.diagnostics import (
    column_warnings,
    dependence_warnings,
    duplicate_groups,
    duplicate_warnings,
    outlier_warnings,
)

if TYPE_CHECKING:
    from streamreg.accumulators.moments import MomentsResult
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Mask, Numbers, Problem, Reduce

_TINY = float(np.finfo(float).tiny)


class Evaluation(NamedTuple):
    """f and its derivatives at θ, in coordinates."""

    loss: Float64  #       (K,)      f
    gradient: Float64  #   (D + 1, K) ∇f
    curvature: Float64  #  (D + 1, K) ∇²f·d; (D + 1, 0) without a direction


@dataclass(frozen=True, eq=False)
class Coordinates:
    """The map between the user's units and those of a solver."""

    problem: Problem
    reduce: Reduce
    units: Scaling  # factors of X and y; ones if no square leaves float64's range
    centre: Float64  # (D,) c, in the units; zeros if nothing is centred
    y_centre: Float64  # (K,) ȳ, likewise
    scale: Float64  # (D,) σ; infinite for constant columns, whose coefficients stay 0
    is_centred: bool  # whether ∇²f is 1 for the intercept, and 0 between it and the weights
    # (D,) what kernels subtract from rows; of the rest of c, c·Σr is subtracted from products
    shift: Float64 | None
    # (D,) shares of rows that store each column, by weight; None if dense, or not measured
    stored: Float64 | None = None

    @property
    def _rest(self) -> Float64:
        """What kernels do not subtract of c, (D,)."""
        return self.centre if self.shift is None else self.centre - self.shift

    @classmethod
    def raw(cls, problem: Problem, reduce: Reduce) -> Coordinates:
        """Return the user's own units."""
        d, k = problem.n_features, problem.n_targets
        units = Scaling(np.ones(d), np.ones(k))
        return cls(
            problem,
            reduce,
            units,
            np.zeros(d),
            np.zeros(k),
            np.ones(d),
            is_centred=False,
            shift=None,
        )

    def to_user(self, theta: Float64) -> tuple[Float64, Float64]:
        """Return w (D, K) and b (K,) of θ; raise :class:`InputError` if float64 cannot hold one."""
        columns = theta[:-1] / self.scale[:, None]
        return self.in_user_units(columns, theta[-1] + self.y_centre - self.centre @ columns)

    def in_user_units(self, columns: Float64, offset: Float64) -> tuple[Float64, Float64]:
        """Return w (D, K) and b (K,) of weights and intercepts of columns in the units."""
        w = user_weights(self.problem, self.units, self.scale, columns)
        b = np.ldexp(offset, -_exponents(self.units.y))
        return w, b if self.problem.fit_intercept else np.zeros_like(b)

    def weights_from_user(self, w: Float64) -> Float64:
        """Return v of w (D, K)."""
        scale = np.where(np.isfinite(self.scale), self.scale, 0.0)
        x, y = _exponents(self.units.x), _exponents(self.units.y)
        return np.asarray(np.ldexp(w, y - x[:, None]) * scale[:, None])

    def user_loss(self, loss: Float64) -> float:
        """Return f, summed over targets, in the user's units."""
        return user_loss(self.units, loss)

    def products(self, directions: Float64) -> Float64:
        """Run one pass: ∇²f times directions (D + 1, M)."""
        return self.products_of(directions[:-1] / self.scale[:, None], directions[-1])

    def products_of(self, columns: Float64, intercepts: Float64) -> Float64:
        """Run one pass: ∇²f times directions σ·columns (D, M), and intercepts (M,)."""
        x_scale = None if (self.units.x == 1).all() else self.units.x
        x = Affine(x_scale, self.shift)
        offset = intercepts - self._rest @ columns
        result = self.reduce(self.problem.gradient(columns, offset, 0, x))
        return self._derivative(result.gradient, result.bias, columns)

    def evaluate(self, theta: Float64, direction: Float64 | None = None) -> Evaluation:
        """Run one pass: f and ∇f at θ, and ∇²f along a direction."""
        k = self.problem.n_targets
        both = theta if direction is None else np.hstack([theta, direction])
        columns = both[:-1] / self.scale[:, None]
        offset = both[-1] - self._rest @ columns
        x_scale, y_scale = (None if (unit == 1).all() else unit for unit in self.units)
        x = Affine(x_scale, self.shift)
        y = Affine(y_scale, self.y_centre if self.y_centre.any() else None)
        loss, penalty = self.problem.loss, self.problem.penalty
        result = self.reduce(self.problem.gradient(columns, offset, k, x, y))
        return Evaluation(
            loss=loss.value(result) + penalty.value(columns[:, :k], self.units.x[:, None]),
            gradient=self._derivative(result.gradient[:, :k], result.bias[:k], columns[:, :k]),
            curvature=self._derivative(result.gradient[:, k:], result.bias[k:], columns[:, k:]),
        )

    def _derivative(self, products: Float64, sums: Float64, columns: Float64) -> Float64:
        # a column at a time, because arrays of this size are most of the memory
        out, rest = np.zeros((len(products) + 1, len(sums))), self._rest
        root = self.problem.penalty.root(self.units.x)
        for column, total in enumerate(sums):
            product = products[:, column]
            if rest.any():
                product = product - rest * total
            np.divide(product, self.scale, out=out[:-1, column])
            if root.any():
                out[:-1, column] += (root / self.scale) * (root * columns[:, column])
        if self.problem.fit_intercept:
            out[-1] = sums
        return out


def user_weights(problem: Problem, units: Scaling, scale: Float64, columns: Float64) -> Float64:
    """Return weights (D, K) of columns in the units, in the user's units; σ tells which matter.

    Raises
    ------
    InputError
        float64 cannot hold a weight.
    """
    x, y = _exponents(units.x), _exponents(units.y)
    w = np.ldexp(columns, x[:, None] - y)
    sizes = np.abs(columns) * np.where(np.isfinite(scale), scale, 0.0)[:, None]
    matters = sizes > EPS * np.max(sizes, axis=0)
    # a penalty may shrink a weight to 0
    matters &= not problem.penalty.strength
    # not `>= inf`, because NaN must be refused too
    outside = ~(np.abs(w) < np.inf) | (matters & (np.abs(w) < _TINY))
    if outside.any():
        numbers = np.flatnonzero(outside.any(axis=1))
        raise InputError(
            f"{problem.columns(numbers)} would get weights outside 1e-308 to 1e308, which "
            "float64 cannot hold: the values are too small or too large compared with y; "
            "store them in other units"
        )
    return np.asarray(w)


def user_loss(units: Scaling, loss: Float64) -> float:
    """Return f, summed over targets, in the user's units."""
    return float(np.sum(np.ldexp(loss, -2 * _exponents(units.y))))


def _exponents(powers: Float64) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.frexp(powers)[1] - 1


# means above this many deviations are subtracted from the rows, which copies each tile; for smaller
# means, c·Σr is subtracted from the products, which loses at most log10(32) digits
_LARGE_MEAN = 32.0
# columns whose deviations differ by a smaller factor are all divided by the same number, so that
# the solution of least norm is the same as in the user's units
_SIMILAR_FACTOR = 4.0


class Standardised(NamedTuple):
    """What the first pass of a solver finds."""

    coordinates: Coordinates
    evaluation: Evaluation  # at θ = 0: w = 0, b = ȳ
    warnings: list[str]
    has_enough_rows: bool  # to determine all weights
    duplicates: list[Numbers]  # groups of columns that are multiples of each other


def standardise(problem: Problem, reduce: Reduce) -> Standardised:
    """Return standardised coordinates, f and ∇f at θ = 0 (w = 0, b = ȳ), and warnings.

    This takes one pass, one more for values whose squares leave float64's range, and one more if
    columns look like multiples of each other.
    """
    moments, units, warnings = measure(problem, reduce)
    d, k = problem.n_features, problem.n_targets
    cross, variance = moments.cross.T, moments.y_variance
    if problem.fit_intercept:
        spread, centre, y_centre = moments.deviation, moments.mean, moments.y_mean
    else:
        spread, centre = np.hypot(moments.deviation, moments.mean), np.zeros(d)
        y_centre = np.zeros(k)
        cross = cross + np.outer(moments.mean, moments.y_mean)
        variance = variance + moments.y_mean**2
    constant = is_constant(spread, centre)
    far = (np.abs(centre) > _LARGE_MEAN * spread) & ~constant
    scale = norm_scales(spread, constant, problem.penalty.root(units.x))
    coordinates = Coordinates(
        problem,
        reduce,
        units,
        centre,
        y_centre,
        scale,
        is_centred=problem.fit_intercept,
        shift=_shift(centre, far, moments.stored),
        stored=moments.stored,
    )
    # r = -y + ȳ, so that the gradient is minus the covariance
    gradient = np.vstack([-cross / scale[:, None], np.zeros((1, k))])
    evaluation = Evaluation(0.5 * variance, gradient, np.empty((d + 1, 0)))
    groups: list[Numbers] = []
    warnings += column_warnings(problem, constant, moments.low < moments.high)
    if not problem.penalty.strength:
        warnings += dependence_warnings(problem, moments, constant)
        groups = duplicate_groups(
            gradient,
            np.where((spread > 0) & ~constant, scale / spread, 0.0),
            lambda d: coordinates.evaluate(np.zeros_like(d), d).curvature,
        )
        warnings += duplicate_warnings(problem, groups)
    return Standardised(
        coordinates,
        evaluation,
        warnings,
        has_enough_rows=bool(moments.n - problem.fit_intercept >= np.count_nonzero(~constant)),
        duplicates=groups,
    )


def _shift(centre: Float64, far: Mask, stored: Float64 | None) -> Float64 | None:
    """Return what kernels subtract from rows, if the means of some columns are far from 0.

    Of sparse rows it is 0 in columns that a row lacks: they would store every value, and their
    means are at most √N deviations.
    """
    if stored is not None:
        far = far & (stored == 1.0)
    if not far.any():
        return None
    return centre if stored is None else np.where(far, centre, 0.0)


def measure(problem: Problem, reduce: Reduce) -> tuple[MomentsResult, Scaling, list[str]]:
    """Return moments, units that keep their squares in float64's range, and warnings."""
    d, k = problem.n_features, problem.n_targets
    moments = reduce(problem.moments(d, k))
    units = Scaling(
        power_of_two(np.maximum(np.abs(moments.low), np.abs(moments.high))),
        power_of_two(np.maximum(np.abs(moments.y_low), np.abs(moments.y_high))),
    )
    if units.is_one:
        return moments, units, []
    moments = reduce(problem.moments(d, k, units))
    return moments, units, list(outlier_warnings(problem, moments, units))


def is_constant(spread: Float64, mean: Float64) -> Mask:
    """Return which columns are constant to rounding."""
    return np.asarray(spread <= 4 * EPS * np.abs(mean))


def norm_scales(spread: Float64, constant: Mask, root: Float64) -> Float64:
    """Return the roots of ∇²f's diagonal, (D,): without a penalty, the deviations."""
    scale = np.hypot(spread, root)
    varying = spread[~constant]
    if len(varying) and not root.any() and varying.max() <= _SIMILAR_FACTOR * varying.min():
        scale = np.full_like(spread, np.exp(np.mean(np.log(varying))))
    scale[constant] = np.inf
    return scale
