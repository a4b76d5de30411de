"""Ridge regression with the best of many penalties: one pass, one D² state for each fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.folds import Folds
from streamreg.accumulators.gram import Gram
from streamreg.accumulators.second_moments import is_out_of_range
from streamreg.errors import InputError
from streamreg.formatting import agree, count
from streamreg.solvers.base import Solution, Solver, Status
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.corrections import NEEDED
from streamreg.solvers.penalties import L2Penalty
from streamreg.solvers.ridge_path import (
    REDUCTION_FLOPS,
    RidgePath,
    fold_errors,
    generalised_errors,
    path_nbytes,
    require_plain_units,
)
from streamreg.solvers.selection import choose, default_grid
from streamreg.solvers.standardization import is_constant
from streamreg.solvers.sums import MOST_PASSES, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.kernels.states import GramState
    from streamreg.solvers.base import Footprint, IterateStore, Numbers, Problem, Reduce, Report
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

    name: ClassVar[str] = ClosedForm.name
    summary: ClassVar[str] = "one pass, all penalties"
    runs_on_device: ClassVar[bool] = False
    reads_sparse: ClassVar[bool] = True

    def footprint(self, problem: Problem) -> Footprint:
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
            solve_flops=plain.solve_flops + request.n_folds * reduction,
        )

    def _others(self, problem: Problem) -> Iterator[tuple[str, int, str]]:
        """Yield what is kept beside the states of the folds."""
        gram = Gram(problem.n_features, problem.n_targets)
        rows = "training rows" if self.request.cross_validates else "all rows, for the penalties"
        yield "work", gram.state_nbytes, f"XᵀX of {rows}, overwritten"
        if self.request.folds_nbytes:
            yield "folds", self.request.folds_nbytes, "numbers of rows, while folds are made"

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "selection": repr(self.request)}

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
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
        _require_in_range(moments)
        l2s = self._grid(moments.gram.diagonal() / moments.s, moments.mean)
        path = RidgePath.of(moments._replace(gram=moments.gram.copy(order="F")))
        errors, rounding = generalised_errors(
            path, moments, l2s, fit_intercept=problem.fit_intercept
        )
        # released before the weights are solved for, because the plan counts one
        del path
        chosen = choose(self.request, l2s, errors[:, None], rounding[:, None])
        return self._refit(problem, sums, report, chosen)

    def _grid(self, variances: Float64, mean: Float64) -> Float64:
        """Return the penalties (L,), given variances and means of the columns (D,)."""
        if self.request.l2s is not None:
            return np.asarray(self.request.l2s, np.float64)
        return default_grid(np.where(is_constant(np.sqrt(variances), mean), 0.0, variances))

    def _select(self, gram: Gram, folds: list[GramState]) -> tuple[Selection, list[str]]:
        l2s = self._grid(*_spread(folds))
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
    empty = [number for number, fold in enumerate(folds) if not fold.n]
    if empty:
        have = agree(len(empty), "has", "have")
        raise InputError(
            f"{count(len(empty), 'fold')} of {len(folds):,} {have} no row that counts (fold "
            f"{empty[0]}, counted from 0), because rows have weight 0, or were left out; use "
            "fewer folds"
        )
    for fold in folds:
        _require_in_range(gram.finalize(fold))


def _require_in_range(moments: GramResult) -> None:
    """Raise :class:`InputError` for squares outside float64."""
    require_plain_units(is_plain=not is_out_of_range(moments))


def _spread(folds: list[GramState]) -> tuple[Float64, Float64]:
    """Return the variances and means of the columns over all rows, (D,) each."""
    weights = np.array([fold.s for fold in folds])
    means = np.array([(fold.origin - folds[0].origin) + fold.mean for fold in folds])
    within = sum(fold.gram.diagonal() for fold in folds)
    mean = weights @ means / weights.sum()
    variances = (within + weights @ (means - mean) ** 2) / weights.sum()
    return variances, folds[0].origin + mean


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
    conditions = [part.condition for part in parts if part.condition is not None]
    return replace(
        worst,
        coefficients=np.hstack([part.coefficients for part in parts])[:, order],
        intercept=np.concatenate([part.intercept for part in parts])[order],
        loss_history=[float(sum(losses)) for losses in histories],
        # the same columns are constant with every penalty
        warnings=list(dict.fromkeys(text for part in parts for text in part.warnings)),
        digits=np.hstack(digits)[:, order],
        condition=max(conditions),
    )
