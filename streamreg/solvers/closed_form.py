"""The normal equations, solved: one pass, O(D²) state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.gram import Gram
from streamreg.accumulators.moments import Moments
from streamreg.accumulators.residuals import residuals_nbytes
from streamreg.kernels.numpy import gram_tile_rows
from streamreg.solvers.base import Footprint, PassFootprint, Solution, Solver
from streamreg.solvers.corrections import (
    MOST_PASSES,
    WANTED,
    Equations,
    distance_from_origin,
)
from streamreg.solvers.diagnostics import column_warnings
from streamreg.solvers.exact import (
    GRAM,
    is_out_of_range,
    norm_units,
    powers_of_two,
    solution_of,
    solver_nbytes,
    sum_rounding,
)
from streamreg.solvers.factor import Factor, most_dependences
from streamreg.solvers.standard_errors import with_inference
from streamreg.solvers.standardization import measure

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import IterateStore, Problem, Reduce, Report

# of the variance of y: a smaller loss, predicted from the sums of the pass, has under 9 digits
_LEAST_LOSS_SHARE = 1e-4


@dataclass(frozen=True)
class ClosedForm(Solver):
    """Centred XᵀX w = Xᵀy, scaled by powers of two, by Cholesky with pivots.

    The factor overwrites XᵀX, so that no second D² array is needed. If columns depend on others,
    the solution has least norm and a warning names them.

    XᵀX has the condition number of X squared. If fewer than 13 digits are estimated, up to five
    more passes, O(D) each, measure residuals in two floats and correct the weights: see
    :class:`Equations`. A correction is kept if it lowers the loss that the next pass measures.
    """

    request: InferenceRequest | None = None

    name: ClassVar[str] = "closed_form"
    summary: ClassVar[str] = "one pass, exact"
    more_digits: ClassVar[str | None] = "qr"

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

    @property
    def infers(self) -> bool:
        return self.request is not None

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
        moments, units, warnings = _reduce_gram(problem, reduce)
        return self.solve_moments(problem, reduce, report, moments, units, warnings=warnings)

    @np.errstate(all="ignore")
    def solve_moments(
        self,
        problem: Problem,
        reduce: Reduce,
        report: Report,
        moments: GramResult,
        units: Scaling,
        *,
        warnings: Iterable[str] = (),
        wanted: float = WANTED,
        most_passes: int = MOST_PASSES,
    ) -> Solution:
        """Solve the equations of a pass; XᵀX is overwritten.

        ``wanted`` and ``most_passes`` are those of :class:`Equations`.
        """
        root = problem.penalty.root(units.x)
        spread = np.sqrt(moments.gram.diagonal() / moments.s)
        sigma = powers_of_two(spread, moments.mean, root)
        norm = norm_units(spread, sigma, root)
        factor = Factor.of_gram(_scaled(moments, sigma, root), norm)
        distance = distance_from_origin(moments.offset, sigma)
        rounding = sum_rounding(problem.n_features, moments.updates, distance)
        equations = Equations(
            problem=problem,
            reduce=reduce,
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
            wanted=wanted,
            most_passes=most_passes,
        )
        right = moments.cross / sigma[:, None]
        v = factor.solve(right)
        predicted = 0.5 * (moments.y_variance - np.sum(v * right, axis=0))
        # standard errors need the digits of the loss
        is_small = bool((predicted < _LEAST_LOSS_SHARE * moments.y_variance).any())
        measures = self.request is not None and is_small
        found = equations.correct(v, predicted, report, always=measures)
        constant = column_warnings(problem, ~np.isfinite(sigma), moments.varies > 0)
        all_warnings = [*warnings, *constant]
        return solution_of(equations, found, moments, all_warnings, GRAM, self.request)


def _reduce_gram(problem: Problem, reduce: Reduce) -> tuple[GramResult, Scaling, list[str]]:
    """Run the pass; run it again, with scaling, if squares left float64's range."""
    d, k = problem.n_features, problem.n_targets
    result = reduce(Gram(d, k, problem.fit_intercept))
    variances = np.append(result.gram.diagonal() / result.s, result.y_variance)
    varies = np.append(result.varies, result.y_varies) > 0
    if not is_out_of_range(variances, varies):
        return result, Scaling(np.ones(d), np.ones(k)), []
    _, units, warnings = measure(problem, reduce)
    if not units.is_one:
        del result  # frees D² numbers before the second pass
        result = reduce(Gram(d, k, problem.fit_intercept, units))
    return result, units, warnings


def _scaled(moments: GramResult, sigma: Float64, penalty_root: Float64) -> Float64:
    """Overwrite XᵀX with XᵀX/Σs plus the penalty, in coordinates."""
    gram, inverse = moments.gram, 1 / sigma
    for j in range(len(gram)):  # a column at a time: no second D² array
        gram[j:, j] *= inverse[j:] * (inverse[j] / moments.s)
        gram[j, j] += (penalty_root[j] * inverse[j]) ** 2
    return gram
