"""What solvers with a factor share: coordinates, the solution, and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.formatting import MIB, agree, count
from streamreg.solvers.base import EPS, Solution, Status
from streamreg.solvers.diagnostics import or_l2
from streamreg.solvers.factor import most_dependences
from streamreg.solvers.standard_errors import infer
from streamreg.solvers.standardization import is_constant, norm_scales, user_loss

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.second_moments import SecondMomentsResult
    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import Problem
    from streamreg.solvers.corrections import Corrected, Equations

# work space of LAPACK and BLAS, besides XᵀX, if its rank is below D. Measured: 150 columns at
# D = 5,000, 140 at 10,000; OpenBLAS takes no more than its own buffers
_LAPACK_COLUMNS, _LAPACK_MOST_NBYTES = 192, 16 * MIB
# for the diagonal of the inverse: its columns, and OpenBLAS's buffers. Measured: 3 MiB at D = 2,500
_INVERSE_MOST_NBYTES = 4 * MIB
# nearly dependent columns are reported from this condition number
NEARLY_DEPENDENT = 1e5
# Rounding of sums over many rows: the bound held on 4,000 tables, of condition 1 to 1e14.
_ROUNDING_FACTOR = 8.0
# a bound of the relative error of standard errors, above which they are better computed from R
_LEAST_ERROR_OF_GRAM = 1e-6
# a loss, computed from sums of squares, whose relative error may be larger is reported
_LARGE_LOSS_ERROR = 1e-6


def powers_of_two(spread: Float64, mean: Float64, penalty_root: Float64) -> Float64:
    """Return σ (D,), with which the diagonal of XᵀX is near 1; infinite for constant columns."""
    _, exponents = np.frexp(np.hypot(spread, penalty_root))
    return np.where(is_constant(spread, mean), np.inf, np.ldexp(1.0, exponents))


def solver_nbytes(problem: Problem) -> int:
    """Bytes of vectors, and of the work space of BLAS and LAPACK, beside the factor."""
    d, k = problem.n_features, problem.n_targets
    work_nbytes = 8 * d * _LAPACK_COLUMNS
    lapack_nbytes = min(work_nbytes, _LAPACK_MOST_NBYTES)
    lapack_nbytes += min(work_nbytes, _INVERSE_MOST_NBYTES)
    return 8 * d * (18 * (k + max(1, most_dependences(d))) + 20) + lapack_nbytes


def norm_units(spread: Float64, sigma: Float64, penalty_root: Float64) -> Float64:
    """Return u (D,): of all solutions v, the one with least ‖v/u‖ is taken.

    This is the norm of standardised weights, because that of weights in the user's units would
    depend on units. Columns of similar deviations are all divided by the same number.
    """
    constant = ~np.isfinite(sigma)
    scales = norm_scales(spread, constant, penalty_root)
    return np.where(constant, 0.0, sigma / scales)


def sum_rounding(n_features: int, updates: int, distance: float) -> float:
    """Return a bound of the relative error of XᵀX, or of R, after this many additions.

    ``distance`` is that of Equations.
    """
    return float(_ROUNDING_FACTOR * np.sqrt(n_features + updates) * distance * EPS / 2)


def solution_of(
    equations: Equations,
    found: Corrected,
    sums: SecondMomentsResult,
    warnings: list[str],
    request: InferenceRequest | None,
) -> Solution:
    """Return the solution, given the sums that were factorised."""
    digits, n_rows = equations.digits(found), sums.n
    status = _status(equations, found, infers=request is not None)
    warnings += dependence_warnings(equations, digits, n_rows, status)
    warnings += _loss_warnings(equations, found)
    w, b = equations.weights(found.point)
    inference = None
    if request is not None:
        squares = equations.statistic.squares_condition
        refines = not squares and equations.has_rows
        found_errors = infer(equations, found, request, n_rows, sums.s, refines=refines)
        inference = found_errors.inference
        warnings += found_errors.warnings
        if squares and not found_errors.is_certain:
            status = _coarse(equations)
    return Solution(
        w,
        b,
        status,
        len(found.losses) - 1,
        [user_loss(equations.units, loss) for loss in found.losses],
        warnings,
        digits=digits,
        condition=equations.condition(found),
        inference=inference,
    )


def _status(equations: Equations, found: Corrected, *, infers: bool) -> Status:
    factor, squares = equations.factor, equations.statistic.squares_condition
    # standard errors come from the factor, which no pass corrects
    is_coarse = equations.contraction > _LEAST_ERROR_OF_GRAM or _is_coarse_loss(found)
    is_coarse = is_coarse and infers and squares
    if not is_coarse and found.is_dependence_real and equations.is_exact_enough(found):
        return Status.SOLVED if factor.is_full else Status.LEAST_NORM
    if squares:
        return _coarse(equations)
    if not factor.is_full or factor.condition >= NEARLY_DEPENDENT:
        return Status.TOO_DEPENDENT
    return Status.TOO_FEW_DIGITS if equations.has_rows else Status.NEEDS_ROWS


def _coarse(equations: Equations) -> Status:
    return Status.COARSE_GRAM if equations.has_rows else Status.COARSE_STATISTICS


def dependence_warnings(
    equations: Equations, digits: Float64 | float, n_rows: int, status: Status
) -> Iterator[str]:
    """Yield warnings of columns that depend on others, or nearly do."""
    problem, factor = equations.problem, equations.factor
    dependent = factor.pivots[factor.rank :]
    dependent = dependent[np.isfinite(equations.scale[dependent])]
    if len(dependent):
        verb, kept = agree(len(dependent), "depends", "depend"), ""
        if status is not Status.LEAST_NORM:
            kept = f", to the digits that {equations.statistic.symbol} keeps"
        least_norm = "those of least norm"
        if status is not Status.LEAST_NORM and equations.corrects_dependences:
            least_norm = f"corrected from {least_norm}"
        yield or_l2(
            f"{problem.columns(dependent)} {verb} linearly on the others{kept} (rank "
            f"{factor.rank:,} of {problem.n_features:,}, {count(n_rows, 'row')}). The coefficients "
            f"are {least_norm}; leave such columns out"
        )
    if len(dependent) or factor.condition < NEARLY_DEPENDENT or not factor.rank:
        return
    worst = problem.columns(factor.pivots[factor.rank - 1 : factor.rank])
    right = int(np.nanmin(digits))
    yield or_l2(
        f"the columns are nearly dependent, {worst} most of all: scaled to similar deviations, "
        f"their condition number is {factor.condition:.0e}. {count(right, 'digit')} of each weight "
        f"{agree(right, 'is', 'are')} right; leave a column out"
    )


def _is_coarse_loss(found: Corrected) -> bool:
    return bool((found.loss_error > _LARGE_LOSS_ERROR * found.losses[-1]).any())


def _loss_warnings(equations: Equations, found: Corrected) -> Iterator[str]:
    if not _is_coarse_loss(found):
        return
    start = np.where(found.losses[0] > 0, found.losses[0], 1.0)
    share = float(np.max(found.loss_error / start))
    yield (
        f"the loss is known to within {share:.0e} of that at the start only, because it is "
        f"computed from {equations.statistic.symbol} without the rows"
    )
