"""Standard errors and what follows from them, of a solver that has a factor."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.moments import Moments
from streamreg.formatting import agree, column_names, count
from streamreg.inference.result import CONSTANT, Inference
from streamreg.solvers.base import PassFootprint
from streamreg.solvers.constant import find_constant
from streamreg.solvers.refined_inverse import refined_inverse_nbytes
from streamreg.solvers.robust_errors import robust_passes, robust_spread
from streamreg.solvers.spread import WIDTH, keeps_covariance, nonrobust_spread
from streamreg.solvers.sums import AboutMeans

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import Footprint, Mask, Problem
    from streamreg.solvers.corrections import Corrected, Equations
    from streamreg.solvers.spread import Spread

# a bound of the relative error of standard errors, above which users are warned
_LARGE_ERROR = 1e-6
# the squared distance of two unit vectors that are equal but for rounding
_ROUNDING = 1e-13
# corrections with a larger one may not show whether a sum of columns is constant
_MOST_CONTRACTION = 0.1


def terms_of(problem: Problem) -> tuple[str, ...]:
    """Return the names of the coefficients, the intercept first."""
    names = column_names(problem.feature_names, problem.n_features)
    return (CONSTANT, *names) if problem.fit_intercept else names


def with_inference(
    footprint: Footprint, problem: Problem, request: InferenceRequest | None, factor_nbytes: int
) -> Footprint:
    """Return the footprint with what standard errors add, beside a factor of this many bytes."""
    if request is None:
        return footprint
    d = problem.n_features
    # the covariance that is kept, and two arrays beside it while it is computed
    kept = 8 * (d + 1) * (3 * (d + 1) if keeps_covariance(problem) else 4 * WIDTH)
    passes = robust_passes(problem, request, factor_nbytes)
    later = PassFootprint(*refined_inverse_nbytes(d), earlier_nbytes=factor_nbytes)
    return footprint._replace(
        # an inverse is refined only if the condition number asks for it
        passes=(*footprint.passes, *passes, later),
        solver_nbytes=footprint.solver_nbytes + kept,
        n_passes=footprint.n_passes + len(passes),
    )


class Inferred(NamedTuple):
    """Standard errors."""

    inference: Inference
    warnings: list[str]
    is_certain: bool  # whether a factor of more digits would find no more of them


def infer(
    equations: Equations,
    found: Corrected,
    request: InferenceRequest,
    n_rows: int,
    weight_sum: float,
    *,
    refines: bool,
) -> Inferred:
    """Return standard errors.

    Robust types take one pass over the rows; with ``refines`` the inverse of XᵀX may take one. A
    fit without intercept takes another one, which looks for a constant among sums of columns, as
    statsmodels does.
    """
    problem = equations.problem
    moments = None if problem.fit_intercept else equations.about_means or _moments(equations)
    is_centred = True if moments is None else _spans_constant(equations, moments)
    warnings = list[str]()
    if request.is_robust:
        spread, warnings = robust_spread(equations, found, request, n_rows, weight_sum)
        if moments is not None and is_centred is not False:
            # as in statsmodels: which weights would have to be 0 is not known
            spread = spread._replace(wald=np.nan)
    else:
        spread = nonrobust_spread(equations, weight_sum, refines=refines)
    warnings += _digits_warnings(equations)
    y_variance = equations.y_size**2
    if moments is not None and is_centred:
        y_variance = moments.y_variance
    if is_centred is None:
        y_variance = np.full_like(y_variance, np.nan)
    y = _exponents(equations.units.y)
    w, b = equations.weights(found.point)
    params = np.vstack([b, w]) if problem.fit_intercept else w
    result = Inference(
        cov_type=request.cov_type,
        terms=terms_of(problem),
        params=params.T.copy(),
        bse=np.empty(0),
        nobs=n_rows,
        rank=equations.factor.rank + problem.fit_intercept,
        has_intercept=problem.fit_intercept,
        is_centred=is_centred,
        rss=2 * found.losses[-1] * weight_sum,
        tss=y_variance * weight_sum,
        y_exponents=-y,
        n_groups=spread.n_groups,
        wald=None if spread.wald is None else np.array([spread.wald]),
    )
    determined = equations.determined(found)
    if problem.fit_intercept:
        determined = np.append(equations.determines_intercept(found), determined)
    deviations, covariance = _in_user_units(
        equations, spread, determined, is_robust=request.is_robust
    )
    unit = np.ones(problem.n_targets)
    if not request.is_robust:
        unit = result.deviation
    elif result.df_resid <= 0:
        # no residual is left to tell the variance
        unit, covariance = unit * np.nan, None if covariance is None else covariance * np.nan
        result = replace(result, wald=unit)
    bse = deviations * unit[:, None]
    has_freedom = result.df_resid > 0
    return Inferred(
        replace(result, bse=bse, covariance=covariance, is_determined=determined),
        [*warnings, *freedom_warnings(result)],
        is_certain=(spread.is_certain or not has_freedom) and is_centred is not None,
    )


def freedom_warnings(result: Inference) -> list[str]:
    """Return a warning if no degrees of freedom are left."""
    if result.rank is None or result.df_resid > 0:
        return []
    numbers = f"{count(result.nobs, 'row')}, and {count(result.rank, 'coefficient')}"
    return [
        f"no degrees of freedom are left: {numbers} that they determine. Standard errors are NaN"
    ]


def _in_user_units(
    equations: Equations, spread: Spread, determined: Mask, *, is_robust: bool
) -> tuple[Float64, Float64 | None]:
    """Return deviations (P,) and the covariance (P, P); NaN where the data determine nothing."""
    y = int(_exponents(equations.units.y)[0]) if is_robust else 0
    # of v in w, a power of two; 0 for constant columns
    factor = np.ldexp(equations.units.x / equations.scale, -y)
    has_intercept = equations.problem.fit_intercept
    if has_intercept:
        factor = np.append(np.ldexp(1.0, -y), factor)
    factor = np.where(determined, factor, np.nan)
    variances = np.append(spread.b_variance, spread.variances)[1 - has_intercept :]
    # not as a root of a product, which may leave float64's range
    deviations = np.sqrt(variances) * np.abs(factor)
    if spread.covariance is None:
        return deviations, None
    covariance = np.empty((len(factor), len(factor)))
    covariance[has_intercept:, has_intercept:] = spread.covariance
    if spread.b_covariance is not None:
        covariance[0, 0] = spread.b_variance
        covariance[0, 1:] = covariance[1:, 0] = spread.b_covariance
    covariance *= factor
    covariance *= factor[:, None]
    return deviations, covariance


def _digits_warnings(equations: Equations) -> list[str]:
    """Return a warning if standard errors have few digits: the factor is not corrected."""
    if equations.contraction <= _LARGE_ERROR:
        return []
    right = max(0, int(-np.log10(equations.contraction)))
    are = agree(right, "is", "are")
    text = (
        f"{count(right, 'digit')} of the standard errors {are} certain, because the columns are "
        "nearly dependent: scaled to similar deviations, their condition number is "
        f"{equations.factor.condition:.0e}"
    )
    return [text]


def _moments(equations: Equations) -> AboutMeans:
    problem, units = equations.problem, equations.units
    scaling = None if units.is_one else units
    result = equations.reduce(Moments(problem.n_features, problem.n_targets, scaling))
    return AboutMeans(result.mean, result.y_variance)


def _spans_constant(equations: Equations, moments: AboutMeans) -> bool | None:
    """Whether a sum of the columns is constant: 1 - x̄ᵀ(XᵀX/Σs)⁺x̄, a squared distance, is 0.

    Where the factor does not tell, passes do; None: neither does.
    """
    mean = np.asfortranarray((moments.mean / equations.scale)[:, None])
    triangle, contraction = equations.factor.triangle, equations.contraction
    inside = triangle.whiten(mean, np.empty_like(mean, order="F"))
    if 1 - float(np.sum(inside**2)) > max(_ROUNDING, contraction):
        return False
    if not equations.has_rows:
        return None

    def solve(right: Float64) -> Float64 | None:
        return equations.factor.solve(right) if contraction < _MOST_CONTRACTION else None

    found = find_constant(
        equations.reduce,
        equations.units,
        equations.scale,
        mean,
        equations.problem.n_targets,
        solve,
        large=contraction,
    )
    return found.is_spanned


def _exponents(powers: Float64) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.frexp(powers)[1] - 1
