"""Corrections of the weights that a factor gives, from residuals in two floats.

All is in coordinates v = σ·w, with σ powers of two, of columns in the units of :class:`Scaling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.accumulators.residuals import Residuals
from streamreg.kernels.two_float import TwoFloats, product
from streamreg.solvers.base import EPS, EpochRecord
from streamreg.solvers.standardization import user_loss, user_weights
from streamreg.solvers.sums import MOST_PASSES, WANTED, no_rows

if TYPE_CHECKING:
    from streamreg.accumulators.base import Scaling
    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Mask, Problem, Reduce, Report
    from streamreg.solvers.factor import Factor
    from streamreg.solvers.sums import AboutMeans

_UNIT = EPS / 2  # u, the largest relative error of rounding
# the solver says so if it cannot reach this error, of the largest weight in coordinates
NEEDED = 1e-10
# the same, if no pass can correct the weights: the digits say how many are right
_NEEDED_WITHOUT_ROWS = 1e-6
# of a start whose loss was halved this often, a loss predicted from XᵀX is rounding
_LEAST_PREDICTED_SHARE = 1e-6
# an intercept below this share of the deviation of y needs no relative digits: tables that were
# standardised have one near 0. That of NIST's Norris is 7.6e-4
_LEAST_INTERCEPT = 5e-4
# a smaller factor between errors is proven to lower the loss
_PROVEN = 1e-2
# the relative error of operations in two floats, and of sums of losses
_TWO_FLOAT_UNIT, _TWO_FLOAT_ROUNDING = 2.0**-106, 2.0**-96
# of a dependence between columns, this is the rounding of stored values
_DEPENDENT = 16 * EPS
# of combinations of dependences, a smaller share of the largest curvature is rounding
_LEAST_CURVATURE = 1e-9
# a column takes part in a dependence if its share is larger
_LEAST_SHARE = 1e-9


class Point(NamedTuple):
    """Weights in coordinates, and the intercept."""

    v: TwoFloats  # (D, K)
    b: TwoFloats  # (K,)

    def where(self, targets: Mask, other: Point) -> Point:
        """Return these numbers for some targets, and those of another point for the others."""
        pairs = zip((*self.v, *self.b), (*other.v, *other.b), strict=True)
        v, v_low, b, b_low = (np.where(targets, mine, theirs) for mine, theirs in pairs)
        return Point(TwoFloats(v, v_low), TwoFloats(b, b_low))


class Measured(NamedTuple):
    """What a pass measures at a point."""

    n: int  # rows
    loss: Float64  # (K,) f
    doubled: TwoFloats  # (K,) 2 f Σs, to compare losses by
    gradient: Float64  # (D, K) ∇f, of the best intercept
    mean_residual: Float64  # (K,)
    null_norm: float | None  # ‖Xz‖/√Σs of the first of m dependences z, centred; None without one
    images: Float64  # (D, m) ∇²f·z of them

    def is_below(self, doubled: TwoFloats) -> Mask:
        """Whether losses are not above others, but for what two-float sums round."""
        noise = _TWO_FLOAT_ROUNDING * doubled.high
        return np.asarray(self.doubled.plus(-doubled).high <= noise)


class Corrected(NamedTuple):
    """The solution."""

    point: Point
    error: Float64  # (K,) bound of ‖Re‖, with RᵀR = XᵀX/Σs and e the error of v
    losses: list[Float64]  # (K,) each: f at the start of each epoch, and at the end
    mean_residual: Float64  # (K,) that the last pass found
    n: int = 0  # rows that passes read; 0 without a pass
    # of a dependence between columns, as the first pass measured it; None without one
    null_norm: float | None = None
    is_dependence_real: bool = True  # whether columns depend on others as the factor has it
    loss_error: Float64 | float = 0.0  # (K,) bound of the error of a loss that no pass measured


@dataclass(frozen=True, eq=False)
class Equations:
    """Normal equations, and a factor of nearly the same: RᵀR ≈ (X - x̄)ᵀ(X - x̄)/Σs.

    A correction takes one pass: v ← v - (RᵀR)⁻¹∇f [1]_. With E = I - (RᵀR)⁻¹∇²f and ρ ≥ ‖E‖ in
    the norm ‖R·‖, the error after a correction δ has ‖Re‖ ≤ ρ/(1 - ρ)·‖Rδ‖.

    If columns depend on others, to the digits that the factor keeps, a pass measures whether they
    do. If not, the next one multiplies ∇²f with these dependences Z, and corrections minimise f
    along them too: v ← v + δ - Z(Zᵀ∇²f·Z)⁻¹Zᵀ(∇f + ∇²f·δ).

    References
    ----------
    .. [1] Björck (1987), Linear Algebra Appl. 88-89, 31-48: corrected seminormal equations.
    """

    problem: Problem
    statistic: type[SecondMoments[Any]]  # whose sums were factorised
    reduce: Reduce
    units: Scaling
    scale: Float64  # (D,) σ; infinite for constant columns, whose coefficients stay 0
    origin: Float64  # (D,) the means are origin + offset
    offset: Float64  # (D,)
    y_origin: Float64  # (K,)
    y_offset: Float64  # (K,)
    y_size: Float64  # (K,) the deviation of y
    factor: Factor
    distance: float  # of the means from the origin, in deviations, and at least 1
    rounding: float  # bound of the relative error of sums in the factor
    contraction: float  # bound of ρ
    about_means: AboutMeans | None = None  # None: a pass has to tell
    wanted: float = WANTED  # the relative error of weights above which a pass corrects them
    most_passes: int = MOST_PASSES

    @property
    def has_rows(self) -> bool:
        """Whether passes can be run."""
        return self.reduce is not no_rows

    def correct(self, v: Float64, predicted: Float64, report: Report, *, always: bool) -> Corrected:
        """Correct weights (D, K) that the factor gives, if that is needed.

        ``predicted`` (K,) is their loss, computed from the sums of the pass.
        """
        point = Point(TwoFloats.of(v), self._intercept(v))
        start = 0.5 * self.y_size**2
        report(self._record(1, start))
        error = self.contraction * self._y_distance
        found = Corrected(point, error, [start, predicted], 0 * start)
        is_certain = self.is_exact_enough(found) and not self._is_doubtful(point, start, predicted)
        if not self.has_rows:
            return self._without_rows(found)
        if not (self.factor.rank and self.most_passes) or (is_certain and not always):
            return found
        return self._correct(point, start, report)

    def _without_rows(self, found: Corrected) -> Corrected:
        """Return the solution with bounds of what no pass can measure.

        With t = ‖y‖ + Σ|v|, the size of what cancels, r the residuals and ρ the rounding of sums, v
        has an error of ‖Re‖ ≤ 2κρt from XᵀX, and of ρ(t + 2κ‖r‖) from R [1]_; 2f one of ρt², and of
        2ρt‖r‖ + ρ²t². ‖R‖ is at least ½.

        References
        ----------
        .. [1] Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., section 20.1.
        """
        squares, rho, kappa = self.statistic.squares_condition, self.rounding, self.factor.condition
        terms = self._y_distance + np.sum(np.abs(found.point.v.high), axis=0)
        # rounding may make a loss negative
        loss = np.maximum(found.losses[-1], 0.0)
        if squares:
            error, loss_error = 2 * kappa * rho * terms, 0.5 * rho * terms**2
        else:
            loss_error = rho * terms * np.sqrt(2 * loss) + 0.5 * (rho * terms) ** 2
            error = rho * (terms + 2 * kappa * np.sqrt(2 * (loss + loss_error)))
        # these bounds are of first order
        error = (
            error / (1 - self.contraction) if self.contraction < 1 else np.full_like(loss, np.inf)
        )
        return found._replace(
            error=error,
            losses=[found.losses[0], loss],
            loss_error=np.where(found.losses[0] > 0, loss_error, 0.0),
            # that R shows is real to its digits; that of XᵀX only to half of them
            is_dependence_real=self.factor.is_full or not squares,
            null_norm=self._least_null_norm(),
        )

    def _least_null_norm(self) -> float | None:
        """Return the ‖Xz‖/√Σs of a dependence z below which the factor cannot tell it from 0."""
        if self.factor.null is None:
            return None
        rounding = np.sqrt(self.rounding) if self.statistic.squares_condition else self.rounding
        return float(rounding * self.factor.norm * np.linalg.norm(self.factor.null))

    def condition(self, found: Corrected) -> float:
        """Return κ₂ of the columns in coordinates; if some depend on others, a lower bound.

        That is ‖R‖·‖z‖/‖Xz‖ of a dependence z: infinite if it holds in every digit.
        """
        if found.null_norm is None or self.factor.null is None:
            return self.factor.condition
        size = self.factor.norm * float(np.linalg.norm(self.factor.null))
        return size / found.null_norm if found.null_norm else np.inf

    def weights(self, point: Point) -> tuple[Float64, Float64]:
        """Return w (D, K) and b (K,) in the user's units."""
        columns = point.v.rounded() / self.scale[:, None]
        w = user_weights(self.problem, self.units, self.scale, columns)
        b = point.b.rounded()
        y = np.frexp(self.units.y)[1] - 1
        return w, np.ldexp(b, -y) if self.problem.fit_intercept else np.zeros_like(b)

    def errors(self, found: Corrected) -> Float64:
        """Return a bound of the error of v, (D, K), without its last rounding."""
        norm = found.error
        if found.n:
            norm = norm + self._rounding_of_passes(found)
        norm = np.where(self.y_size > 0, norm, 0.0)
        return np.sqrt(self.factor.inverse)[:, None] * norm

    def digits(self, found: Corrected) -> Float64:
        """Return the trusted digits of each weight, (D, K).

        NaN where the data determine none; and for all weights, if columns were left out that do not
        depend on the others, or that a penalty makes independent.
        """
        size, errors = np.abs(found.point.v.high), self.errors(found)
        relative = np.where(errors > 0, errors / np.where(size > 0, size, 0.0), 0.0) + _UNIT
        digits = np.clip(-np.log10(relative), 0.0, None)
        return np.where(self.determined(found)[:, None], digits, np.nan)

    def least_digits(self, found: Corrected) -> float:
        """Return the fewest trusted digits of weights that the data determine; 16 if of none."""
        known = self.determined(found)
        return float(np.min(self.digits(found)[known], initial=16.0))

    def determined(self, found: Corrected) -> Mask:
        """Return which weights the data determine, (D,)."""
        determined = np.isfinite(self.scale) & found.is_dependence_real
        if self.factor.null is not None:
            determined &= not self.problem.penalty.strength
            shares = np.abs(self.factor.null[:, 0])
            determined &= shares <= _LEAST_SHARE * shares.max()
        return np.asarray(determined)

    def determines_intercept(self, found: Corrected) -> bool:
        """Whether the data determine b: dependences between columns leave ȳ - x̄·w alone."""
        if self.factor.null is None:
            return True
        share = np.abs(self.factor.null) * np.abs(self.mean.high / self.scale)[:, None]
        at_mean = float(np.abs(self.at_mean(self.factor.null).high[0]))
        return found.is_dependence_real and at_mean <= _LEAST_SHARE * float(share.sum())

    def is_exact_enough(self, found: Corrected) -> bool:
        """Whether the largest weights, in coordinates, have the digits that a fit needs."""
        # weights that do not change y in its last digit may be 0
        least = EPS * self.y_size
        largest = np.maximum(np.max(np.abs(found.point.v.high), axis=0), least)
        needed = NEEDED if self.has_rows else _NEEDED_WITHOUT_ROWS
        return bool((np.max(self.errors(found), axis=0) <= needed * largest).all())

    @property
    def _y_distance(self) -> Float64:
        """The root mean square of y - origin, (K,)."""
        return np.hypot(self.y_size, self.y_offset)

    @property
    def corrects_dependences(self) -> bool:
        """Whether weights are corrected along dependences that a pass finds not to be real."""
        is_known = self.factor.dependences is not None and self.has_rows
        return is_known and not self.problem.penalty.strength

    @property
    def mean(self) -> TwoFloats:
        """x̄ (D,), unrounded."""
        return TwoFloats.of(self.origin).plus(TwoFloats.of(self.offset))

    def _intercept(self, v: Float64) -> TwoFloats:
        """Return ȳ - x̄·w, (K,)."""
        y_mean = TwoFloats.of(self.y_origin).plus(TwoFloats.of(self.y_offset))
        return y_mean.plus(-self.at_mean(v))

    def at_mean(self, v: Float64) -> TwoFloats:
        """Return x̄·w, (K,), of v (D, K)."""
        mean = self.mean
        return product(
            TwoFloats(mean.high[:, None], mean.low[:, None]), TwoFloats.of(v / self.scale[:, None])
        )

    def _is_doubtful(self, point: Point, start: Float64, predicted: Float64) -> bool:
        """Whether fewer digits than wanted are estimated, or the factor lacks columns."""
        if not self.factor.is_full:
            return True
        # ‖Rv‖², from which the loss is predicted
        fitted = np.sqrt(2 * np.maximum(start - predicted, 0.0))
        kappa, unit = self.factor.condition, _UNIT * self.distance
        weights = unit * (kappa**2 * fitted + kappa * self._y_distance) > self.wanted * fitted
        w, mean = point.v.high / self.scale[:, None], np.abs(self.mean.high)
        terms = mean @ np.abs(w) + np.abs(self.y_origin)
        b = np.abs(point.b.high)
        b = np.where(b < _LEAST_INTERCEPT * self.y_size, self.y_size, b)
        intercept = self.problem.fit_intercept & (_UNIT * terms > self.wanted * b)
        loss = predicted < _LEAST_PREDICTED_SHARE * start
        return bool(((weights | intercept | loss) & (start > 0)).any())

    def _correct(self, point: Point, start: Float64, report: Report) -> Corrected:
        factor = self.factor
        best = Point(TwoFloats.of(np.zeros_like(point.v.high)), self._intercept(0 * point.v.high))
        best_loss, error = start, np.full_like(start, np.inf)
        doubled = TwoFloats.of(np.full_like(start, np.inf))
        last_size, losses, is_dependence_real = None, [start], True
        mean_residual, done = 0 * start, np.zeros(len(start), bool)
        gradient = np.zeros_like(point.v.high)
        dependences: Float64 | None = None
        images: Float64 | None = None
        null_norm: float | None = None
        for number in range(self.most_passes):
            measures = number == 1 and dependences is not None
            now = self._measure(point, dependences if measures else None if number else factor.null)
            images = now.images if measures else images
            losses.append(now.loss)
            report(self._record(number + 2, best_loss))
            if number:
                better = now.is_below(doubled) & ~done
            else:
                better = now.loss <= start * (1 + np.sqrt(EPS))
                is_dependence_real, null_norm = self._confirms(now), now.null_norm
                if self.corrects_dependences and not is_dependence_real:
                    dependences = factor.dependences
            pairs = zip(now.doubled, doubled, strict=True)
            doubled = TwoFloats(*(np.where(better, *pair) for pair in pairs))
            mean_residual = np.where(better, now.mean_residual, mean_residual)
            best, best_loss = point.where(better, best), np.where(better, now.loss, best_loss)
            gradient = np.where(better, now.gradient, gradient)
            change = np.where(better, factor.solve(-gradient), 0.0)
            if dependences is not None and images is not None:
                change += _along(dependences, images, gradient, change)
            size = np.sqrt(np.maximum(-np.sum(change * gradient, axis=0), 0.0))
            rho = np.full_like(size, self.contraction)
            if last_size is not None:
                rho = np.maximum(rho, np.where(last_size > 0, size / last_size, 0.0))
            left = np.where(rho < 1, rho / (1 - rho), np.inf) * np.where(size > 0, size, 1.0)
            left = np.where(size > 0, left, 0.0)
            # of the point that was measured, and of the next one
            error = np.where(better, size + left, error)
            proven = better & (rho <= _PROVEN) & self._is_below_rounding(size, now.loss)
            point = self._moved(best, change, mean_residual).where(better | measures, best)
            best, error = point.where(proven, best), np.where(proven, left, error)
            # dependences that are not real are corrected once their images are known
            is_full = self._is_full(point, left) & (dependences is None or images is not None)
            done |= ~(better | measures) | (proven & is_full)
            last_size = size
            # where the factor lacks columns, one correction of the others is all that helps, and
            # one along the dependences
            if done.all() or (number > (images is not None) and not is_dependence_real):
                break
        return Corrected(
            best,
            error,
            [*losses, best_loss],
            mean_residual,
            now.n,
            null_norm,
            is_dependence_real,
        )

    def _measure(self, point: Point, null: Float64 | None) -> Measured:
        """Run one pass, perhaps with dependences (D, m)."""
        v, b, k = point.v, point.b, self.problem.n_targets
        if null is not None:
            v = TwoFloats(np.hstack([v.high, null]), np.hstack([v.low, 0 * null]))
            # the columns of a dependence have no target; their mean is subtracted
            offset = -self.at_mean(null)
            b = TwoFloats(*(np.append(*pair) for pair in zip(b, offset, strict=True)))
            if not self.problem.fit_intercept:
                b = TwoFloats(0 * b.high, 0 * b.low)
        scale = self.scale[:, None]
        w = TwoFloats(v.high / scale, v.low / scale)
        units = None if self.units.is_one else self.units
        result = self.reduce(Residuals(w, b, k, units))
        mean = self.mean
        moved = TwoFloats(mean.high[:, None], mean.low[:, None]).times(result.sums)
        products = result.products.plus(-moved)
        images = products.high[:, k:] / scale / result.s.high
        products = TwoFloats(products.high[:, :k] / scale, products.low[:, :k] / scale)
        rr = TwoFloats(result.rr.high[:k], result.rr.low[:k])
        root = self.problem.penalty.root(self.units.x)
        if root.any():
            # √λ·w, and its square
            share = TwoFloats.of((root / self.scale)[:, None])
            penalised = share.times(point.v)
            rr = rr.plus(result.s.times(product(penalised, penalised)))
            products = products.plus(result.s.times(share.times(penalised)))
        s = result.s.high
        return Measured(
            n=result.n,
            loss=0.5 * rr.high / s,
            doubled=rr,
            gradient=products.high / s,
            mean_residual=result.sums.high[:k] / s,
            null_norm=None if null is None else float(np.sqrt(result.rr.high[k] / s)),
            images=images,
        )

    def _moved(self, point: Point, change: Float64, mean_residual: Float64) -> Point:
        """Return the point after a correction of the weights, with the best intercept."""
        v = point.v.plus(TwoFloats.of(change))
        if not self.problem.fit_intercept:
            return Point(v, point.b)
        b_change = TwoFloats.of(-mean_residual).plus(-self.at_mean(change))
        return Point(v, point.b.plus(b_change))

    def _confirms(self, now: Measured) -> bool:
        """Whether a pass finds that columns depend on others, to the rounding of stored values."""
        null = self.factor.null
        if null is None or now.null_norm is None:
            return True
        share = np.abs(null[:, 0])
        terms = float(np.sum(share * (1 + np.abs(self.mean.high) / self.scale)))
        return now.null_norm <= _DEPENDENT * terms

    def _is_below_rounding(self, size: Float64, loss: Float64) -> Mask:
        """Whether a correction changes the loss by less than rounding of the loss or of v does."""
        return np.asarray(size**2 <= np.maximum(2 * EPS * loss, (16 * EPS * self.y_size) ** 2))

    def _is_full(self, point: Point, left: Float64) -> Mask:
        """Whether another correction would change no weight but by its last rounding."""
        size = np.abs(point.v.high)
        # weights far below the others do not ask for more passes
        least = np.maximum(size, 1e-3 * np.max(size, axis=0))
        errors = np.sqrt(self.factor.inverse)[:, None] * left
        return np.asarray((errors <= 0.1 * _UNIT * least).all(axis=0))

    def _rounding_of_passes(self, found: Corrected) -> Float64:
        """Return what the rounding of means and of two-float sums adds to the error ‖Re‖, (K,).

        An error of residuals is multiplied by Q, which is orthogonal; one of their sums by R⁻ᵀ.
        """
        determined = np.isfinite(self.scale)
        far = 1 + np.where(determined, np.abs(self.mean.high) / self.scale, 0.0)
        offset = np.where(determined, np.abs(self.offset) / self.scale, 0.0)
        v, residual = np.abs(found.point.v.high), np.sqrt(2 * found.losses[-1])
        terms = far @ v + np.abs(self.y_origin) + self.y_size
        residuals = _TWO_FLOAT_UNIT * (len(v) + 16) * terms
        sums = _TWO_FLOAT_UNIT * 8 * np.sqrt(found.n) * np.linalg.norm(far) * residual
        # means have the relative error of sums
        means = self.rounding * np.linalg.norm(offset) * np.abs(found.mean_residual)
        # the penalty is the square of its rounded root: λ has a relative error of 2u, and
        # ‖R⁻ᵀ√λ/σ‖ ≤ 1
        root = self.problem.penalty.root(self.units.x)
        share = np.where(determined, root / self.scale, 0.0)
        penalty = 4 * _UNIT * np.linalg.norm(share[:, None] * v, axis=0)
        return np.asarray(
            residuals + np.sqrt(np.sum(self.factor.inverse)) * (sums + means) + penalty
        )

    def _record(self, epoch: int, loss: Float64) -> EpochRecord:
        return EpochRecord(epoch, user_loss(self.units, loss), float("nan"))


def _along(z: Float64, images: Float64, gradient: Float64, change: Float64) -> Float64:
    """Return Zc (D, K), with the least f after a change of the weights: ZᵀAZc = -Zᵀ(∇f + A·change).

    AZ is ``images``, (D, m) as Z is. A dependence that is real to rounding takes no part.
    """
    curvature = z.T @ images
    diagonal = curvature.diagonal()
    least = (_DEPENDENT * np.sum(np.abs(z), axis=0)) ** 2
    unit = np.where(diagonal > least, 1 / np.sqrt(np.maximum(diagonal, least)), 0.0)[:, None]
    right = z.T @ gradient + images.T @ change
    scaled = (curvature + curvature.T) * (0.5 * unit * unit.T)
    steps = np.linalg.lstsq(scaled, -unit * right, rcond=_LEAST_CURVATURE)[0]
    return np.asarray(z @ (unit * steps))


def distance_from_origin(offset: Float64, scale: Float64) -> float:
    """Return √(1 + max(offset/σ)²).

    x - origin is rounded relative to its own size, which is this factor of a deviation.
    """
    offsets = np.where(np.isfinite(scale), np.abs(offset) / scale, 0.0)
    return float(np.hypot(1.0, np.max(offsets, initial=0.0)))
