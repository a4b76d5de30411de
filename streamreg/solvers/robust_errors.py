"""Covariances that allow for unequal or clustered variances: R⁻¹ (meat) R⁻ᵀ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import blas as scipy_blas
from scipy.linalg import lapack

from streamreg.accumulators.groups import (
    GroupSums,
    SortedGroups,
    group_sums_nbytes,
    group_sums_rows,
    sorted_groups_nbytes,
    sorted_groups_rows,
)
from streamreg.accumulators.meat import Meat, MeatResult, meat_nbytes, meat_rows
from streamreg.errors import InputError, Message, Parameter
from streamreg.formatting import count
from streamreg.kernels import blas
from streamreg.kernels.groups import groups_scratch_nbytes, whitened_groups
from streamreg.kernels.meat import FittedRows, Leverage, meat_scratch_nbytes
from streamreg.kernels.numpy import gram_panels
from streamreg.kernels.triangle import whiten_both_sides
from streamreg.kernels.two_float import TwoFloats
from streamreg.solvers.base import PassFootprint
from streamreg.solvers.spread import WIDTH, Spread, keeps_covariance, mean_coordinates, summed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.blocks import Float64
    from streamreg.inference.groups import Groups
    from streamreg.inference.request import InferenceRequest
    from streamreg.kernels.triangle import Triangle
    from streamreg.solvers.base import Mask, Problem
    from streamreg.solvers.corrections import Corrected, Equations

# with a larger condition number the pass multiplies rows by W; with a smaller one their sum is
# multiplied, which costs half as much
_MOST_CONDITION = 1e3
# of 1 - h, h the leverage of a row: a smaller one has no right digits
_LEAST_BEYOND_LEVERAGE = 1e-10
# Of a coefficient's deviation: a smaller share of such rows is rounding. Measured: up to 1e-13 with
# R, and 1e-12 where XᵀX keeps 6 digits. Their r/(1 - h) has no bound: of a row of 1e8 deviations, a
# share below 1e-9 was 0.2 % of a standard error.
_LEAST_SHARE, _MOST_ROUNDING, _ROUNDING_SHARE = 1e-12, 1e-9, 1e-2
# of a coefficient that such rows determine alone, the share is larger
_LARGE_SHARE = 0.5
_LEAST_GROUPS = 2
# sums of groups that are multiplied at once
_GROUPS_NBYTES = 2 << 20


def robust_spread(
    equations: Equations,
    found: Corrected,
    request: InferenceRequest,
    n_rows: int,
    weight_sum: float,
) -> tuple[Spread, list[str]]:
    """Return the covariance, and warnings; one pass."""
    meat = _meat(equations, found, request, weight_sum)
    if meat.n_groups is not None and meat.n_groups < _LEAST_GROUPS:
        raise InputError(
            "rows of positive weight are of one group; clustered errors need two or more"
        )
    k, n = equations.factor.rank + equations.problem.fit_intercept, n_rows
    factor = 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        if request.cov_type == "HC1":
            factor = float(np.float64(n) / (n - k))
        if meat.n_groups is not None:
            groups = np.float64(meat.n_groups)
            factor = float(groups / (groups - 1) * (n - 1) / (n - k))
    return _spread(equations, found, meat, factor / weight_sum**2), _warnings(meat, request)


def robust_passes(
    problem: Problem, request: InferenceRequest, factor_nbytes: int
) -> tuple[PassFootprint, ...]:
    """Return the memory of the pass, beside a factor of this many bytes."""
    d = problem.n_features
    if not request.is_robust:
        return ()
    numbers = None if request.groups is None else request.groups.numbers
    state_nbytes, rows, scratch = meat_nbytes(d)[0], meat_rows(d), meat_scratch_nbytes
    if request.groups is not None:
        state_nbytes, rows = sorted_groups_nbytes(d)[0], sorted_groups_rows(d)
        scratch = groups_scratch_nbytes
    each = PassFootprint(
        state_nbytes,
        scratch_nbytes=0,
        fixed_nbytes=scratch(d, 0),
        row_nbytes=scratch(d, 1) - scratch(d, 0),
        earlier_nbytes=factor_nbytes,
        n_parts=gram_panels(d + 1),
        multiplies_matrices=True,
        tile_rows=rows,
        what="XᵀX, meat",
        why=f"{d:,}² × 8 bytes twice",  # noqa: RUF001
    )
    if numbers is not None:
        each = each._replace(
            state_nbytes=group_sums_nbytes(d, len(numbers))[0],
            # their products are in memory with the sums
            earlier_nbytes=factor_nbytes + state_nbytes,
            n_parts=1,
            tile_rows=group_sums_rows(d),
            what="sums of groups",
            why=f"{len(numbers):,} × {d:,} × 8 bytes",  # noqa: RUF001
        )
    return (each,)


def _meat(
    equations: Equations, found: Corrected, request: InferenceRequest, weight_sum: float
) -> MeatResult:
    """Return Σ ω [1, q][1, q]ᵀ; one pass."""
    if request.groups is not None:
        return _meat_of_groups(equations, found, request.groups)
    factor, d = equations.factor, equations.problem.n_features
    leverage = None
    if request.leverage_power:
        leverage = Leverage(
            request.leverage_power,
            equations.problem.fit_intercept / weight_sum,
            1 / weight_sum,
            max(_LEAST_BEYOND_LEVERAGE, min(equations.contraction, 1.0)),
        )
    is_whitened = leverage is not None or factor.condition > _MOST_CONDITION
    triangle = factor.triangle
    fitted = fitted_rows(equations, found)
    result = equations.reduce(Meat(d, fitted, triangle if is_whitened else None, leverage))
    if is_whitened:
        return result
    whiten_both_sides(triangle, result.meat)
    sums = np.zeros(d)
    sums[: triangle.rank] = _whitened(triangle, result.sums)
    return result._replace(sums=sums)


def _meat_of_groups(equations: Equations, found: Corrected, groups: Groups) -> MeatResult:
    """Return Σ_g u_g u_gᵀ, with u_g = Σ s r [1, q] over the rows of a group; one pass."""
    triangle, fitted = equations.factor.triangle, fitted_rows(equations, found)
    rest: Iterable[Float64]
    if groups.numbers is None:
        done = equations.reduce(SortedGroups(fitted, triangle))
        square, n_groups, rest = done.meat, done.n_groups, [done.rest]
    else:
        by_group = equations.reduce(GroupSums(fitted, groups.numbers))
        size, width = by_group.sums.shape[1], max(1, _GROUPS_NBYTES // by_group.sums[:1].nbytes)
        square = np.zeros((size, size), order="F")
        n_groups = int(np.count_nonzero(by_group.rows))
        parts = (
            by_group.sums[first : first + width] for first in range(0, len(by_group.sums), width)
        )
        rest = (whitened_groups(triangle, each) for each in parts)
    for rows in rest:
        blas.add_gram_panel(rows, square, 0, len(square))
    return MeatResult(
        total=float(square[0, 0]),
        sums=square[1:, 0].copy(),
        meat=_without_first(square),
        n_groups=n_groups,
    )


def _without_first(square: Float64) -> Float64:
    """Return a square array without its first row and column, in its memory, Fortran order."""
    memory, d = square.reshape(-1, order="F"), len(square) - 1
    for j in range(d):
        first = (j + 1) * (d + 1) + 1
        memory[j * d : (j + 1) * d] = memory[first : first + d].copy()
    return memory[: d * d].reshape((d, d), order="F")


def fitted_rows(equations: Equations, found: Corrected) -> FittedRows:
    """Return how a pass reads columns and residuals of one target, in coordinates."""
    scale, point = equations.scale, found.point
    v = point.v.rounded()
    # what the best intercept differs from that of the means
    y_mean = TwoFloats.of(equations.y_origin).plus(TwoFloats.of(equations.y_offset))
    at_mean = point.b.plus(equations.at_mean(point.v.high)).plus(equations.at_mean(point.v.low))
    moved = at_mean.plus(-y_mean).rounded()
    return FittedRows(
        scale=equations.units.x / scale,
        origin=equations.origin / scale,
        offset=equations.offset / scale,
        weights=v[:, 0].copy(),
        y_scale=None if equations.units.is_one else equations.units.y,
        y_origin=equations.y_origin,
        y_offset=float(equations.y_offset[0] + moved[0]),
    )


def _spread(equations: Equations, found: Corrected, meat: MeatResult, factor: float) -> Spread:
    """Return the covariance, given that of coordinates divided by ``factor``."""
    triangle, r = equations.factor.triangle, equations.factor.rank
    b_variance, b_covariance = 0.0, None
    unknown, is_b_unknown, is_certain = _unknown(equations, meat)
    if equations.problem.fit_intercept:
        g = np.zeros(len(meat.meat))
        g[:r] = mean_coordinates(equations)
        # of a symmetric matrix, of which the lower triangle is valid
        moved = scipy_blas.dsymv(1.0, meat.meat, g, lower=1)
        b_variance = factor * float(meat.total - 2 * (g @ meat.sums) + g @ moved)
        b_covariance = factor * triangle.unwhiten((meat.sums - moved)[:r, None])[:, 0]
    lower, order, rank, _ = lapack.dpstrf(meat.meat, lower=1, overwrite_a=1)
    pivots = order.astype(np.intp) - 1
    wald = np.nan
    if rank == r and r:
        c = np.zeros((len(lower), 1), order="F")
        c[:r] = triangle.coordinates(found.point.v.rounded())
        c = np.asfortranarray(c[pivots])
        blas.solve_triangle(lower, c, size=r, lower=True, transposed=False)
        wald = float(np.sum(c[:r] ** 2)) / r / factor
    variances, covariance = summed(
        triangle,
        _root_columns(lower, pivots, int(rank), r),
        keeps=keeps_covariance(equations.problem),
    )
    variances[unknown] = np.nan
    if covariance is not None:
        covariance[unknown], covariance[:, unknown] = np.nan, np.nan
    if b_covariance is not None:
        b_covariance[unknown | is_b_unknown] = np.nan
    if is_b_unknown:
        b_variance = np.nan
    if unknown.any():
        wald = np.nan
    return Spread(
        variances * factor,
        None if covariance is None else covariance * factor,
        b_variance,
        b_covariance,
        wald,
        meat.n_groups,
        is_certain,
    )


class _Unknown(NamedTuple):
    """What depends on y of rows whose residuals are rounding."""

    weights: Mask  # (D,)
    b: bool
    is_certain: bool  # whether such rows determine it alone, or take no part in it


def _unknown(equations: Equations, meat: MeatResult) -> _Unknown:
    """Return which weights, and whether b, depend on y of rows whose residuals are rounding."""
    triangle, r = equations.factor.triangle, equations.factor.rank
    if meat.exact is None or not meat.n_exact:
        return _Unknown(np.zeros(len(triangle.pivots), bool), b=False, is_certain=True)
    total, q = float(meat.exact[0]), meat.exact[1 : 1 + r]
    moved = triangle.unwhiten(q[:, None])[:, 0]
    size = float(np.linalg.norm(q))
    # by Cauchy-Schwarz at most 1 of a weight's deviation
    most = size * np.sqrt(equations.factor.inverse)
    shares = np.abs(moved) / np.where(most > 0, most, np.inf)
    share_of_b = 0.0
    if equations.problem.fit_intercept:
        g = mean_coordinates(equations)
        share_of_b = abs(total - g @ q) / (np.hypot(total, size) * np.hypot(1, np.linalg.norm(g)))
    least = max(_LEAST_SHARE, min(_ROUNDING_SHARE * equations.contraction, _MOST_ROUNDING))
    every = np.append(shares, share_of_b)
    is_certain = not ((every > least) & (every < _LARGE_SHARE)).any()
    return _Unknown(shares > least, share_of_b > least, is_certain)


def _root_columns(lower: Float64, pivots: Any, rank: int, size: int) -> Iterator[Float64]:  # noqa: ANN401
    """Yield columns of L with its rows in their first order, (r, m) each."""
    for first in range(0, rank, WIDTH):
        part = np.tril(lower[:, first : min(first + WIDTH, rank)], -first)
        columns = np.empty_like(part, order="F")
        columns[pivots] = part
        yield columns[:size]


def _whitened(triangle: Triangle, vector: Float64) -> Float64:
    """Return W times a vector (D,)."""
    column = np.asfortranarray(vector[:, None])
    return np.asarray(triangle.whiten(column, np.empty_like(column, order="F"))[:, 0])


def _warnings(meat: MeatResult, request: InferenceRequest) -> list[str]:
    if not meat.n_exact:
        return []
    return [
        Message(
            f"the fit passes through {count(meat.n_exact, 'row')}, the first near row "
            f"{int(meat.first_exact):,}, whatever y is: the leverage is 1, to rounding. "
            "Standard errors of the coefficients that they determine are NaN with ",
            Parameter("cov_type", request.cov_type),
            "; leave such rows out, or the columns that only they have",
        )
    ]
