"""Least squares by an orthogonal factor: one pass and corrections, O(D²) state, most digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.accumulators.moments import Moments
from streamreg.accumulators.residuals import residuals_nbytes
from streamreg.accumulators.root import Root
from streamreg.kernels.lapack import add_diagonal, lapack_nbytes, n_panels
from streamreg.kernels.root import root_tile_rows
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
    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Report
    from streamreg.solvers.sums import Sums

# a pass takes about this factor of the operations of XᵀX
_OPERATIONS = 2.5


@dataclass(frozen=True)
class QR(FactorSolver):
    """The triangular factor R of the centred columns, and corrections of the weights.

    R keeps the condition number κ of X, where XᵀX has its square. The first solution has an error
    of about κ u + κ² u ‖r‖, u = 1.1e-16; each correction, from residuals in two floats, multiplies
    it by about κ u: see :class:`Equations`. At least one is made. With κ up to 1e12 the weights are
    right to the last digit, or the solution says how many digits are.

    If columns depend on others, the solution has least norm and a warning names them.
    """

    name: ClassVar[str] = "qr"
    summary: ClassVar[str] = "few passes, most digits"
    reads_sparse: ClassVar[bool] = True
    runs_on_device: ClassVar[bool] = False
    statistic: ClassVar[type[SecondMoments[Any]]] = Root

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        root, moments = Root(d, k), Moments(d, k)
        first = PassFootprint(
            root.state_nbytes,
            root.scratch_nbytes - lapack_nbytes(root.size),
            n_parts=n_panels(root.size),
            multiplies_matrices=True,
            tile_rows=root_tile_rows(root.size),
            fixed_nbytes=lapack_nbytes(root.size),
            what="R",
            why=f"{root.size:,}² × 8 bytes",  # noqa: RUF001
        )
        later = PassFootprint(0, 0, earlier_nbytes=root.state_nbytes)
        others = (
            (moments.state_nbytes, moments.scratch_nbytes),
            residuals_nbytes(d, k + max(1, most_dependences(d))),
        )
        passes = [later._replace(state_nbytes=a, scratch_nbytes=b) for a, b in others]
        footprint = Footprint(
            (first, *passes),
            solver_nbytes=solver_nbytes(problem),
            n_passes=2,
            row_flops=_OPERATIONS * (d + k) * (d + k),
            # the factor with pivots, and the diagonal of its inverse
            solve_flops=d * d * (5 * d / 3 + 2.0 * k),
        )
        return with_inference(footprint, problem, self.request, root.state_nbytes)

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        result, units, warnings = sums.result, sums.units, sums.warnings
        d = problem.n_features
        spread, y_size = np.split(result.deviations, [d])
        root = problem.penalty.root(units.x)
        sigma = powers_of_two(spread, result.origin + result.offset, root)
        s = result.s
        right = result.root[1 : d + 1, d + 1 :] / np.sqrt(s)
        beyond = np.sum(result.root[d + 1 :, d + 1 :] ** 2, axis=0) / s
        R = _scaled(result.root, d, 1 / (sigma * np.sqrt(s)))
        if root.any():
            right = np.asfortranarray(right)
            beyond = beyond + add_diagonal(R, root / sigma, right)
        predicted = 0.5 * beyond
        factor, v = Factor.of_root(R, right, norm_units(spread, sigma, root))
        distance = max(sums.distance, distance_from_origin(result.offset, sigma))
        rounding = sum_rounding(d, result.updates, distance)
        equations = Equations(
            problem=problem,
            statistic=Root,
            reduce=sums.reduce,
            about_means=sums.about_means,
            units=units,
            scale=sigma,
            origin=result.origin,
            offset=result.offset,
            y_origin=result.y_origin,
            y_offset=result.y_offset,
            y_size=y_size,
            factor=factor,
            distance=distance,
            rounding=rounding,
            contraction=rounding * factor.condition,
        )
        found = equations.correct(v, predicted, report, always=True)
        warnings += column_warnings(problem, ~np.isfinite(sigma), result.varies > 0)
        return solution_of(equations, found, result, warnings, self.request)


def _scaled(root: Float64, d: int, factors: Float64) -> Float64:
    """Return R of the columns of X, (D, D), times factors: in the memory of ``root``."""
    memory, size = root.reshape(-1, order="F"), len(root)
    for j in range(d):
        first = (j + 1) * size + 1
        memory[j * d : j * d + j + 1] = memory[first : first + j + 1] * factors[j]
        memory[j * d + j + 1 : (j + 1) * d] = 0.0
    return memory[: d * d].reshape((d, d), order="F")
