"""Ridge regression with the best of many penalties by XXᵀ, for fewer rows than columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.solvers.base import EpochRecord, Footprint, Solution
from streamreg.solvers.diagnostics import column_warnings
from streamreg.solvers.dual import Dual, corrected, solution_of
from streamreg.solvers.penalties import L2Penalty
from streamreg.solvers.ridge_path import REDUCTION_FLOPS, path_nbytes, require_plain_units
from streamreg.solvers.row_equations import CentredProducts, RowEquations, RowSpace
from streamreg.solvers.row_path import PathFactor, RowPath
from streamreg.solvers.selection import choose, default_grid
from streamreg.solvers.standardization import measure, user_loss

if TYPE_CHECKING:
    from streamreg.solvers.base import IterateStore, Problem, Reduce, Report
    from streamreg.solvers.selection import SelectionRequest


@dataclass(frozen=True, kw_only=True)
class DualSearch(Dual):
    """The dual solver with the penalty that generalised cross-validation finds best.

    ZZᵀ, from the passes of :class:`Dual`, is reduced to tridiagonal form in its memory. That gives
    GCV of all penalties and targets, and then α of the best: no pass more than for one penalty.
    """

    request: SelectionRequest

    summary: ClassVar[str] = "few passes, all penalties, for fewer rows than columns"

    def footprint(self, problem: Problem) -> Footprint:
        n, k, n_l2s = problem.n_rows, problem.n_targets, self.request.n_l2s
        plain = super().footprint(problem)
        return plain._replace(
            # scores, and what choosing makes of them
            solver_nbytes=plain.solver_nbytes + path_nbytes(n, k, n_l2s) + 8 * 6 * n_l2s * k,
            solve_flops=REDUCTION_FLOPS * float(n) ** 3 + 4.0 * n * n * k,
        )

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "selection": repr(self.request)}

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
        moments, units, warnings = measure(problem, reduce)
        require_plain_units(is_plain=units.is_one)
        # any penalty: with one, columns are not scaled
        space = RowSpace.of(replace(problem, penalty=L2Penalty(1.0)), moments, units)
        start = 0.5 * space.y_variance
        report(EpochRecord(1, user_loss(units, start), np.nan))
        rows = self.products(problem, reduce, space, moments)
        centred = CentredProducts.of(space, rows)
        largest = float(centred.products.diagonal().max())
        weight_sum, root = float(rows.weight.sum()), np.sqrt(rows.weight)[:, None]
        right = root * rows.targets
        if problem.fit_intercept:
            right -= root * (root.T @ right) / weight_sum
        path = RowPath.of(centred, right, weight_sum)
        l2s = default_grid(np.where(space.constant, 0.0, space.spread**2))
        if self.request.l2s is not None:
            l2s = np.asarray(self.request.l2s, np.float64)
        errors, rounding = path.generalised_errors(l2s)
        selection, more = choose(self.request, l2s, errors[:, None], rounding[:, None])
        equations = RowEquations(
            space=space,
            targets=rows.targets,
            weight=rows.weight,
            weight_sum=weight_sum,
            strength=selection.l2,
            factor=PathFactor.of(path, selection.l2),
            frobenius=np.sqrt(centred.trace),
            largest=largest + float(selection.l2.min()) * weight_sum,
            strips=rows.strips,
        )
        found = corrected(equations, reduce, report, start)
        warnings += more
        warnings += column_warnings(problem, space.constant, moments.low < moments.high)
        return replace(solution_of(equations, found, warnings), selection=selection)
