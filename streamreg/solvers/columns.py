"""What one pass tells of the columns: coordinates that suit them, and what deserves a look."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Scaling, power_of_two
from streamreg.accumulators.moments import Moments, MomentsResult
from streamreg.formatting import count
from streamreg.solvers.base import EPS
from streamreg.solvers.coordinates import Coordinates, Evaluation, penalty_root

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Reduce

    Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

# means this many deviations from zero are taken from the rows; below, subtracting c·Σr from the
# products costs at most log10(32) digits and no second copy of each tile
_LARGE_MEAN = 32.0
# columns whose deviations differ by less are left as they are in relation to each other, so that
# the solution of least norm is that of the user's units
_ALIKE = 4.0
# without intercept, columns this many deviations from zero are all but multiples of each other
_PARALLEL = 1e4
# of fewer rows one often makes most of the spread
_FEW_ROWS = 20


class Start(NamedTuple):
    """Coordinates, and what the pass that measured them tells of θ = 0: w = 0 and b = ȳ."""

    coordinates: Coordinates
    evaluation: Evaluation
    spread: Float64  # (D,) deviations, in the coordinates' units; 0 where constant
    warnings: list[str]


def standardise(problem: Problem, reduce: Reduce) -> Start:
    """Measure the columns in one pass and return standardised coordinates."""
    moments, units, warnings = measure(problem, reduce)
    d, k = problem.n_features, problem.n_targets
    cross, variance = moments.cross.T, moments.y_variance
    if problem.fit_intercept:
        spread, centre, y_centre = moments.deviation, moments.mean, moments.y_mean
    else:
        spread, centre, y_centre = (
            np.hypot(moments.deviation, moments.mean), np.zeros(d), np.zeros(k)
        )  # fmt: skip
        cross = cross + np.outer(moments.mean, moments.y_mean)
        variance = variance + moments.y_mean**2
    constant = is_constant(spread, centre)
    far = (np.abs(centre) > _LARGE_MEAN * spread) & ~constant
    coordinates = Coordinates(
        problem, units, centre, y_centre,
        _scales(spread, constant, penalty_root(problem, units)), subtracts=bool(far.any()),
    )  # fmt: skip
    # r = -y + ȳ, so that the gradient is minus the covariance
    gradient = np.vstack([-cross / coordinates.scale[:, None], np.zeros((1, k))])
    evaluation = Evaluation(0.5 * variance, gradient, np.empty((d + 1, 0)))
    warnings += column_warnings(problem, constant, moments.low < moments.high)
    if not problem.l2:
        warnings += _dependence_warnings(problem, moments, constant)
    return Start(coordinates, evaluation, np.where(constant, 0.0, spread), warnings)


def measure(problem: Problem, reduce: Reduce) -> tuple[MomentsResult, Scaling, list[str]]:
    """Return moments, the units that kept their squares in float64's range, and warnings."""
    d, k = problem.n_features, problem.n_targets
    moments = reduce(Moments(d, k))
    units = Scaling(
        power_of_two(np.maximum(np.abs(moments.low), np.abs(moments.high))),
        power_of_two(np.maximum(np.abs(moments.y_low), np.abs(moments.y_high))),
    )
    if (units.x == 1).all() and (units.y == 1).all():
        return moments, units, []
    moments = reduce(Moments(d, k, units))
    return moments, units, _outlier_warnings(problem, moments, units)


def is_constant(spread: Float64, mean: Float64) -> Mask:
    """Return which columns do not vary, or by rounding only."""
    return np.asarray(spread <= 4 * EPS * np.abs(mean))


def column_warnings(problem: Problem, constant: Mask, varies: Mask) -> list[str]:
    """Return the warnings that name columns which no fit can use.

    Of the ``constant`` ones those that vary differ from their weighted mean by rounding only.
    """
    lost = constant & varies & problem.fit_intercept
    what = "constant" if problem.fit_intercept else "zero in every row"
    warnings = []
    if (constant & ~lost).any():
        numbers = [int(j) for j in np.flatnonzero(constant & ~lost)]
        verb = "is" if len(numbers) == 1 else "are"
        warnings.append(f"{problem.columns(numbers)} {verb} {what}; coefficients set to 0")
    if lost.any():
        numbers = [int(j) for j in np.flatnonzero(lost)]
        verb = "varies" if len(numbers) == 1 else "vary"
        warnings.append(
            f"{problem.columns(numbers)} {verb} by no more than rounding, or only in rows that "
            "count for nothing beside the weight of others; coefficients set to 0. Subtract a "
            "constant before columns are stored, or bring the weights closer together"
        )
    return warnings


def _scales(spread: Float64, constant: Mask, root: Float64) -> Float64:
    """Return the roots of ∇²f's diagonal, (D,): the deviations, unless there is a penalty."""
    scale = np.hypot(spread, root)
    varying = spread[~constant]
    if len(varying) and not root.any() and varying.max() <= _ALIKE * varying.min():
        scale = np.full_like(spread, np.exp(np.mean(np.log(varying))))
    scale[constant] = np.inf
    return scale


def _dependence_warnings(problem: Problem, moments: MomentsResult, constant: Mask) -> list[str]:
    warnings = []
    n_free = int(np.count_nonzero(~constant))
    if moments.n - problem.fit_intercept < n_free:
        warnings.append(
            f"{count(int(moments.n), 'row')} cannot determine the weights of "
            f"{count(problem.n_features, 'column')}: "
            "of all that fit them the ones of least norm, in the solver's units, were sought; "
            "leave columns out, or pass l2 > 0"
        )
    parallel = np.abs(moments.mean) > _PARALLEL * moments.deviation
    numbers = [int(j) for j in np.flatnonzero(parallel & ~constant)]
    if not problem.fit_intercept and len(numbers) > 1:
        warnings.append(
            f"{problem.columns(numbers)} have means over {_PARALLEL:,.0f} deviations from zero, so "
            "that without an intercept they are nearly dependent: few digits of their weights "
            "are right; subtract their means, or pass fit_intercept=True"
        )
    return warnings


def _outlier_warnings(problem: Problem, moments: MomentsResult, units: Scaling) -> list[str]:
    """Name what is huge, and has nearly all of its spread from one row."""
    if moments.n < _FEW_ROWS:
        return []
    x_range = moments.high * units.x - moments.low * units.x
    y_range = moments.y_high * units.y - moments.y_low * units.y
    # of n rows one makes n·variance = (1 - 1/n)·range²
    x_lone = (units.x < 1) & (moments.n * moments.deviation**2 < 1.01 * x_range**2)
    y_lone = (units.y < 1) & (moments.n * moments.y_variance < 1.01 * y_range**2)
    places = [problem.columns([int(j) for j in np.flatnonzero(x_lone)])] if x_lone.any() else []
    places += ["y"] if y_lone.any() else []
    return [
        f"one row makes nearly all of the spread of {place}, which is beyond 1e90: an outlier? "
        "The other rows hardly count beside it"
        for place in places
    ]
