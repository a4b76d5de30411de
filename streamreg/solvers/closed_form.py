"""The normal equations, solved: one pass, O(D²) state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.accumulators.gram import Gram
from streamreg.accumulators.sparse_gram import SparseGram
from streamreg.kernels.numpy import gram_tile_rows
from streamreg.solvers.base import (
    Footprint,
    PassFootprint,
    Solution,
    moments_pass,
    residuals_pass,
)
from streamreg.solvers.corrections import Equations, distance_from_origin
from streamreg.solvers.diagnostics import column_warnings
from streamreg.solvers.exact import (
    norm_units,
    powers_of_two,
    solution_of,
    solver_nbytes,
    sum_rounding,
)
from streamreg.solvers.factor import Factor, most_dependences
from streamreg.solvers.factor_solver import FactorSolver
from streamreg.solvers.standard_errors import with_inference

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Accumulator
    from streamreg.accumulators.gram import GramResult
    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Report
    from streamreg.solvers.sums import Sums

# the share of stored values from which the products of rows made dense are faster
_DENSE = 0.2
# of the variance of y: a smaller loss, predicted from the sums of the pass, has under 9 digits
_LEAST_LOSS_SHARE = 1e-4


@dataclass(frozen=True)
class ClosedForm(FactorSolver):
    """Centred XᵀX w = Xᵀy, scaled by powers of two, by Cholesky with pivots.

    The factor overwrites XᵀX, so that no second D² array is needed. If columns depend on others,
    the solution has least norm and a warning names them.

    XᵀX has the condition number of X squared. If fewer than 13 digits are estimated, up to five
    more passes, O(D) each, measure residuals in two floats and correct the weights: see
    :class:`Equations`. A correction is kept if it lowers the loss that the next pass measures.
    """

    name: ClassVar[str] = "closed_form"
    summary: ClassVar[str] = "one pass, exact"
    more_digits: ClassVar[str | None] = "qr"
    reads_sparse: ClassVar[bool] = True
    statistic: ClassVar[type[SecondMoments[Any]]] = Gram

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        gram, scatters = self.accumulator(problem)(d, k), _scatters(problem)
        first = PassFootprint(
            gram.state_nbytes,
            gram.scratch_nbytes,
            n_parts=gram.n_parts,
            multiplies_matrices=not scatters,
            tile_rows=0 if scatters else gram_tile_rows(d),
            what="XᵀX",
            why=f"{d:,}² × 8 bytes",  # noqa: RUF001
        )
        # passes that scale or correct keep the state of the first one
        later = first._replace(earlier_nbytes=gram.state_nbytes, n_parts=1)
        others = (
            moments_pass(problem),
            residuals_pass(problem, k + max(1, most_dependences(d))),
        )
        passes = [
            later._replace(state_nbytes=each.state_nbytes, scratch_nbytes=each.scratch_nbytes)
            for each in others
        ]
        footprint = Footprint(
            (first, *passes),
            solver_nbytes=solver_nbytes(problem),
            n_passes=1,
            row_flops=_pair_flops(d) * problem.row_pairs if scatters else d * (d + 2.0 * k),
            # the factor, and the diagonal of its inverse
            solve_flops=d * d * (2 * d / 3 + 2.0 * k),
            is_exact=True,
            counts_pairs=scatters,
        )
        return with_inference(footprint, problem, self.request, gram.state_nbytes)

    def accumulator(self, problem: Problem) -> Callable[..., Accumulator[Any, GramResult]]:
        return SparseGram if _scatters(problem) else Gram

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        units, warnings = sums.units, sums.warnings
        moments = sums.result.about_means()
        root = problem.penalty.root(units.x)
        spread = np.sqrt(moments.gram.diagonal() / moments.s)
        sigma = powers_of_two(spread, moments.mean, root)
        norm = norm_units(spread, sigma, root)
        factor = Factor.of_gram(_scaled(moments, sigma, root), norm)
        distance = max(sums.distance, distance_from_origin(moments.offset, sigma))
        # squares about the origin, from which those of the means are subtracted, are larger too
        size = distance * distance if sums.result.is_about_origin else distance
        rounding = sum_rounding(problem.n_features, moments.updates, size)
        equations = Equations(
            problem=problem,
            statistic=Gram,
            reduce=sums.reduce,
            about_means=sums.about_means,
            units=units,
            scale=sigma,
            origin=moments.origin,
            offset=moments.offset,
            y_origin=moments.y_origin,
            y_offset=moments.y_offset,
            y_size=np.sqrt(moments.y_variance),
            factor=factor,
            distance=distance,
            rounding=rounding,
            contraction=rounding * factor.condition**2,
            wanted=sums.wanted,
            most_passes=sums.most_passes,
        )
        right = moments.cross / sigma[:, None]
        v = factor.solve(right)
        predicted = 0.5 * (moments.y_variance - np.sum(v * right, axis=0))
        # standard errors need the digits of the loss
        is_small = bool((predicted < _LEAST_LOSS_SHARE * moments.y_variance).any())
        measures = self.request is not None and is_small
        found = equations.correct(v, predicted, report, always=measures)
        warnings += column_warnings(problem, ~np.isfinite(sigma), moments.varies > 0)
        return solution_of(equations, found, moments, warnings, self.request)


def _scatters(problem: Problem) -> bool:
    """Whether products of stored values are added one by one; else rows are made dense."""
    pairs = 0.5 * (_DENSE * problem.n_features) ** 2
    return problem.is_sparse and problem.row_pairs < pairs + problem.n_features


def _pair_flops(n_features: int) -> float:
    """Return the operations of other loops over sparse rows that take as long as a pair of values.

    A pair changes one of D² numbers. Measured on one thread at D = 1,024 and 4,096: 0.7 and 0.25
    billion pairs a second, where other loops have 2.4 billion operations.
    """
    sizes, speeds = np.log([1024, 4096]), np.log([0.7, 0.25])
    return float(2.4 / np.exp(np.interp(np.log(n_features), sizes, speeds)))


def _scaled(moments: GramResult, sigma: Float64, penalty_root: Float64) -> Float64:
    """Overwrite XᵀX with XᵀX/Σs plus the penalty, in coordinates."""
    gram, inverse = moments.gram, 1 / sigma
    for j in range(len(gram)):  # a column at a time: no second D² array
        gram[j:, j] *= inverse[j:] * (inverse[j] / moments.s)
        gram[j, j] += (penalty_root[j] * inverse[j]) ** 2
    return gram
