"""Ridge regression with the best of many penalties: one pass, one D² state for each fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.folds import Folds
from streamreg.accumulators.gram import Gram
from streamreg.formatting import count
from streamreg.kernels.tridiagonal import sums_nbytes, tridiagonal_nbytes
from streamreg.solvers.base import Footprint, Solution, Solver, Status
from streamreg.solvers.closed_form import ClosedForm, gram_pass, many_nbytes
from streamreg.solvers.corrections import NEEDED
from streamreg.solvers.many_targets import (
    batch_counts,
    batch_width,
    has_many,
    require_in_range,
    require_rows_in_folds,
    spread_of,
    target_batches,
    width_at_once,
)
from streamreg.solvers.penalties import L2Penalty
from streamreg.solvers.ridge_path import (
    PATH_ARRAYS_ALIVE,
    REDUCTION_FLOPS,
    RidgePath,
    fold_errors,
    generalised_errors,
    path_nbytes,
    path_width,
)
from streamreg.solvers.selection import choose, default_grid
from streamreg.solvers.standardization import is_constant
from streamreg.solvers.sums import MOST_PASSES, Sums
from streamreg.solvers.target_search import MOST_KEPT, TargetSearch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.kernels.states import GramState
    from streamreg.solvers.base import (
        IterateStore,
        Numbers,
        Problem,
        Reduce,
        Report,
        TargetWriter,
    )
    from streamreg.solvers.selection import Selection, SelectionRequest


@dataclass(frozen=True)
class PenaltySearch(Solver):
    """The closed form with the penalty that cross-validation, or GCV, finds best.

    One pass keeps XᵀX of each fold. The training rows of a fold are the merge of the other folds,
    about their own means: nothing of the fold is in them, and nothing is subtracted. One reduction
    to tridiagonal form a fold solves all penalties: :class:`RidgePath`. The weights are then those
    of :class:`ClosedForm` for all rows; rows are read again only if fewer than 10 digits are
    estimated. By GCV :meth:`solve_sums` also chooses for rows that were read before.
    """

    request: SelectionRequest
    n_batches: int = 1  # of the targets, of which a pass reads one
    writes: bool = False  # whether weights may be written, once those of a batch are found
    writer: TargetWriter | None = None

    name: ClassVar[str] = ClosedForm.name
    summary: ClassVar[str] = "one pass, all penalties"
    runs_on_device: ClassVar[bool] = False
    reads_sparse: ClassVar[bool] = True

    def panel_counts(self, problem: Problem) -> Iterable[int]:
        # without folds, the weights take the memory of XᵀY, so that only a file saves memory
        divides = self.writes or self.request.cross_validates
        if not (divides and self._solves_many(problem)):
            return (1,)
        return batch_counts(problem.n_features, problem.n_targets)

    def with_panels(self, n_panels: int) -> PenaltySearch:
        return replace(self, n_batches=n_panels)

    def writing_to(self, writer: TargetWriter) -> PenaltySearch:
        return replace(self, writer=writer)

    def targets_of_pass(self, problem: Problem) -> int:
        return batch_width(problem.n_features, problem.n_targets, self.n_batches)

    def _solves_many(self, problem: Problem) -> bool:
        many = has_many(problem.n_features, problem.n_targets)
        return many or self.request.given is not None

    def _footprint_of_many(self, problem: Problem) -> Footprint:
        d, k, request = problem.n_features, problem.n_targets, self.request
        n_folds, width = request.n_folds, self.targets_of_pass(problem)
        n_batches = len(target_batches(d, k, self.n_batches))
        gram, first = Gram(d, width), gram_pass(Gram(d, width))
        folds = Folds(n_folds, d, width)
        why = first.why
        if n_folds > 1:
            why = f"{count(n_folds, 'fold')} of {why}"
            if request.folds_alternate:
                first = first._replace(
                    tile_rows=folds.window_rows, row_nbytes=folds.window_row_nbytes
                )
        first = first._replace(state_nbytes=folds.state_nbytes, in_order=n_batches > 1, why=why)
        others = []
        if n_folds > 1:
            others.append(("work", gram.state_nbytes, "sums of training rows, overwritten"))
            if n_batches > 1 and not self.writes:
                others.append(("weights", 8 * d * k, f"{k:,} × {d:,} × 8 bytes"))  # noqa: RUF001
        others += request.folds_terms
        n_kept = k if request.given is not None else request.n_l2s
        path = tridiagonal_nbytes(d, width_at_once(d, k)) + 32 * d * min(n_kept, MOST_KEPT)
        path += sums_nbytes(d) + 24 * d * request.n_l2s
        if n_folds > 1:
            path += 8 * PATH_ARRAYS_ALIVE * d * path_width(d)
        scores = 8 * 6 * request.n_l2s * n_folds * k
        sweeps = 1 if n_batches == 1 or request.chooses_by_target else 2
        # Q and Qᵀ times the targets, and a recurrence for each penalty; of folds, also products
        # with XᵀX and Q for each penalty
        of_targets = 4.0 * d * d * k + 16.0 * d * request.n_l2s * k
        of_folds = (n_folds > 1) * n_folds * k * d * d * (2.0 + 6.0 * request.n_l2s)
        n_reductions = 1 + (n_folds > 1) * (n_folds + 1) * n_batches * sweeps
        return Footprint(
            (first,),
            solver_nbytes=many_nbytes(problem) + path + scores,
            n_passes=n_batches * sweeps,
            row_flops=d * (d + 2.0 * k * sweeps) / (n_batches * sweeps),
            solve_flops=n_reductions * REDUCTION_FLOPS * d**3 + sweeps * of_targets + of_folds,
            is_exact=True,
            others=tuple(others),
            before=request.before,
        )

    def footprint(self, problem: Problem) -> Footprint:
        if self._solves_many(problem):
            return self._footprint_of_many(problem)
        d, k, request = problem.n_features, problem.n_targets, self.request
        folds = Folds(request.n_folds, d, k)
        plain = ClosedForm().footprint(problem)
        first, *later = plain.passes
        state_nbytes, why = folds.state_nbytes, f"{d:,}² × 8 bytes"  # noqa: RUF001
        if request.cross_validates:
            why = f"{count(request.n_folds, 'fold')} of {why}"
        tile_rows, row_nbytes = first.tile_rows, 0
        if request.folds_alternate:
            tile_rows, row_nbytes = folds.window_rows, folds.window_row_nbytes
        first = first._replace(
            state_nbytes=state_nbytes, tile_rows=tile_rows, row_nbytes=row_nbytes, why=why
        )
        later = [each._replace(earlier_nbytes=state_nbytes) for each in later]
        n_scores = request.n_l2s * request.n_folds * k
        reduction = REDUCTION_FLOPS * d**3 + 6.0 * d * d * request.n_l2s * k
        return plain._replace(
            passes=(first, *later),
            # scores, and what choosing makes of them
            solver_nbytes=plain.solver_nbytes + path_nbytes(d, k, request.n_l2s) + 8 * 6 * n_scores,
            others=tuple(self._others(problem)),
            before=self.request.before,
            solve_flops=plain.solve_flops + request.n_folds * reduction,
        )

    def _others(self, problem: Problem) -> Iterator[tuple[str, int, str]]:
        """Yield what is kept beside the states of the folds."""
        gram = Gram(problem.n_features, problem.n_targets)
        rows = "training rows" if self.request.cross_validates else "all rows, for the penalties"
        yield "work", gram.state_nbytes, f"XᵀX of {rows}, overwritten"
        yield from self.request.folds_terms

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "selection": repr(self.request)}

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
        if self._solves_many(problem):
            return self._search(problem).solve(reduce, report)
        d, k, n_folds = problem.n_features, problem.n_targets, self.request.n_folds
        state = reduce(Folds(n_folds, d, k, problem.fit_intercept))
        gram = Gram(d, k, problem.fit_intercept)
        folds = [state.fold(number) for number in range(n_folds)]
        _require_usable(gram, folds)
        units = Scaling(np.ones(d), np.ones(k))
        if not self.request.cross_validates:
            return self.solve_sums(
                problem, Sums(gram.finalize(folds[0]), units, [], reduce), report
            )
        chosen = self._select(gram, folds)
        total = gram.finalize(_merged(gram, folds[0], folds[1:]))
        return self._refit(problem, Sums(total, units, [], reduce), report, chosen)

    @np.errstate(all="ignore")
    def solve_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        """Choose by GCV and solve, given the sums in the user's units; XᵀX is overwritten."""
        moments: GramResult = sums.result
        require_in_range(moments)
        if self._solves_many(problem):
            return self._search(problem).solve_sums(moments, report)
        l2s = self._grid(moments.gram.diagonal() / moments.s, moments.mean)
        path = RidgePath.of(moments._replace(gram=moments.gram.copy(order="F")))
        errors, rounding = generalised_errors(
            path, moments, l2s, fit_intercept=problem.fit_intercept
        )
        # released before the weights are solved for, because the plan counts one
        del path
        chosen = choose(self.request, l2s, errors[:, None], rounding[:, None])
        return self._refit(problem, sums, report, chosen)

    def _search(self, problem: Problem) -> TargetSearch:
        return TargetSearch(problem, self.request, self._grid, self.n_batches, self.writer)

    def _grid(self, variances: Float64, mean: Float64) -> Float64:
        """Return the penalties (L,), given variances and means of the columns (D,)."""
        if self.request.l2s is not None:
            return np.asarray(self.request.l2s, np.float64)
        return default_grid(np.where(is_constant(np.sqrt(variances), mean), 0.0, variances))

    def _select(self, gram: Gram, folds: list[GramState]) -> tuple[Selection, list[str]]:
        l2s = self._grid(*spread_of(folds))
        errors, rounding = np.empty((2, len(l2s), len(folds), gram.n_targets))
        for number, fold in enumerate(folds):
            others = [each for each in folds if each is not fold]
            training = gram.finalize(_merged(gram, gram.zero(), others))
            path = RidgePath.of(training)
            found = fold_errors(path, training, gram.finalize(fold), l2s)
            errors[:, number], rounding[:, number] = found
            # released before the next fold's, because the plan counts one
            del training, path
        return choose(self.request, l2s, errors, rounding)

    def _refit(
        self,
        problem: Problem,
        sums: Sums,
        report: Report,
        chosen: tuple[Selection, list[str]],
    ) -> Solution:
        """Solve for all rows with the best penalty, or penalties; XᵀX is overwritten."""
        total: GramResult = sums.result
        selection, warnings = chosen
        distinct = np.unique(selection.l2)
        parts = []
        for number, l2 in enumerate(distinct):
            targets = np.flatnonzero(selection.l2 == l2)
            is_last = number == len(distinct) - 1
            gram = total.gram if is_last else total.gram.copy(order="K")
            of_targets = sums._replace(
                result=_of_targets(total._replace(gram=gram), targets),
                units=sums.units._replace(y=sums.units.y[targets]),
                warnings=[],
                about_means=None if sums.about_means is None else sums.about_means.of(targets),
                wanted=NEEDED,
                # passes correct the weights of all targets, with one penalty
                most_passes=MOST_PASSES if len(distinct) == 1 else 0,
            )
            one = replace(problem, n_targets=len(targets), penalty=L2Penalty(float(l2)))
            parts.append(ClosedForm().solve_sums(one, of_targets, report))
            del of_targets
            del gram
        solution = parts[0] if len(parts) == 1 else _joined(parts, selection, distinct)
        if solution.status is Status.COARSE_GRAM:
            solution = replace(solution, status=Status.COARSE_FOLDS)
        return replace(solution, warnings=[*warnings, *solution.warnings], selection=selection)


def _merged(gram: Gram, into: GramState, others: list[GramState]) -> GramState:
    """Merge states, in order, into one that is overwritten."""
    for other in others:
        into = gram.merge(into, other)
    return into


def _require_usable(gram: Gram, folds: list[GramState]) -> None:
    """Raise :class:`InputError` for folds without rows, and for squares outside float64."""
    require_rows_in_folds(folds)
    for fold in folds:
        require_in_range(gram.finalize(fold))


def _of_targets(moments: GramResult, targets: Numbers) -> GramResult:
    """Return the moments with some of the targets."""
    return moments._replace(
        y_origin=moments.y_origin[targets],
        y_offset=moments.y_offset[targets],
        y_varies=moments.y_varies[targets],
        y_variance=moments.y_variance[targets],
        cross=moments.cross[:, targets],
    )


def _joined(parts: list[Solution], selection: Selection, distinct: Float64) -> Solution:
    """Return the solutions of targets with different penalties as one."""
    columns = [np.flatnonzero(selection.l2 == l2) for l2 in distinct]
    order = np.argsort(np.concatenate(columns))
    worst = next((part for part in parts if not part.status.converged), parts[0])
    histories = zip(*(part.loss_history for part in parts), strict=True)
    digits = [part.digits for part in parts if part.digits is not None]
    weights = [part.coefficients for part in parts if part.coefficients is not None]
    conditions = [part.condition for part in parts if part.condition is not None]
    return replace(
        worst,
        coefficients=np.hstack(weights)[:, order],
        intercept=np.concatenate([part.intercept for part in parts])[order],
        loss_history=[float(sum(losses)) for losses in histories],
        # the same columns are constant with every penalty
        warnings=list(dict.fromkeys(text for part in parts for text in part.warnings)),
        digits=np.hstack(digits)[:, order],
        condition=max(conditions),
    )
