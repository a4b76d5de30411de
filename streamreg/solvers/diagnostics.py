"""Warnings about columns: constant, dependent, duplicated, or dominated by one row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import Message, Remedy
from streamreg.formatting import agree, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.accumulators.base import Scaling
    from streamreg.accumulators.moments import MomentsResult
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Mask, Numbers, Problem

# without intercept, two columns are nearly parallel if both means are above this many deviations
_MOST_MEAN_DEVIATIONS = 1e4
# with fewer rows, most of the spread often comes from one row
_FEW_ROWS = 20
# values of equal columns differ by rounding only: less than this share of the largest value
_EQUAL_SHARE = 1e-10
# groups of equal columns that a warning names
_MOST_GROUPS = 4
# a column takes part in a dependence if its share is larger
_LEAST_SHARE = 1e-3


def column_warnings(problem: Problem, constant: Mask, varies: Mask) -> Iterator[str]:
    """Name constant columns, which get coefficient 0; those in ``varies`` vary by rounding only."""
    rounding_only = constant & varies & problem.fit_intercept
    zeroed, hardly_vary = np.flatnonzero(constant & ~rounding_only), np.flatnonzero(rounding_only)
    what = "constant" if problem.fit_intercept else "zero in every row"
    if len(zeroed):
        verb = agree(len(zeroed), "is", "are")
        coefficients = agree(len(zeroed) * problem.n_targets, "coefficient", "coefficients")
        yield f"{problem.columns(zeroed)} {verb} {what}; {coefficients} set to 0"
    if len(hardly_vary):
        verb = agree(len(hardly_vary), "varies", "vary")
        coefficients = agree(len(hardly_vary) * problem.n_targets, "coefficient", "coefficients")
        yield (
            f"{problem.columns(hardly_vary)} {verb} by no more than rounding, or only in rows of "
            f"negligible weight; {coefficients} set to 0. Subtract a constant from such columns "
            "before they are stored, or bring the weights closer together"
        )


def dependence_warnings(problem: Problem, moments: MomentsResult, constant: Mask) -> Iterator[str]:
    """Warn if rows are too few, or means too large, to determine the weights."""
    if moments.n - problem.fit_intercept < np.count_nonzero(~constant):
        yield or_l2(
            f"{count(moments.n, 'row')} cannot determine the weights of "
            f"{count(problem.n_features, 'column')}: of all weights that fit, the solver sought "
            "those of least norm in its units; leave columns out"
        )
    parallel = np.abs(moments.mean) > _MOST_MEAN_DEVIATIONS * moments.deviation
    numbers = np.flatnonzero(parallel & ~constant)
    if not problem.fit_intercept and len(numbers) > 1:
        yield Message(
            f"{problem.columns(numbers)} have means over {_MOST_MEAN_DEVIATIONS:,.0f} deviations "
            "from zero. Without an intercept they are nearly dependent, and few digits of their "
            "weights are right; subtract their means, or pass ",
            Remedy("fit_intercept", value=True),
        )


def outlier_warnings(problem: Problem, moments: MomentsResult, units: Scaling) -> Iterator[str]:
    """Name columns of huge values if nearly all of their spread comes from one row."""
    if moments.n < _FEW_ROWS:
        return
    x_range = moments.high * units.x - moments.low * units.x
    y_range = moments.y_high * units.y - moments.y_low * units.y
    # if one of n rows differs, n·variance = (1 - 1/n)·range²
    x_lone = (units.x < 1) & (moments.n * moments.deviation**2 < 1.01 * x_range**2)
    y_lone = (units.y < 1) & (moments.n * moments.y_variance < 1.01 * y_range**2)
    places = [problem.columns(np.flatnonzero(x_lone))] if x_lone.any() else []
    places += ["y"] if y_lone.any() else []
    for place in places:
        yield (
            f"nearly all of the spread of {place}, beyond 1e90, comes from one row. Is it an "
            "outlier? Other rows have hardly any influence"
        )


def duplicate_groups(
    gradient: Float64, unit: Float64, curvature: Callable[[Float64], Float64]
) -> list[Numbers]:
    """Return groups of columns that are equal up to a factor and a constant.

    Equal columns have equal correlations with y. If some columns do, one more pass computes their
    correlations with a random mixture of them, which are equal for equal columns only.

    ``gradient`` is ∇f at w = 0, (D + 1, K). ``unit`` (D,) brings columns to deviation 1, and is 0
    for constant columns. ``curvature`` runs a pass and returns ∇²f·d of a direction d, (D + 1, K).
    """
    norms = np.linalg.norm(gradient, axis=0)
    if not norms.any():
        return []
    # one random mixture of all targets stands for y
    generator = np.random.default_rng(0)
    parts = generator.standard_normal(len(norms)) / np.where(norms > 0, norms, np.inf)
    with_y = -(gradient[:-1] @ parts) * unit
    groups = _equal_values(np.abs(with_y), np.flatnonzero(unit))
    if not groups:
        return []
    suspects = np.sort(np.concatenate(groups))
    mixture = np.zeros_like(gradient)
    mixture[suspects, 0] = generator.standard_normal(len(suspects)) * unit[suspects]
    with_mixture = curvature(mixture)[:-1, 0] * unit
    return _equal_values(np.where(with_y < 0, -with_mixture, with_mixture), suspects)


def duplicate_warnings(problem: Problem, groups: list[Numbers]) -> Iterator[str]:
    """Name columns that are multiples of each other, group by group."""
    if not groups:
        return
    first, *others = (problem.columns(each) for each in groups[:_MOST_GROUPS])
    more = len(groups) - _MOST_GROUPS
    also = f", and so are {'; '.join(others)}" if others else ""
    also += f"; and {count(more, 'more group')}" if more > 0 else ""
    yield or_l2(
        f"{first} are multiples of each other{also}, up to a constant. Many "
        "weights fit equally well; the solver sought those of least norm in its units. Leave "
        "such columns out"
    )


def dependent_column_warnings(
    problem: Problem, error: Float64, groups: list[Numbers]
) -> Iterator[str]:
    """Name columns that take part in dependences, by an error e (D,) with Xe = 0.

    Columns of groups that were named already are left out.
    """
    numbers = _participants(error)
    named = np.concatenate([np.empty(0, np.intp), *groups])
    others = np.setdiff1d(numbers, named)
    if len(others):
        numbers = others if len(others) > 1 else numbers
        depend = agree(len(numbers), "depends on others", "depend on each other")
        yield or_l2(
            f"{problem.columns(numbers)} {depend} linearly, to the digits that are stored. The "
            "coefficients are those of least norm in the solver's units; leave such columns out"
        )


def near_dependence_warnings(problem: Problem, error: Float64) -> Iterator[str]:
    """Name columns whose weights were not found, by an error e (D,) with Xe small, but not 0."""
    numbers = _participants(error)
    are = agree(len(numbers), "is so nearly dependent on others", "are so nearly dependent")
    yield Message(
        f"{problem.columns(numbers)} {are} that conjugate gradients do not find the weights; leave "
        "such columns out, or pass ",
        Remedy("solver", value="qr"),
    )


def or_l2(advice: str) -> Message:
    """Add a penalty to the remedies of a message."""
    return Message(f"{advice}, or pass ", Remedy("l2"), " > 0")


def _participants(error: Float64) -> Numbers:
    share = np.abs(error)
    return np.flatnonzero(share > _LEAST_SHARE * np.max(share, initial=0.0))


def _equal_values(values: Float64, columns: Numbers) -> list[Numbers]:
    """Return groups of ``columns`` with equal values, to rounding."""
    order = columns[np.argsort(values[columns], kind="stable")]
    far = np.diff(values[order]) > _EQUAL_SHARE * np.max(np.abs(values[columns]), initial=0.0)
    bounds = np.concatenate([[0], np.flatnonzero(far) + 1, [len(order)]])
    # an array for each column would take 160 bytes of memory for each
    several = np.flatnonzero(np.diff(bounds) > 1)
    groups = [np.sort(order[bounds[at] : bounds[at + 1]]) for at in several.tolist()]
    return sorted(groups, key=lambda each: each[0])
