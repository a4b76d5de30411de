"""Penalties and weights of many targets, in the memory of XᵀY."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.folds import BatchFolds, Folds
from streamreg.accumulators.gram import Gram
from streamreg.errors import InputError, Remedy
from streamreg.solvers.base import Status
from streamreg.solvers.corrections import distance_from_origin
from streamreg.solvers.diagnostics import column_warnings
from streamreg.solvers.exact import sum_rounding
from streamreg.solvers.many_targets import (
    Found,
    TargetRows,
    intercepts,
    require_in_range,
    require_rows_in_folds,
    require_targets_in_range,
    spread_of,
    target_batches,
    width_at_once,
)
from streamreg.solvers.ridge_path import RidgePath, fold_errors, generalised_errors
from streamreg.solvers.selection import best_numbers, choose
from streamreg.solvers.standardization import is_constant

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.kernels.states import FoldsState, GramState
    from streamreg.solvers.base import Numbers, Problem, Reduce, Report, Solution, TargetWriter
    from streamreg.solvers.ridge_path import Pivots
    from streamreg.solvers.selection import SelectionRequest

# the solver says so if a bound of the relative error of weights, in coordinates, is larger
_NEEDED = 1e-6
# factors of T + λ1 that are kept, for as many penalties
MOST_KEPT = 64


class TargetSearch:
    """The weights of many targets, each with the penalty that is best for it, or for all.

    XᵀX is reduced to tridiagonal form, and XᵀY becomes QᵀXᵀY, then the weights, some targets at a
    time: :class:`RidgePath`. With folds, one more state holds the sums of training rows.
    """

    def __init__(
        self,
        problem: Problem,
        request: SelectionRequest,
        grid: Callable[[Float64, Float64], Float64],
        n_batches: int = 1,
        writer: TargetWriter | None = None,
    ) -> None:
        self._problem, self._request = problem, request
        self._grid = grid  # penalties, given variances and means of the columns
        d, k = problem.n_features, problem.n_targets
        self._gram = Gram(d, k, problem.fit_intercept)
        self._batches = target_batches(d, k, n_batches)
        self._writer = writer
        self._found = Found(k)
        # kept between batches: XᵀX of the folds, or without folds its tridiagonal form
        self._squares: Float64 | None = None
        self._path: RidgePath | None = None
        self._l2s = np.empty(0)
        self._pivots: dict[float, Pivots] = {}  # of the path that is solved with
        self._contraction, self._condition = 0.0, 1.0
        self._constant, self._varies = np.zeros(d, bool), np.ones(d, bool)

    def solve(self, reduce: Reduce, report: Report) -> Solution:
        """Run the passes, one for each batch of targets; two, if one penalty is chosen for all."""
        rows: TargetRows | None = None
        problem, one = self._problem, len(self._batches) == 1
        if not one and self._writer is None:
            rows = TargetRows(problem.n_targets, problem.n_features)
        is_apart = one or self._request.chooses_by_target
        sweeps = [(True, True)] if is_apart else [(True, False), (False, True)]
        for compares, solves in sweeps:
            for targets in self._batches:
                state = self._read(reduce, targets)
                weights = self._compute(state, targets, compares=compares, solves=solves)
                del state
                if weights is not None and not one:
                    writer = rows or self._writer
                    if writer is not None:
                        writer.write(targets.start, weights.T)
                    del weights
        return self._solution(rows.values.T if rows else None if not one else weights, report)

    def solve_sums(self, moments: GramResult, report: Report) -> Solution:
        """Solve sums of rows that were read before; they are overwritten."""
        weights = self._solved(moments, slice(0, self._problem.n_targets))
        return self._solution(weights, report)

    def _read(self, reduce: Reduce, targets: slice) -> FoldsState:
        d, k, n_folds = self._gram.n_features, self._gram.n_targets, self._request.n_folds
        folds = Folds(n_folds, d, k, self._problem.fit_intercept)
        if len(self._batches) > 1:
            span = targets.start, targets.stop
            is_first = self._squares is None and self._path is None
            folds = BatchFolds(
                n_folds,
                d,
                targets.stop - targets.start,
                folds.centred,
                targets=span,
                computes_square=is_first,
            )
        state = reduce(folds)
        if self._squares is None and n_folds > 1:
            self._squares = state.gram
        return state if self._squares is None else state._replace(gram=self._squares)

    def _compute(
        self, state: FoldsState, targets: slice, *, compares: bool, solves: bool
    ) -> Float64 | None:
        """Compare the penalties of a batch of targets; return weights (D, k), if asked for."""
        n_folds = self._request.n_folds
        folds = [state.fold(number) for number in range(n_folds)]
        if n_folds == 1:
            moments = self._gram.finalize(folds[0])
            return self._solved(moments, targets, compares=compares, solves=solves)
        self._require_usable(folds)
        if compares:
            self._cross_validate(folds, targets)
        if not solves:
            return None
        total = self._gram.finalize(self._merged(folds))
        return self._solved(total, targets, compares=False)

    def _solved(
        self, moments: GramResult, targets: slice, *, compares: bool = True, solves: bool = True
    ) -> Float64 | None:
        """Return weights (D, k) in the memory of XᵀY; XᵀX is overwritten too."""
        request = self._request
        if self._path is None:
            if not request.cross_validates:
                require_in_range(moments)
            self._describe(moments)
            path = RidgePath.reduced(moments).explicit()
            # with folds, XᵀX of all rows is merged again for the next batch
            self._path = None if request.cross_validates else path
        else:
            path = self._path
            require_targets_in_range(moments)
        path = path.in_place(moments.cross)
        if compares and request.given is None:
            scores = generalised_errors(
                path, moments, self._l2s, fit_intercept=self._problem.fit_intercept
            )
            self._errors[:, 0, targets], self._rounding[:, 0, targets] = scores
        if not solves:
            return None
        self._solve(path, moments, targets)
        return moments.cross

    def _describe(self, moments: GramResult) -> None:
        """Keep what is known of the columns, and the penalties, before XᵀX is overwritten."""
        variances, mean = moments.gram.diagonal() / moments.s, moments.mean
        spread = np.sqrt(variances)
        self._constant, self._varies = is_constant(spread, mean), moments.varies > 0
        scale = np.where(self._constant, np.inf, spread)
        distance = distance_from_origin(moments.offset, scale)
        self._rounding_of_sums = sum_rounding(len(spread), moments.updates, distance)
        if not len(self._l2s):
            self._begin(variances, mean)

    def _begin(self, variances: Float64, mean: Float64) -> None:
        self._l2s = self._grid(variances, mean)
        shape = len(self._l2s), self._request.n_folds, self._gram.n_targets
        if self._request.given is None:
            self._errors, self._rounding = np.empty(shape), np.empty(shape)

    def _require_usable(self, folds: list[GramState]) -> None:
        require_rows_in_folds(folds)
        for fold in folds:
            require_in_range(self._gram.finalize(fold))
        if not len(self._l2s):
            self._begin(*spread_of(folds))

    def _cross_validate(self, folds: list[GramState], targets: slice) -> None:
        for number, fold in enumerate(folds):
            others = [each for each in folds if each is not fold]
            training = self._gram.finalize(self._merged(others))
            path = RidgePath.reduced(training).explicit().in_place(training.cross)
            found = fold_errors(path, training, self._gram.finalize(fold), self._l2s)
            self._errors[:, number, targets], self._rounding[:, number, targets] = found
            # released before the next fold's, because the plan counts one
            del training, path

    def _merged(self, folds: list[GramState]) -> GramState:
        """Merge states, in order, into a new one."""
        d, k = folds[0].cross.shape
        gram = Gram(d, k, self._gram.centred)
        into = gram.zero()
        for each in folds:
            into = gram.merge(into, each)
        return into

    def _solve(self, path: RidgePath, moments: GramResult, targets: slice) -> None:
        """Overwrite QᵀXᵀY of some targets by their weights."""
        found, cross, right = self._found, moments.cross, path.right
        l2, width = self._best(targets), width_at_once(*cross.shape)
        for first in range(0, cross.shape[1], width):
            some = slice(first, min(first + width, cross.shape[1]))
            numbers = slice(targets.start + some.start, targets.start + some.stop)
            mine = l2[some]
            z = np.empty((len(right), len(mine)), order="F")
            for value in np.unique(mine):
                at = np.flatnonzero(mine == value)
                z[:, at] = self._coordinates(path, float(value), first + at)
            gained = np.einsum("dk,dk->k", z, right[:, some])
            w = path.weights(z)
            self._require_finite(w)
            if self._problem.fit_intercept:
                found.intercept[numbers] = intercepts(moments, w, some)
            found.start[numbers] = 0.5 * moments.y_variance[some]
            found.loss[numbers] = found.start[numbers] - 0.5 * gained
            cross[:, some] = w

    def _best(self, targets: slice) -> Float64:
        """Return the penalties of some targets, (k,)."""
        request = self._request
        if request.given is not None:
            return request.given[targets]
        some = targets if request.per_target else slice(None)
        errors = np.maximum(self._errors[:, :, some], self._rounding[:, :, some])
        if not request.per_target:
            errors = errors.mean(axis=2, keepdims=True)
        numbers = np.broadcast_to(best_numbers(request, errors), targets.stop - targets.start)
        return np.asarray(self._l2s[numbers])

    def _coordinates(self, path: RidgePath, l2: float, targets: Numbers) -> Float64:
        pivots = self._pivots.get(l2)
        if pivots is None:
            pivots = path.at(l2)
        if pivots is None:
            raise InputError(
                f"the penalty {l2:.3g} leaves the equations singular: columns depend on others, or "
                "rows are too few. Pass a larger ",
                Remedy("l2"),
            )
        lost = float(np.max((path.diagonal + l2) * pivots.inverse, initial=1.0))
        if len(self._pivots) >= MOST_KEPT:
            self._pivots.clear()
        self._pivots[l2] = pivots
        contraction = self._rounding_of_sums * lost
        if contraction > self._contraction:
            self._contraction, self._condition = contraction, path.condition(l2)
        return path.coordinates(pivots, targets)

    def _require_finite(self, w: Float64) -> None:
        finite = np.isfinite(w)
        if not finite.all():
            columns = np.flatnonzero(~finite.all(axis=1))
            raise InputError(
                f"{self._problem.columns(columns)} would get weights outside 1e-308 to 1e308, "
                "which float64 cannot hold; store the columns in other units"
            )

    def _solution(self, weights: Float64 | None, report: Report) -> Solution:
        request, selection = self._request, None
        warnings: list[str] = []
        if request.given is None:
            selection, warnings = choose(request, self._l2s, self._errors, self._rounding)
        self._found.is_exact = self._contraction <= _NEEDED
        warnings += column_warnings(self._problem, self._constant, self._varies)
        return self._found.solution(
            self._problem,
            weights,
            Status.SOLVED,
            warnings,
            self._condition,
            report,
            selection=selection,
        )
