"""The covariance of weights, from that of coordinates in which least squares is orthonormal.

With q = Wz, WᵀW = (XᵀX/Σs)⁺ and z the centred, scaled columns, c = Σ sᵢ qᵢ yᵢ / Σs is independent
of the value α at the mean; and v = Wᵀc, b = α - x̄·w.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.inference.result import MOST_KEPT_TERMS
from streamreg.solvers.refined_inverse import needs_refined_inverse, refined_inverse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.blocks import Float64
    from streamreg.kernels.triangle import Triangle
    from streamreg.solvers.base import Problem
    from streamreg.solvers.corrections import Equations

# columns of Wᵀ that are computed at once
WIDTH = 64


class Spread(NamedTuple):
    """The covariance of v and b in coordinates, for one unit of y."""

    variances: Float64  # (D,) of v
    covariance: Float64 | None  # (D, D) of v, if it is kept
    b_variance: float = 0.0
    b_covariance: Float64 | None = None  # (D,) of b with v
    wald: float | None = None  # F of the test that all weights are 0, for robust types
    n_groups: int | None = None
    is_certain: bool = True  # whether a factor of more digits would find no more of it


def keeps_covariance(problem: Problem) -> bool:
    """Whether the covariance of all weights is kept."""
    return problem.n_features < MOST_KEPT_TERMS


def mean_coordinates(equations: Equations) -> Float64:
    """Return g (r,) with x̄·w = g·c, of unrounded means."""
    triangle, mean = equations.factor.triangle, equations.mean
    both = np.asfortranarray(np.stack([mean.high, mean.low], axis=1) / equations.scale[:, None])
    return np.asarray(triangle.whiten(both, np.empty_like(both, order="F")).sum(axis=1))


def summed(
    triangle: Triangle, columns: Iterable[Float64], *, keeps: bool
) -> tuple[Float64, Float64 | None]:
    """Return the diagonal (D,) of WᵀCW, and all of it if it is kept.

    ``columns`` are those of a root of C, (r, m) each.
    """
    d = len(triangle.pivots)
    diagonal, whole = np.zeros(d), np.zeros((d, d)) if keeps else None
    for each in columns:
        part = triangle.unwhiten(each)
        diagonal += np.einsum("ij,ij->i", part, part)
        if whole is not None:
            whole += part @ part.T
    return diagonal, whole


def nonrobust_spread(equations: Equations, weight_sum: float, *, refines: bool) -> Spread:
    """Return (XᵀX)⁺, which is the covariance divided by the variance of residuals.

    With ``refines`` a pass refines it if columns are few and nearly dependent.
    """
    if refines and needs_refined_inverse(equations):
        root, g = refined_inverse(equations)
        variances, covariance = np.einsum("ij,ij->i", root, root), root @ root.T
        b_covariance = -root @ g
    else:
        triangle, g = equations.factor.triangle, mean_coordinates(equations)
        # the factor has the diagonal already
        variances, covariance = equations.factor.inverse, None
        if keeps_covariance(equations.problem):
            _, covariance = summed(triangle, _units(triangle.rank), keeps=True)
        b_covariance = -triangle.unwhiten(g[:, None])[:, 0]
    spread = Spread(variances / weight_sum, None if covariance is None else covariance / weight_sum)
    if not equations.problem.fit_intercept:
        return spread
    return spread._replace(
        b_variance=float(1 + g @ g) / weight_sum, b_covariance=b_covariance / weight_sum
    )


def _units(rank: int) -> Iterator[Float64]:
    """Yield the columns of the identity (r, r), some at a time."""
    for first in range(0, rank, WIDTH):
        yield np.eye(rank, min(WIDTH, rank - first), -first, order="F")
