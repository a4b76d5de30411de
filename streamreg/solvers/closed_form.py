"""The normal equations, solved: one pass, O(D²) state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.gradient import gradient_nbytes
from streamreg.accumulators.gram import Gram
from streamreg.accumulators.moments import Moments
from streamreg.formatting import MIB, count
from streamreg.solvers.base import (
    EPS,
    EpochRecord,
    Footprint,
    PassFootprint,
    Solution,
    Solver,
    Status,
)
from streamreg.solvers.cholesky import Factor
from streamreg.solvers.diagnostics import column_warnings, or_l2
from streamreg.solvers.standardization import Coordinates, is_constant, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.solvers.base import IterateStore, Problem, Reduce, Report

# smaller squares, times weights of 1e-120, may have lost digits to underflow
_SMALLEST_SQUARE = 2.0**-600
# corrected above this condition number of XᵀX: weights have an error of about 1e-16 times it
_CORRECTED_ABOVE = 1e6
_SMALL_CORRECTION = 1e-11
_MOST_CORRECTIONS = 4
# work space of LAPACK and BLAS, besides XᵀX, if its rank is below D. Measured: 150 columns at
# D = 5,000, 140 at 10,000; OpenBLAS takes no more than its own buffers
_LAPACK_COLUMNS, _LAPACK_MOST_NBYTES = 192, 16 * MIB
# nearly dependent columns are reported from this condition number of XᵀX
_NEARLY_DEPENDENT = 1e10


@dataclass(frozen=True)
class ClosedForm(Solver):
    """Centred XᵀX w = Xᵀy, scaled by powers of two, by Cholesky with pivots.

    The factor overwrites XᵀX, so that no second D² array is needed. If columns depend on others,
    the solution has least norm and a warning names them.

    XᵀX has the condition number of X squared. If that costs digits, up to four more passes, O(D)
    each, compute the gradient from the rows and w ← w - (XᵀX)⁻¹∇f [1]_.

    References
    ----------
    .. [1] Björck (1987), Linear Algebra Appl. 88-89, 31-48: corrected seminormal equations.
    """

    name: ClassVar[str] = "closed_form"
    summary: ClassVar[str] = "one pass, exact"

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        gram, moments = Gram(d, k), Moments(d, k)
        first = PassFootprint(
            gram.state_nbytes,
            gram.scratch_nbytes,
            n_parts=gram.n_parts,
            multiplies_matrices=True,
            what="XᵀX",
            why=f"{d:,}² × 8 bytes",  # noqa: RUF001
        )
        # passes that scale or correct keep the state of the first one
        later = first._replace(earlier_nbytes=gram.state_nbytes, n_parts=1)
        others = (moments.state_nbytes, moments.scratch_nbytes), gradient_nbytes(d, k, k)
        passes = [later._replace(state_nbytes=a, scratch_nbytes=b) for a, b in others]
        lapack_nbytes = min(8 * d * _LAPACK_COLUMNS, _LAPACK_MOST_NBYTES)
        return Footprint(
            (first, *passes),
            solver_nbytes=8 * d * (8 * k + 24) + lapack_nbytes,
            n_passes=1,
            row_flops=d * (d + 2.0 * k),
            solve_flops=d * d * (d / 3 + 2.0 * k),
            is_exact=True,
        )

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
        moments, units, warnings = _reduce_gram(problem, reduce)
        coordinates = _coordinates(problem, moments, units, reduce)
        sigma = coordinates.scale
        factor = Factor.of(
            _scaled(moments, sigma, problem.penalty.root(units.x)),
            np.where(np.isfinite(sigma), sigma / units.x, 0.0),
        )
        right = moments.cross / sigma[:, None]
        theta = np.vstack([factor.solve(right), np.zeros((1, problem.n_targets))])
        start_loss = 0.5 * moments.y_variance
        losses = [start_loss, start_loss - 0.5 * np.sum(theta[:-1] * right, axis=0)]
        report(EpochRecord(1, coordinates.user_loss(losses[0]), float("nan")))
        if factor.condition > _CORRECTED_ABOVE:
            theta = _correct(coordinates, report, factor, theta, losses)
        weights = coordinates.to_user(theta)
        warnings += column_warnings(problem, ~np.isfinite(sigma), moments.varies > 0)
        warnings += _dependence_warnings(problem, factor, sigma, moments.n)
        return Solution(
            *weights,
            Status.SOLVED if factor.is_full else Status.LEAST_NORM,
            len(losses) - 1,
            [coordinates.user_loss(np.maximum(loss, 0.0)) for loss in losses],
            warnings,
        )


def _reduce_gram(problem: Problem, reduce: Reduce) -> tuple[GramResult, Scaling, list[str]]:
    """Run the pass; run it again, with scaling, if squares left float64's range."""
    d, k = problem.n_features, problem.n_targets
    result = reduce(Gram(d, k, problem.fit_intercept))
    variances = np.append(result.gram.diagonal() / result.s, result.y_variance)
    varies = np.append(result.varies, result.y_varies) > 0
    if not (~np.isfinite(variances) | (varies & (variances < _SMALLEST_SQUARE))).any():
        return result, Scaling(np.ones(d), np.ones(k)), []
    _, units, warnings = measure(problem, reduce)
    if not units.is_one:
        del result  # frees D² numbers before the second pass
        result = reduce(Gram(d, k, problem.fit_intercept, units))
    return result, units, warnings


def _coordinates(
    problem: Problem, moments: GramResult, units: Scaling, reduce: Reduce
) -> Coordinates:
    """Return coordinates, scaled by powers of two, in which XᵀX has a diagonal near 1."""
    spread = np.sqrt(moments.gram.diagonal() / moments.s)
    _, exponents = np.frexp(np.hypot(spread, problem.penalty.root(units.x)))
    scale = np.where(is_constant(spread, moments.mean), np.inf, np.ldexp(1.0, exponents))
    centre, y_centre, subtracts = moments.mean, moments.y_mean, problem.fit_intercept
    return Coordinates(problem, reduce, units, centre, y_centre, scale, subtracts=subtracts)


def _scaled(moments: GramResult, sigma: Float64, penalty_root: Float64) -> Float64:
    """Overwrite XᵀX with XᵀX/Σs plus the penalty, in coordinates."""
    gram, inverse = moments.gram, 1 / sigma
    for j in range(len(gram)):  # a column at a time: no second D² array
        gram[j:, j] *= inverse[j:] * (inverse[j] / moments.s)
        gram[j, j] += (penalty_root[j] * inverse[j]) ** 2
    return gram


def _correct(
    coordinates: Coordinates, report: Report, factor: Factor, theta: Float64, losses: list[Float64]
) -> Float64:
    """Repeat θ ← θ - (∇²f)⁻¹∇f until it converges; appends to ``losses``."""
    last = np.inf
    for _ in range(_MOST_CORRECTIONS):
        loss, gradient, _ = coordinates.evaluate(theta)
        change = np.vstack([-factor.solve(gradient[:-1]), -gradient[-1:]])
        size = np.max(np.abs(theta), axis=0)
        share = np.max(np.max(np.abs(change), axis=0) / np.where(size > 0, size, np.inf))
        # corrections shrink by a factor, unless they are rounding
        if not share < 0.5 * last:
            break
        report(EpochRecord(len(losses), coordinates.user_loss(losses[-1]), float("nan")))
        theta = theta + change
        losses.append(loss + 0.5 * np.sum(gradient * change, axis=0))
        # the remaining error is about this share of the correction
        if share * 10 * factor.condition * EPS <= _SMALL_CORRECTION:
            break
        last = share
    return theta


def _dependence_warnings(
    problem: Problem, factor: Factor, sigma: Float64, n_rows: int
) -> Iterator[str]:
    dependent = factor.pivots[factor.rank :]
    dependent = dependent[np.isfinite(sigma[dependent])]
    if len(dependent):
        verb, digits = "depends" if len(dependent) == 1 else "depend", ""
        if n_rows - problem.fit_intercept >= problem.n_features:
            digits = (
                ", to the digits that XᵀX keeps: standardised, the columns have a condition number "
                f"beyond {factor.tolerance**-0.5:.0e}"
            )
        yield or_l2(
            f"{problem.columns(dependent)} {verb} linearly on the others{digits} (rank "
            f"{factor.rank:,} of {problem.n_features:,}, {count(n_rows, 'row')}). The coefficients "
            "are those of least norm; leave such columns out"
        )
    if len(dependent) or factor.condition < _NEARLY_DEPENDENT or not factor.rank:
        return
    worst = problem.columns(factor.pivots[factor.rank - 1 : factor.rank])
    condition = np.sqrt(factor.condition)
    yield or_l2(
        f"the columns are nearly dependent, {worst} most of all: standardised they have condition "
        f"number {condition:.0e}, so that about {16 - np.log10(condition):.0f} digits of their "
        "weights are right; leave a column out"
    )
