"""The sums that a solver with a factor needs, in float64's range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.gram import GramResult
from streamreg.accumulators.second_moments import is_out_of_range
from streamreg.errors import InputError
from streamreg.solvers.many_targets import has_many, require_in_range
from streamreg.solvers.standardization import measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Numbers, Problem, Reduce

# a first solution that is estimated to have fewer digits is corrected: XᵀX costs a user one pass
# over the rows, and each correction one more
WANTED = 1e-13
MOST_PASSES = 5


class AboutMeans(NamedTuple):
    """What a fit without intercept needs to know of the means."""

    mean: Float64  # (D,) x̄
    y_variance: Float64  # (K,) Σ sᵢ (yᵢ - ȳ)² / Σ sᵢ

    def of(self, targets: Numbers) -> AboutMeans:
        """Return that of some targets."""
        return AboutMeans(self.mean, self.y_variance[targets])


def no_rows(accumulator: Accumulator[Any, Any]) -> NoReturn:
    """Refuse a pass, because only sums are left of the rows."""
    raise InputError(
        f"{type(accumulator).__name__} needs the rows, and statistics keep none: fit the data"
    )


class Sums(NamedTuple):
    """Second moments, of which the solver may overwrite the arrays."""

    result: Any  # of the solver's statistic: GramResult or RootResult
    units: Scaling  # factors of X and y; ones if no square leaves float64's range
    warnings: list[str]
    reduce: Reduce = no_rows  # runs more passes, if there are rows
    # of the rows' origin from their means, in deviations, if the result does not tell it
    distance: float = 1.0
    about_means: AboutMeans | None = None  # None: a pass has to tell
    wanted: float = WANTED  # the relative error of weights above which a pass corrects them
    most_passes: int = MOST_PASSES

    @property
    def has_rows(self) -> bool:
        """Whether passes can be run."""
        return self.reduce is not no_rows


def reduce_sums(
    statistic: Callable[..., Accumulator[Any, Any]], problem: Problem, reduce: Reduce
) -> Sums:
    """Run the pass; run it again, with scaling, if squares left float64's range."""
    d, k, centred = problem.n_features, problem.n_targets, problem.fit_intercept
    result = reduce(statistic(d, k, centred))
    if not is_out_of_range(result):
        return Sums(result, Scaling(np.ones(d), np.ones(k)), [], reduce)
    if isinstance(result, GramResult) and has_many(d, k):
        require_in_range(result)
    _, units, warnings = measure(problem, reduce)
    if not units.is_one:
        del result  # frees D² numbers before the second pass
        result = reduce(statistic(d, k, centred, units))
    return Sums(result, units, warnings, reduce)
