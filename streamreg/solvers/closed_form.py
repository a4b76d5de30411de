"""The normal equations, solved: one pass, O(D²) state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.accumulators.gram import Gram
from streamreg.accumulators.moments import Moments
from streamreg.accumulators.residuals import residuals_nbytes
from streamreg.kernels.numpy import gram_tile_rows
from streamreg.solvers.base import Footprint, PassFootprint, Solution
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
    from streamreg.accumulators.gram import GramResult
    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Report
    from streamreg.solvers.sums import Sums

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
        gram, moments = Gram(d, k), Moments(d, k)
        first = PassFootprint(
            gram.state_nbytes,
            gram.scratch_nbytes,
            n_parts=gram.n_parts,
            multiplies_matrices=True,
            tile_rows=gram_tile_rows(d),
            what="XᵀX",
            why=f"{d:,}² × 8 bytes",  # noqa: RUF001
        )
        # passes that scale or correct keep the state of the first one
        later = first._replace(earlier_nbytes=gram.state_nbytes, n_parts=1)
        others = (
            (moments.state_nbytes, moments.scratch_nbytes),
            residuals_nbytes(d, k + max(1, most_dependences(d))),
        )
        passes = [later._replace(state_nbytes=a, scratch_nbytes=b) for a, b in others]
        footprint = Footprint(
            (first, *passes),
            solver_nbytes=solver_nbytes(problem),
            n_passes=1,
            row_flops=d * (d + 2.0 * k),
            # the factor, and the diagonal of its inverse
            solve_flops=d * d * (2 * d / 3 + 2.0 * k),
            is_exact=True,
        )
        return with_inference(footprint, problem, self.request, gram.state_nbytes)

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        moments, units, warnings = sums.result, sums.units, sums.warnings
        root = problem.penalty.root(units.x)
        spread = np.sqrt(moments.gram.diagonal() / moments.s)
        sigma = powers_of_two(spread, moments.mean, root)
        norm = norm_units(spread, sigma, root)
        factor = Factor.of_gram(_scaled(moments, sigma, root), norm)
        distance = max(sums.distance, distance_from_origin(moments.offset, sigma))
        rounding = sum_rounding(problem.n_features, moments.updates, distance)
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


def _scaled(moments: GramResult, sigma: Float64, penalty_root: Float64) -> Float64:
    """Overwrite XᵀX with XᵀX/Σs plus the penalty, in coordinates."""
    gram, inverse = moments.gram, 1 / sigma
    for j in range(len(gram)):  # a column at a time: no second D² array
        gram[j:, j] *= inverse[j:] * (inverse[j] / moments.s)
        gram[j, j] += (penalty_root[j] * inverse[j]) ** 2
    return gram
