"""The equations of α, in which weights are combinations of rows: (ZZᵀ + μΣs·I) α = √s·y.

Z (N, D) holds √s·(x - x̄)·g, with factors g of columns: those of the norm that is least.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from scipy.linalg import blas

from streamreg.accumulators.column_weights import ColumnWeights
from streamreg.accumulators.fitted_values import FittedValues
from streamreg.accumulators.row_sums import RowSums
from streamreg.kernels.row_tiles import Columns
from streamreg.kernels.two_float import TwoFloats, product
from streamreg.solvers.base import EPS
from streamreg.solvers.factor import Factor
from streamreg.solvers.standardization import is_constant, norm_scales, user_weights

if TYPE_CHECKING:
    from streamreg.accumulators.base import Scaling
    from streamreg.accumulators.moments import MomentsResult
    from streamreg.blocks import Float64
    from streamreg.kernels.strips import Strips
    from streamreg.solvers.base import Mask, Problem, Reduce

_UNIT = EPS / 2  # u, the largest relative error of rounding
# as of sums in XᵀX: see sum_rounding
_ROUNDING_FACTOR = 8.0


@dataclass(frozen=True, eq=False)
class RowSpace:
    """How rows are centred and scaled, and weights are brought to the user's units."""

    problem: Problem
    units: Scaling  # factors of X and y; ones if no square leaves float64's range
    centre: Float64  # (D,) x̄, in the units; zeros if nothing is centred
    y_centre: Float64  # (K,) ȳ, likewise
    y_variance: Float64  # (K,)
    spread: Float64  # (D,) deviations, in the units
    constant: Mask  # (D,) columns whose coefficients stay 0
    factor: Float64  # (D,) g; 0 for constant columns
    product_factor: Float64 | None  # g where rows must be multiplied by it; None: they are not
    strength: float  # μ, the penalty of the scaled columns

    @classmethod
    def of(cls, problem: Problem, moments: MomentsResult, units: Scaling) -> RowSpace:
        """Choose g so that, of all solutions, ``closed_form`` takes the one with least ‖v‖.

        With a penalty λ, g/√μ is 1/√λ, in the user's units.
        """
        root = problem.penalty.root(units.x)
        d, k = problem.n_features, problem.n_targets
        if problem.fit_intercept:
            spread, centre, y_centre = moments.deviation, moments.mean, moments.y_mean
            variance = moments.y_variance
        else:
            spread, centre = np.hypot(moments.deviation, moments.mean), np.zeros(d)
            y_centre, variance = np.zeros(k), moments.y_variance + moments.y_mean**2
        constant, strength = is_constant(spread, centre), 0.0
        varying = ~constant
        if problem.penalty.strength:
            factor, strength = 1 / units.x, problem.penalty.strength
            if not (units.x == 1).all():
                # 2ᵉ, the largest deviation in the user's units, because squares must not overflow
                largest = np.max(spread * factor, initial=0.0, where=varying)
                exponent = int(np.frexp(largest)[1])
                factor = np.ldexp(factor, -exponent)
                strength = float(np.ldexp(strength, -2 * exponent))
        else:
            factor = 1 / norm_scales(spread, constant, root)
            # equal factors change no solution
            if varying.any() and np.ptp(factor[varying]) == 0:
                factor = np.ones(d)
        factor = np.where(constant, 0.0, factor)
        # columns of equal values are 0 once they are centred
        needed = varying | (moments.low < moments.high)
        is_plain = bool((factor[needed] == 1).all())
        return cls(
            problem=problem,
            units=units,
            centre=centre,
            y_centre=y_centre,
            y_variance=variance,
            spread=spread,
            constant=constant,
            factor=factor,
            product_factor=None if is_plain else factor,
            strength=strength,
        )

    @property
    def columns(self) -> Columns:
        """How a pass reads rows: centred, not multiplied by g."""
        scale = None if (self.units.x == 1).all() else self.units.x
        return Columns(scale, self.centre if self.problem.fit_intercept else None)

    def in_user_units(self, v: Float64, offset: Float64) -> tuple[Float64, Float64]:
        """Return w (D, K) and b (K,) of weights v and intercepts of centred rows and targets."""
        columns = self.factor[:, None] * v
        scale = np.where(self.constant, np.inf, self.spread)
        b = np.zeros_like(offset)
        if self.problem.fit_intercept:
            centre = TwoFloats.of(self.centre)
            # a target at a time, because products in two floats take several arrays
            for k, weights in enumerate(columns.T):
                at_mean = product(centre, TwoFloats.of(np.ascontiguousarray(weights)))
                whole = TwoFloats.of(self.y_centre[k]).plus(TwoFloats.of(offset[k])).plus(-at_mean)
                b[k] = whole.rounded()
            b = np.ldexp(b, 1 - np.frexp(self.units.y)[1])
        return user_weights(self.problem, self.units, scale, columns), b


class Combined(NamedTuple):
    """Combinations of rows, and what their weights fit."""

    v: Float64  #       (D, K)      v₀ + Zᵀα, weights of the scaled columns
    rest: Float64  #    (D, M - K)  Zᵀ of the columns of α after the first K
    fitted: Float64  #  (N, K)      Zv


class Measured(NamedTuple):
    """What the residuals of a pass give."""

    loss: Float64  #           (K,)   f
    mean_residual: Float64  #  (K,)   the mean of y - Xw, weights counted
    correction: Float64  #     (N, K) δ of α
    size: Float64  #           (K,)   ‖Zᵀδ‖


class RowProducts(NamedTuple):
    """What passes give of the rows that count."""

    products: Float64  # (N, N) ZZᵀ of unweighted rows: Fortran order, lower triangle
    targets: Float64  #  (N, K) y, centred
    weight: Float64  #   (N,)   s
    strips: Strips | None  # how columns are read; ``None`` if rows are


class CentredProducts(NamedTuple):
    """ZZᵀ + ε√s√sᵀ/Σs of weighted rows."""

    products: Float64  # (N, N) Fortran order, lower triangle
    trace: float  # of ZZᵀ
    added: float  # ε, the eigenvalue of √s; 0 if rows are not centred

    @classmethod
    def of(cls, space: RowSpace, rows: RowProducts) -> CentredProducts:
        """Weight the products of unweighted rows, whose lower triangle is overwritten.

        The means are rounded, so that ZZᵀ√s is not 0 but tiny. It is made 0, and √s√sᵀ is added,
        times a number that keeps the condition: α has no part along √s, whose rows would be lost.
        """
        products, n = rows.products, len(rows.products)
        root, added = np.sqrt(rows.weight), 0.0
        if not (rows.weight == 1).all():
            for j in range(n):  # a column at a time: no second N² array
                products[j:, j] *= root[j:] * root[j]
        trace = float(products.diagonal().sum())
        if space.problem.fit_intercept:
            unit = root / np.sqrt(rows.weight.sum())
            image = blas.dsymv(1.0, products, unit, lower=1)
            added = trace / n or 1.0
            image -= 0.5 * (unit @ image + added) * unit
            products = blas.dsyr2(-1.0, unit, image, lower=1, a=products, overwrite_a=1)
        return cls(products, trace, added)


class RowFactor(Protocol):
    """ZZᵀ + μΣs·I, factorised."""

    @property
    def rank(self) -> int:
        """The rank, to rounding."""

    @property
    def condition(self) -> float | Float64:
        """An estimate of κ₂ of its root; (K,) if targets have different penalties."""

    @property
    def null(self) -> Float64 | None:
        """A combination of rows, (N, 1), that is 0 to rounding, if there is one."""

    def solve(self, right: Float64) -> Float64:
        """Return α (N, K) for a right side (N, K)."""


@dataclass(frozen=True, eq=False)
class RowEquations:
    """ZZᵀ + μΣs·I, factorised, with the targets."""

    space: RowSpace
    targets: Float64  # (N, K) y, centred
    weight: Float64  # (N,) s
    weight_sum: float  # Σs
    strength: float | Float64  # μ, of all targets or (K,)
    factor: RowFactor
    frobenius: float  # ‖Z‖
    largest: float  # of the diagonal
    strips: Strips | None  # how columns are read; ``None`` if rows are

    @classmethod
    def of(cls, space: RowSpace, rows: RowProducts) -> RowEquations:
        """Factorise the products, which are overwritten."""
        products, trace, _ = CentredProducts.of(space, rows)
        weight_sum = float(rows.weight.sum())
        np.einsum("ii->i", products)[...] += space.strength * weight_sum
        largest = float(np.max(products.diagonal()))
        return cls(
            space=space,
            targets=rows.targets,
            weight=rows.weight,
            weight_sum=weight_sum,
            strength=space.strength,
            factor=Factor.of_gram(products, np.ones(len(products))),
            frobenius=np.sqrt(trace),
            largest=largest,
            strips=rows.strips,
        )

    @property
    def root(self) -> Float64:
        """√s, (N, 1)."""
        return np.asarray(np.sqrt(self.weight)[:, None])

    @property
    def rank(self) -> int:
        """The rank of Z, if there is no penalty."""
        return self.factor.rank - self.space.problem.fit_intercept

    @property
    def is_determined(self) -> bool:
        """Whether only one solution exists."""
        n_varying = int(np.count_nonzero(~self.space.constant))
        return bool(self.space.strength) or self.rank >= n_varying

    @property
    def unit_null(self) -> Float64 | None:
        """A combination of rows that is 0 to the digits of ZZᵀ, (N, 1) of norm 1, if there is."""
        null = self.factor.null
        return None if null is None else null / np.linalg.norm(null)

    def solve(self, right: Float64) -> Float64:
        """Return α (N, K) for a right side (N, K)."""
        return self._projected(self.factor.solve(self._projected(right)))

    def combine(self, reduce: Reduce, alpha: Float64, before: Float64 | None = None) -> Combined:
        """Run the passes of v₀ + Zᵀα, of α (N, M), whose first K columns get v₀ = ``before``.

        One pass if columns are read, because all rows of a column are in one strip; else two.
        """
        numbers, k = np.ascontiguousarray(self.root * alpha), self.targets.shape[1]
        factor, columns = self.space.factor, self.space.columns
        if self.strips is not None:
            found = reduce(ColumnWeights(numbers, factor, before, k, columns, self.strips))
            return Combined(np.ascontiguousarray(found.v[:, :k]), found.v[:, k:], found.values)
        sums = reduce(RowSums(numbers, len(factor), columns))
        sums *= factor[:, None]
        v = np.ascontiguousarray(sums[:, :k])
        if before is not None:
            v += before
        fitted = reduce(FittedValues(len(numbers), factor[:, None] * v, columns))
        return Combined(v, sums[:, k:], fitted)

    def confirms(self, combination: Float64) -> bool:
        """Whether a combination of rows, (D, 1) of :attr:`unit_null`, is 0 to rounding."""
        rounding = _ROUNDING_FACTOR * np.sqrt(sum(combination.shape) + len(self.weight)) * EPS
        return bool(np.linalg.norm(combination) <= rounding * self._condition * self.frobenius)

    def measure(self, fitted: Float64, v: Float64, alpha: Float64) -> Measured:
        """Measure the weights v (D, K) = Zᵀα by the values (N, K) that they fit."""
        residual, s = self.targets - fitted, self.weight[:, None]
        mean_residual = np.zeros(residual.shape[1])
        if self.space.problem.fit_intercept:
            mean_residual = np.sum(s * residual, axis=0) / self.weight_sum
            residual -= mean_residual
        loss = 0.5 * np.sum(s * residual**2, axis=0) / self.weight_sum
        loss += 0.5 * self.strength * np.sum(v * v, axis=0)
        strength = self.strength * self.weight_sum
        right = self._projected(self.root * residual - strength * alpha)
        change = self.solve(right)
        squares = np.sum(change * (right - strength * change), axis=0)
        return Measured(loss, mean_residual, change, np.sqrt(np.maximum(squares, 0.0)))

    def digits(self, v: Float64, alpha: Float64, size: Float64) -> Float64:
        """Return the trusted digits of each weight, (D, K); NaN where the data determine none.

        The error of v is at most that which the next correction removes, and the rounding of
        fitted values, times ‖Zᵀ(ZZᵀ + μΣs)⁻¹‖, and of the sums Zᵀα.
        """
        if not self.is_determined:
            return np.full(v.shape, np.nan)
        d, n = len(v), len(alpha)
        unit = _ROUNDING_FACTOR * _UNIT * self.frobenius
        inverse = self._condition / np.sqrt(self.largest)
        norm = 2 * size + inverse * unit * np.sqrt(d) * np.linalg.norm(v, axis=0)
        norm += unit * np.sqrt(n) * np.linalg.norm(alpha, axis=0)
        sizes = np.abs(v)
        digits = np.clip(-np.log10(norm / np.where(sizes > 0, sizes, 1.0) + _UNIT), 0.0, None)
        digits[(sizes == 0) & (norm > 0)] = 0.0
        digits[self.space.constant] = np.nan
        return np.asarray(digits)

    @property
    def _condition(self) -> float | Float64:
        """κ₂ of √(ZZᵀ + μΣs); the estimate comes close from below."""
        return 2 * self.factor.condition

    def _projected(self, columns: Float64) -> Float64:
        """Return columns, (N, K), without their part along √s, if rows are centred."""
        if not self.space.problem.fit_intercept:
            return columns
        unit = self.root / np.sqrt(self.weight_sum)
        return np.asarray(columns - unit * (unit.T @ columns))
