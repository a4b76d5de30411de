"""Whether a sum of the columns is constant, in a fit without intercept."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.residuals import Residuals
from streamreg.kernels.two_float import TwoFloats
from streamreg.solvers.base import EPS

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Scaling
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Reduce

    # g (D, 1) ↦ v with (XᵀX/Σs)v ≈ g, in coordinates; None if it was not found
    Solve = Callable[[Float64], Float64 | None]

_MOST_PASSES = 4
# of the terms of a sum, and of 1: this is rounding of stored values
_ROUNDING = 64 * EPS
# a distance that shrinks less by a correction is no error of the solution
_LEAST_GAIN = 0.5


class Constant(NamedTuple):
    """What passes find."""

    is_spanned: bool | None  # whether a sum of columns is 1 in every row; None: not known
    y_variance: Float64  # (K,) about the mean, in the units


def find_constant(
    reduce: Reduce,
    units: Scaling,
    scale: Float64,
    mean: Float64,
    n_targets: int,
    solve: Solve,
    large: float,
) -> Constant:
    """Look for v with Xv = 1 by least squares: v ← v + (XᵀX)⁻¹Xᵀ(1 - Xv).

    ``scale`` is σ (D,), ``mean`` that of columns in coordinates, (D, 1). Each pass measures
    ‖1 - Xv‖²/Σs in two floats; above ``large`` it is no error of the solution.
    """
    v, right, before, y_variance = np.zeros_like(mean), mean, 1.0, np.full(n_targets, np.nan)
    for _ in range(_MOST_PASSES):
        change = solve(right)
        if change is None:
            break
        v = v + change
        # targets without weights: r = -y
        w = np.hstack([np.zeros((len(v), n_targets)), -v / scale[:, None]])
        b = np.append(np.zeros(n_targets), 1.0)
        statistic = Residuals(
            TwoFloats.of(w), TwoFloats.of(b), n_targets, None if units.is_one else units
        )
        result = reduce(statistic)
        s = result.s
        y_sums = TwoFloats(result.sums.high[:-1], result.sums.low[:-1])
        y_squares = TwoFloats(result.rr.high[:-1], result.rr.low[:-1])
        about = s.times(y_squares).plus(-y_sums.times(y_sums))
        y_variance = np.maximum(about.high, 0.0) / s.high**2
        distance = float(result.rr.high[-1] / s.high)
        if distance <= (_ROUNDING * (1 + float(np.abs(v).sum()))) ** 2:
            return Constant(is_spanned=True, y_variance=y_variance)
        if distance > min(large, _LEAST_GAIN * before):
            return Constant(is_spanned=False, y_variance=y_variance)
        right, before = result.products.high[:, -1:] / s.high / scale[:, None], distance
    return Constant(is_spanned=None, y_variance=y_variance)
