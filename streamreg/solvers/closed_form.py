"""The normal equations, solved: one pass, O(D²) state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.gram import BatchGram, Gram
from streamreg.accumulators.sparse_gram import SparseGram
from streamreg.kernels.numpy import gram_tile_rows
from streamreg.kernels.scratch import gram_target_row_nbytes
from streamreg.solvers.base import (
    Footprint,
    PassFootprint,
    Solution,
    Status,
    moments_pass,
    residuals_pass,
)
from streamreg.solvers.corrections import Equations, distance_from_origin
from streamreg.solvers.diagnostics import column_warnings
from streamreg.solvers.exact import (
    NEARLY_DEPENDENT,
    dependence_warnings,
    norm_units,
    powers_of_two,
    solution_of,
    solver_nbytes,
    sum_rounding,
)
from streamreg.solvers.factor import Factor, most_dependences
from streamreg.solvers.factor_solver import FactorSolver
from streamreg.solvers.many_targets import (
    Found,
    at_once_nbytes,
    batch_counts,
    batch_width,
    few_at_once,
    has_many,
    require_in_range,
    require_targets_in_range,
    target_batches,
    width_at_once,
)
from streamreg.solvers.standard_errors import with_inference
from streamreg.solvers.sums import Sums, no_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamreg.accumulators.base import Accumulator
    from streamreg.accumulators.gram import GramResult
    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.blocks import Float64
    from streamreg.solvers.base import IterateStore, Problem, Reduce, Report, TargetWriter

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

    More than 2²⁰ weights of several targets overwrite XᵀY, and no pass corrects them. If they are
    written to a file, targets may be solved for in batches: one pass for each.
    """

    n_batches: int = 1  # of the targets, of which a pass reads one
    writes: bool = False  # whether weights may be written, once those of a batch are found
    writer: TargetWriter | None = None

    name: ClassVar[str] = "closed_form"
    summary: ClassVar[str] = "one pass, exact"
    more_digits: ClassVar[str | None] = "qr"
    reads_sparse: ClassVar[bool] = True
    statistic: ClassVar[type[SecondMoments[Any]]] = Gram

    def panel_counts(self, problem: Problem) -> Iterable[int]:
        if not (self.writes and self._solves_many(problem)):
            return (1,)
        return batch_counts(problem.n_features, problem.n_targets)

    def with_panels(self, n_panels: int) -> ClosedForm:
        return replace(self, n_batches=n_panels)

    def writing_to(self, writer: TargetWriter) -> ClosedForm:
        return replace(self, writer=writer)

    def targets_of_pass(self, problem: Problem) -> int:
        return batch_width(problem.n_features, problem.n_targets, self.n_batches)

    def _solves_many(self, problem: Problem) -> bool:
        return self.request is None and has_many(problem.n_features, problem.n_targets)

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        if self._solves_many(problem):
            return self._footprint_of_many(problem)
        scatters = _scatters(problem)
        gram: Gram | SparseGram = SparseGram(d, k) if scatters else Gram(d, k)
        first = sparse_gram_pass(gram) if isinstance(gram, SparseGram) else gram_pass(gram)
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

    def _footprint_of_many(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        n_batches = len(target_batches(d, k, self.n_batches))
        first = gram_pass(Gram(d, self.targets_of_pass(problem)))
        return Footprint(
            (first._replace(in_order=n_batches > 1),),
            solver_nbytes=many_nbytes(problem),
            n_passes=n_batches,
            row_flops=d * (d + 2.0 * k) / n_batches,
            solve_flops=d * d * (2 * d / 3 + 2.0 * k),
            is_exact=True,
        )

    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        if not self._solves_many(problem):
            return super().solve(problem, reduce, report, iterates)
        d, k = problem.n_features, problem.n_targets
        units = Scaling(np.ones(d), np.ones(k))
        gram, equations, found = Gram(d, k, problem.fit_intercept), None, Found(k)
        batches = target_batches(d, k, self.n_batches)
        weights: Float64 | None = None
        moments: GramResult
        for targets in batches:
            moments = reduce(gram if len(batches) == 1 else BatchGram.of(gram, targets))
            if equations is None:
                require_in_range(moments)
                equations = self._equations(problem, Sums(moments, units, [], reduce))
            require_targets_in_range(moments)
            _solve_targets(equations, moments, targets, found)
            if len(batches) == 1:
                weights = moments.cross
            elif self.writer is not None:
                self.writer.write(targets.start, moments.cross.T)
        if equations is None:
            raise ValueError("there are no targets")
        return self._solution_of_many(equations, moments, found, weights, report)

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        if self._solves_many(problem):
            return self._solve_many_sums(problem, sums, report)
        moments, warnings, equations = sums.result, sums.warnings, self._equations(problem, sums)
        right = moments.cross / (equations.scale * moments.s)[:, None]
        v = equations.factor.solve(right)
        predicted = 0.5 * (moments.y_variance - np.sum(v * right, axis=0))
        # standard errors need the digits of the loss
        is_small = bool((predicted < _LEAST_LOSS_SHARE * moments.y_variance).any())
        measures = self.request is not None and is_small
        found = equations.correct(v, predicted, report, always=measures)
        constant = ~np.isfinite(equations.scale)
        warnings += column_warnings(problem, constant, moments.varies > 0)
        return solution_of(equations, found, moments, warnings, self.request)

    def _solve_many_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        moments, found = sums.result, Found(problem.n_targets)
        equations = self._equations(problem, sums)
        _solve_targets(equations, moments, slice(0, problem.n_targets), found)
        solved = self._solution_of_many(equations, moments, found, moments.cross, report)
        return replace(solved, warnings=[*sums.warnings, *solved.warnings])

    def _equations(self, problem: Problem, sums: Sums) -> Equations:
        """Factorise XᵀX, which is overwritten."""
        moments, units = sums.result.about_means(), sums.units
        root = problem.penalty.root(units.x)
        spread = np.sqrt(moments.gram.diagonal() / moments.s)
        sigma = powers_of_two(spread, moments.mean, root)
        norm = norm_units(spread, sigma, root)
        factor = Factor.of_gram(_scaled(moments, sigma, root), norm)
        distance = max(sums.distance, distance_from_origin(moments.offset, sigma))
        # squares about the origin, from which those of the means are subtracted, are larger too
        size = distance * distance if sums.result.is_about_origin else distance
        rounding = sum_rounding(problem.n_features, moments.updates, size)
        return Equations(
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

    def _solution_of_many(
        self,
        equations: Equations,
        moments: GramResult,
        found: Found,
        weights: Float64 | None,
        report: Report,
    ) -> Solution:
        problem, factor = equations.problem, equations.factor
        constant = ~np.isfinite(equations.scale)
        status = Status.SOLVED if factor.is_full else Status.LEAST_NORM
        if not found.is_exact:
            status = Status.COARSE_TARGETS
        warnings = [
            *column_warnings(problem, constant, moments.varies > 0),
            *dependence_warnings(equations, found.least_digits, moments.n, status),
        ]
        return found.solution(
            problem, weights, status, warnings, factor.condition, report, equations.units
        )


def gram_pass(gram: Gram) -> PassFootprint:
    """Return the footprint of the pass that computes XᵀX and XᵀY."""
    d, k = gram.n_features, gram.n_targets
    of_row = gram_target_row_nbytes(d, k)
    # besides targets, which each thread has of its own
    scratch_nbytes = gram.scratch_nbytes - of_row * (gram_tile_rows(d) + 1)
    why = f"{d:,}² × 8 bytes"  # noqa: RUF001
    if has_many(d, k):
        why = f"({d:,}² + {d:,} × {k:,}) × 8 bytes"  # noqa: RUF001
    return PassFootprint(
        gram.state_nbytes,
        scratch_nbytes,
        n_parts=gram.n_parts,
        multiplies_matrices=True,
        tile_rows=gram_tile_rows(d),
        part_row_nbytes=of_row,
        what="XᵀX and XᵀY" if has_many(d, k) else "XᵀX",
        why=why,
    )


def sparse_gram_pass(gram: SparseGram) -> PassFootprint:
    """Return the footprint of the pass that computes XᵀX and XᵀY of sparse rows."""
    return PassFootprint(
        gram.state_nbytes,
        gram.scratch_nbytes,
        n_parts=gram.n_parts,
        what="XᵀX",
        why=f"{gram.n_features:,}² × 8 bytes",  # noqa: RUF001
    )


def many_nbytes(problem: Problem) -> int:
    """Bytes that solving for many targets takes beside XᵀX and XᵀY."""
    d, k = problem.n_features, problem.n_targets
    return solver_nbytes(replace(problem, n_targets=1)) + at_once_nbytes(d, k)


def _solve_targets(equations: Equations, moments: GramResult, targets: slice, found: Found) -> None:
    """Overwrite XᵀY (D, K) of some targets by their weights, in the user's units."""
    cross = moments.cross
    width, few = width_at_once(*cross.shape), few_at_once(*cross.shape)
    for first in range(0, cross.shape[1], width):
        at = slice(first, min(first + width, cross.shape[1]))
        right = cross[:, at] / (equations.scale * moments.s)[:, None]
        v = equations.factor.solve(right)
        predicted = 0.5 * (moments.y_variance[at] - np.einsum("dk,dk->k", v, right))
        del right
        for start in range(at.start, at.stop, few):
            some = slice(start, min(start + few, at.stop))
            mine = slice(some.start - first, some.stop - first)
            _put_weights(
                equations, moments, some, targets.start, v[:, mine], predicted[mine], found
            )
        del v


def _put_weights(
    equations: Equations,
    moments: GramResult,
    at: slice,
    before: int,
    v: Float64,
    predicted: Float64,
    found: Found,
) -> None:
    """Write the weights of some targets, given those in coordinates, to XᵀY."""
    some = slice(before + at.start, before + at.stop)
    mine = replace(
        equations,
        problem=replace(equations.problem, n_targets=at.stop - at.start),
        reduce=no_rows,
        units=equations.units._replace(y=equations.units.y[some]),
        y_origin=moments.y_origin[at],
        y_offset=moments.y_offset[at],
        y_size=np.sqrt(moments.y_variance[at]),
        about_means=None,
    )
    corrected = mine.correct(v, predicted, lambda _: None, always=False)
    found.is_exact &= mine.is_exact_enough(corrected)
    if equations.factor.condition >= NEARLY_DEPENDENT:
        found.least_digits = min(found.least_digits, mine.least_digits(corrected))
    found.start[some], found.loss[some] = corrected.losses[0], corrected.losses[-1]
    moments.cross[:, at], found.intercept[some] = mine.weights(corrected.point)


def _scatters(problem: Problem) -> bool:
    """Whether products of stored values are added one by one; else rows are made dense."""
    d = problem.n_features
    pairs = 0.5 * (_DENSE * d) ** 2
    if has_many(d, problem.n_targets):
        return False
    return problem.is_sparse and problem.row_pairs < pairs + d


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
