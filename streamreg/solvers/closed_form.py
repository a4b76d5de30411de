"""The normal equations, solved: one pass, O(D²) state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from streamreg.accumulators.gram import Gram
from streamreg.kernels import blas
from streamreg.solvers.base import EpochRecord, Footprint, Solution, Solver, Status
from streamreg.solvers.coordinates import measure

if TYPE_CHECKING:
    from streamreg.accumulators.base import Scaling
    from streamreg.blocks import Float64
    from streamreg.kernels.states import GramState
    from streamreg.solvers.base import Problem, Reduce, Report

_EPS = float(np.finfo(float).eps)
# squares below may have lost values to underflow; squares of 0 are 0
_SMALLEST_SQUARE = 2.0**-900
# fewer digits than this deserve a word
_FEW_DIGITS = 6.0


class _Factor(NamedTuple):
    """Pivoted Cholesky factor of the scaled Gram: PᵀGP = LLᵀ."""

    lower: Float64  #  (D, D), Fortran order, in the Gram's own memory
    pivots: np.ndarray[tuple[int], np.dtype[np.intp]]  # (D,)
    rank: int
    condition: float  # of the scaled Gram


@dataclass(frozen=True)
class ClosedForm(Solver):
    """Centred XᵀX w = Xᵀy, scaled by powers of two, by Cholesky with pivots [1]_.

    The factor is made in the memory of XᵀX: no second D² array is needed. Columns that depend on
    others have no pivot left; then the solution of least norm is taken, from a QR factor of L.

    References
    ----------
    .. [1] Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., section 10.3.
    """

    name: ClassVar[str] = "closed_form"

    def footprint(self, problem: Problem) -> Footprint:
        gram = Gram(problem.n_features, problem.n_targets)
        d, k = problem.n_features, problem.n_targets
        return Footprint(gram.state_nbytes, gram.scratch_nbytes, 8 * d * (4 * k + 24))

    def passes(self) -> int:
        return 1

    def solve(self, problem: Problem, reduce: Reduce, report: Report) -> Solution:
        state, scaling = _gather(problem, reduce)
        k = problem.n_targets
        units = np.ones(problem.n_features) if scaling is None else scaling.x
        y_units = np.ones(k) if scaling is None else scaling.y
        s = float(state.s)
        y_variance = state.y_m2 / s
        scale = _scales(state, s, centred=problem.fit_intercept)
        right = np.asfortranarray(state.cross * (scale / s)[:, None])
        penalty = problem.l2 * (scale * units) ** 2
        factor = _factorise(state.gram, scale, s, penalty)
        active = int(np.count_nonzero(scale))
        if factor.rank >= active:
            v = _solve(factor, right)
            w = v * (scale * units)[:, None]
        else:
            w = _least_norm(factor, right, scale * units)
        with np.errstate(divide="ignore", invalid="ignore"):
            explained = np.sum(np.where(scale[:, None] > 0, w * right / (scale * units)[:, None], 0), axis=0)
        losses = [0.5 * y_variance, np.maximum(0.5 * (y_variance - explained), 0.0)]
        history = [float(np.sum(loss / y_units**2)) for loss in losses]
        coefficients = w / y_units
        intercept = state.y_mean / y_units - (state.mean / units) @ coefficients
        report(EpochRecord(1, history[0], float("nan")))
        return Solution(
            coefficients,
            intercept if problem.fit_intercept else np.zeros(k),
            Status.SOLVED if factor.rank >= active else Status.LEAST_NORM,
            1,
            history,
            _warnings(problem, factor, scale),
        )


def _gather(problem: Problem, reduce: Reduce) -> tuple[GramState, Scaling | None]:
    """Run the pass; and again, scaled, where squares left float64's range."""
    gram = Gram(problem.n_features, problem.n_targets, centred=problem.fit_intercept)
    state = reduce(gram)
    diagonal = state.gram.diagonal() / float(state.s)
    doubtful = ~np.isfinite(diagonal) | (diagonal < _SMALLEST_SQUARE)
    y_doubtful = ~np.isfinite(state.y_m2) | (state.y_m2 / float(state.s) < _SMALLEST_SQUARE)
    if not (doubtful.any() or y_doubtful.any()):
        return state, None
    del state, diagonal  # its D² numbers are not needed twice
    _, scaling = measure(problem, reduce)
    return reduce(Gram(gram.n_features, gram.n_targets, gram.centred, scaling)), scaling


def _scales(state: GramState, s: float, *, centred: bool) -> Float64:
    """Return powers of two that bring the diagonal near 1; 0 for columns that do not vary."""
    variance = state.gram.diagonal() / s
    noise = (8 * _EPS * state.mean) ** 2 if centred else np.zeros_like(variance)
    varies = variance > noise
    _, exponents = np.frexp(np.sqrt(np.where(varies, variance, 1.0)))
    return np.where(varies, np.ldexp(1.0, -exponents), 0.0)


def _factorise(gram: Float64, scale: Float64, s: float, penalty: Float64) -> _Factor:
    from scipy.linalg import lapack  # noqa: PLC0415  (30 MiB that only the closed form needs)

    d = len(gram)
    for j in range(d):  # a column at a time: no second D² array
        gram[j:, j] *= scale[j:] * (scale[j] / s)
        gram[j, j] += penalty[j]
    norm = _one_norm(gram)
    # what is left of a column that depends on others is rounding
    tolerance = 32 * max(d, 16) * _EPS * float(np.max(gram.diagonal()))
    lower, pivots, rank, _ = lapack.dpstrf(gram, tol=tolerance, lower=1, overwrite_a=1)
    rank = int(rank)
    if rank == d:
        reciprocal, _ = lapack.dpocon(lower, norm, uplo="L")
        condition = 1 / reciprocal if reciprocal > 0 else np.inf
    else:
        ends = lower.diagonal()[:rank]
        condition = float((ends[0] / ends[-1]) ** 2) if rank else 1.0
    return _Factor(lower, pivots.astype(np.intp) - 1, rank, condition)


def _one_norm(lower: Float64) -> float:
    """Return the 1-norm of a symmetric matrix of which the lower triangle is stored."""
    sums = np.zeros(len(lower))
    for j in range(len(lower)):
        column = np.abs(lower[j:, j])
        sums[j] += column.sum()
        sums[j + 1 :] += column[1:]
    return float(sums.max())


def _solve(factor: _Factor, right: Float64) -> Float64:
    """Solve with the leading rank×rank factor; 0 for the columns without a pivot."""
    v = np.asfortranarray(right[factor.pivots])
    v[factor.rank :] = 0.0
    if factor.rank:
        for transposed in (False, True):
            blas.solve_triangle(
                factor.lower, v, size=factor.rank, lower=True, transposed=transposed
            )
    out = np.empty_like(v)
    out[factor.pivots] = v
    return out


def _least_norm(factor: _Factor, right: Float64, scale: Float64) -> Float64:
    """Return the w of least norm, in the user's units, that solves LLᵀw = right.

    With L = QR, (D, r), it is w = Q R⁻ᵀ R⁻¹ Qᵀ right; Q and R take the memory of L.
    """
    from scipy.linalg import lapack  # noqa: PLC0415  (30 MiB that only the closed form needs)

    rank, pivots = factor.rank, factor.pivots
    if rank == 0:
        return np.zeros_like(right)
    scale = scale[pivots, None]
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    trapezoid = factor.lower[:, :rank]
    for j in range(rank):
        trapezoid[:j, j] = 0.0
    trapezoid *= inverse
    qr, tau, _, _ = lapack.dgeqrf(trapezoid, overwrite_a=1)
    w = np.asfortranarray(right[pivots] * inverse)
    work = max(1, 64 * w.shape[1])
    w, _, _ = lapack.dormqr("L", "T", qr, tau, w, lwork=work, overwrite_c=1)
    w[rank:] = 0.0
    # G = LLᵀ = Q R Rᵀ Qᵀ
    for transposed in (False, True):
        blas.solve_triangle(qr, w, size=rank, lower=False, transposed=transposed)
    w, _, _ = lapack.dormqr("L", "N", qr, tau, w, lwork=work, overwrite_c=1)
    out = np.empty_like(w)
    out[pivots] = w
    return out


def _warnings(problem: Problem, factor: _Factor, scale: Float64) -> list[str]:
    warnings = []
    still = [int(j) for j in np.flatnonzero(scale == 0)]
    if still:
        what = "constant" if problem.fit_intercept else "zero in every row"
        verb = "is" if len(still) == 1 else "are"
        warnings.append(f"{problem.columns(still)} {verb} {what}; coefficients set to 0")
    dependent = [int(j) for j in factor.pivots[factor.rank :] if scale[j] > 0]
    if dependent:
        verb = "depends" if len(dependent) == 1 else "depend"
        warnings.append(
            f"{problem.columns(dependent)} {verb} linearly on the others (rank "
            f"{factor.rank:,} of {problem.n_features:,}): the coefficients are those of least "
            "norm; leave such columns out, or pass l2 > 0"
        )
    digits = 16 - np.log10(max(factor.condition, 1.0))
    if not dependent and digits < _FEW_DIGITS:
        worst = [int(factor.pivots[factor.rank - 1])]
        warnings.append(
            f"the columns are nearly dependent, {problem.columns(worst)} most of all: XᵀX has "
            f"condition number {factor.condition:.1e}, so expect about {max(digits, 0):.0f} "
            'correct digits; leave a column out, or pass solver="cg" with a small tol'
        )
    return warnings
