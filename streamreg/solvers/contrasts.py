"""Standard errors of chosen weights without XᵀX: conjugate gradients for columns of its inverse.

With A = ∇²f, the combination aᵀθ of the parameters has

    var(aᵀθ) = σ² aᵀz / Σs        or        Σ sᵢ² rᵢ² (xᵢ·z)² / (Σs)²  (HC0)        Az = a
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.contrasts import Contrasts, contrasts_nbytes
from streamreg.errors import Message, Parameter, Remedy
from streamreg.inference.result import Inference
from streamreg.solvers.base import Footprint, PassFootprint, gradient_pass
from streamreg.solvers.constant import find_constant
from streamreg.solvers.standard_errors import freedom_warnings, terms_of

if TYPE_CHECKING:
    from streamreg.accumulators.contrasts import ContrastState
    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import Problem
    from streamreg.solvers.standardization import Coordinates

# the error of aᵀz is the square of that of z: this is some 16 digits, less twice those that the
# condition number takes
_TOLERANCE = 1e-9
# of 1 from sums of columns, squared: what conjugate gradients leave is smaller
_LARGE_DISTANCE = 1e-4
# arrays as large as θ for each combination: a, z, its residual, direction, ∇²f·d and temporaries
_VECTORS = 12


class Fitted(NamedTuple):
    """The solution that standard errors belong to."""

    w: Float64  # (D, K) in the user's units
    b: Float64  # (K,)
    theta: Float64  # (D + 1, K) in coordinates
    loss: Float64  # (K,) f
    is_full_rank: bool  # whether no column is known, or suspected, to depend on others


class Inverse(NamedTuple):
    """Columns of the inverse."""

    z: Float64  # (D + 1, M)
    variances: Float64  # (M,) aᵀz; NaN where the iteration did not converge
    epochs: int


def with_contrasts(
    footprint: Footprint, problem: Problem, request: InferenceRequest | None, max_epochs: int
) -> Footprint:
    """Return the footprint with what chosen standard errors add."""
    if request is None or request.columns is None:
        return footprint
    d, k, m = problem.n_features, problem.n_targets, len(request.columns) + 1
    n_more = min(footprint.n_passes, max_epochs) * (1 if problem.fit_intercept else 2)
    passes = (
        gradient_pass(problem, m, 0),
        PassFootprint(*contrasts_nbytes(d, k, m, is_sparse=problem.is_sparse)),
    )
    return footprint._replace(
        passes=(*footprint.passes, *passes),
        solver_nbytes=footprint.solver_nbytes + 8 * _VECTORS * (d + 1) * m,
        n_passes=footprint.n_passes + n_more + 1,
    )


def infer_contrasts(
    coordinates: Coordinates,
    fitted: Fitted,
    request: InferenceRequest,
    max_epochs: int,
) -> tuple[Inference, list[str]]:
    """Return standard errors of the chosen weights and of the intercept; NaN for all others."""
    problem, scale = coordinates.problem, coordinates.scale
    chosen = np.array(request.columns or (), np.intp)
    contrasts = np.zeros((problem.n_features + 1, len(chosen) + problem.fit_intercept))
    contrasts[chosen, np.arange(len(chosen))] = 1 / scale[chosen]
    if problem.fit_intercept:
        contrasts[:-1, -1], contrasts[-1, -1] = -coordinates.centre / scale, 1.0
    inverse = _solve(coordinates, contrasts, max_epochs)
    sums = _sums(coordinates, np.hstack([fitted.theta, inverse.z]))
    s, y = float(sums.s), np.frexp(coordinates.units.y)[1] - 1
    rank = int(np.isfinite(scale).sum()) + problem.fit_intercept if fitted.is_full_rank else None
    first = 1 - problem.fit_intercept
    is_centred, tss = _total(coordinates, sums, max_epochs)
    result = Inference(
        cov_type=request.cov_type,
        terms=terms_of(problem),
        params=np.vstack([fitted.b, fitted.w])[first:].T.copy(),
        bse=np.full((problem.n_targets, problem.n_features + 1), np.nan),
        nobs=int(sums.n),
        rank=rank,
        has_intercept=problem.fit_intercept,
        is_centred=is_centred,
        rss=2 * fitted.loss * s,
        tss=tss,
        y_exponents=-y,
        wald=np.full(problem.n_targets, np.nan) if request.is_robust else None,
        is_partial=True,
    )
    df = result.df_resid if result.df_resid > 0 else np.nan
    if request.is_robust:
        factor = result.nobs / df if request.cov_type == "HC1" else 1.0
        found = np.where(np.isnan(inverse.variances), np.nan, 1.0)
        deviations = found * np.sqrt(sums.squares * factor)[None] / s
    else:
        deviations = np.sqrt(np.outer(2 * fitted.loss / df, inverse.variances))
    x = np.frexp(coordinates.units.x)[1] - 1
    bse = result.bse
    bse[:, 1 + chosen] = np.ldexp(deviations[:, : len(chosen)], x[chosen] - y[:, None])
    if problem.fit_intercept:
        bse[:, 0] = np.ldexp(deviations[:, -1], -y)
    # constant columns, whose combination is 0, are named elsewhere
    is_missing = bool(np.isnan(inverse.variances[contrasts.any(axis=0)]).any())
    return replace(result, bse=bse[:, first:]), _warnings(result, max_epochs, is_missing=is_missing)


def _sums(coordinates: Coordinates, both: Float64) -> ContrastState:
    """Run the pass: residuals at θ, and combinations z, both (D + 1, K + M)."""
    x_unit, y_unit = coordinates.units
    columns = both[:-1] / coordinates.scale[:, None]
    y_centre = np.zeros(both.shape[1])
    y_centre[: len(y_unit)] = coordinates.y_centre
    statistic = Contrasts(
        columns * x_unit[:, None],
        both[-1] - coordinates.centre @ columns + y_centre,
        coordinates.y_centre,
        None if (y_unit == 1).all() else y_unit,
    )
    return coordinates.reduce(statistic)


def _total(
    coordinates: Coordinates, sums: ContrastState, max_epochs: int
) -> tuple[bool | None, Float64]:
    """Return whether R² is about the mean, and Σ sᵢ (yᵢ - ȳ)² or Σ sᵢ yᵢ², in the units."""
    s, problem = sums.s, coordinates.problem
    if problem.fit_intercept:
        return True, sums.yy - sums.y**2 / s
    # Σ sᵢ xᵢ/Σs is ∇²f times the intercept's direction
    one = np.zeros((problem.n_features + 1, 1))
    one[-1] = 1.0
    mean = coordinates.products(one)[:-1]

    def solve(right: Float64) -> Float64 | None:
        inverse = _solve(coordinates, np.vstack([right, np.zeros((1, 1))]), max_epochs)
        return None if np.isnan(inverse.variances).any() else inverse.z[:-1]

    found = find_constant(
        coordinates.reduce,
        coordinates.units,
        coordinates.scale,
        mean,
        problem.n_targets,
        solve,
        large=_LARGE_DISTANCE,
    )
    if found.is_spanned is None:
        return None, np.full_like(sums.yy, np.nan)
    return found.is_spanned, found.y_variance * s if found.is_spanned else sums.yy


def _solve(coordinates: Coordinates, contrasts: Float64, max_epochs: int) -> Inverse:
    """Solve Az = a for each column, by conjugate gradients: a pass for each step."""
    z, residual = np.zeros_like(contrasts), contrasts.copy()
    direction, squared = residual.copy(), np.sum(residual**2, axis=0)
    least = _TOLERANCE**2 * squared
    epoch = 0
    while (squared > least).any() and epoch < max_epochs:
        curvature = coordinates.products(direction)
        products = np.sum(direction * curvature, axis=0)
        active = (squared > least) & (products > 0)
        step = np.where(active, squared / np.where(active, products, 1.0), 0.0)
        z += step * direction
        residual -= step * curvature
        before, squared = squared, np.where(active, np.sum(residual**2, axis=0), squared)
        direction = residual + squared / np.where(before > 0, before, 1.0) * direction
        epoch += 1
        if not active.any():
            break
    # a column of zeros has no combination
    found = (squared <= least) & (least > 0)
    return Inverse(z, np.where(found, np.sum(contrasts * z, axis=0), np.nan), epoch)


def _warnings(result: Inference, max_epochs: int, *, is_missing: bool) -> list[str]:
    warnings = freedom_warnings(result)
    if result.rank is None:
        warnings.append(
            Message(
                "columns depend on others, or may: conjugate gradients do not tell how many, so "
                "all figures that need degrees of freedom are NaN. Leave such columns out, or "
                "pass ",
                Remedy("solver", "qr"),
                " or ",
                Remedy("solver", "closed_form"),
            )
        )
    if result.is_centred is None:
        warnings.append(
            Message(
                "whether a sum of columns is constant was not found, so R², F and what follows "
                "from them are NaN. Raise ",
                Remedy("max_epochs"),
                ", or pass ",
                Remedy("solver", "qr"),
            )
        )
    if not is_missing:
        return warnings
    return [
        *warnings,
        Message(
            "not all standard errors were found within ",
            Parameter("max_epochs", max_epochs),
            ": those are NaN. Raise ",
            Remedy("max_epochs"),
            ", or leave out columns that depend on others",
        ),
    ]
