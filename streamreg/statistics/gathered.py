"""Second moments of rows that were read, and what they are of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.accumulators.base import Scaling, power_of_two
from streamreg.accumulators.second_moments import is_out_of_range
from streamreg.engines.blas import one_blas_thread
from streamreg.errors import InputError
from streamreg.solvers.corrections import distance_from_origin
from streamreg.solvers.sums import AboutMeans, Sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.accumulators.second_moments import SecondMomentsResult
    from streamreg.blocks import Float64
    from streamreg.statistics.about import About


@dataclass(frozen=True, eq=False)
class Gathered:
    """The state of a pass over all rows: O(D²).

    ``units`` are powers of two by which columns were multiplied, if squares of their values would
    have left float64's range.
    """

    about: About
    state: Any  # of ``about.statistic``
    units: Scaling

    def copied(self) -> Gathered:
        """Return a copy with a state of its own."""
        state = type(self.state)(*(array.copy(order="K") for array in self.state))
        return replace(self, state=state)

    @property
    def result(self) -> SecondMomentsResult:
        """The finalised statistic; it may share memory with the state."""
        result: SecondMomentsResult = self.about.statistic.finalize(self.state)
        return result

    def followed_by(self, later: Gathered) -> Gathered:
        """Return the statistics of these rows and later ones, in the memory of these.

        Raises
        ------
        InputError
            The columns differ, before anything is written; or sums leave float64's range.
        """
        about = self.about.followed_by(later.about)
        units = self._common_units(later)
        later = later.in_units(units)
        self.rescale(units)
        # one thread of BLAS, as in a pass, so that the bits are those of a pass
        with one_blas_thread(), np.errstate(all="ignore"):
            state = about.statistic.merge(self.state, later.state)
            merged = Gathered(about, state, units)
            variances = merged.result.variances
        if not np.isfinite(variances).all():
            raise InputError(
                "sums of squares of both statistics leave the range of float64; divide the columns "
                "by a constant before they are gathered"
            )
        return merged

    def in_units(self, units: Scaling) -> Gathered:
        """Return the statistics in other units; a copy, if they differ."""
        if _equal(self.units, units):
            return self
        copied = self.copied()
        copied.rescale(units)
        return replace(copied, units=units)

    def selected(self, columns: Sequence[int], targets: Sequence[int]) -> Gathered:
        """Return a copy of some columns and targets, in this order."""
        x, y = (np.array(numbers, dtype=np.intp) for numbers in (columns, targets))
        return Gathered(
            self.about.selected(columns, targets),
            self.about.statistic.select(self.state, x, y),
            Scaling(self.units.x[x], self.units.y[y]),
        )

    @np.errstate(all="ignore")
    def sums(self, *, fit_intercept: bool, in_user_units: bool = False) -> Sums:
        """Return the sums for a solver, which overwrites the state.

        Squares in the user's units may leave float64's range, as the result then shows.
        """
        statistic = self.about.statistic
        units = self.units
        if in_user_units:
            units = Scaling(np.ones_like(units.x), np.ones_like(units.y))
        elif not fit_intercept:
            # about zero, squares of the means count too
            sizes = zip(units, self.sizes(), strict=True)
            units = Scaling(*(unit * power_of_two(size) for unit, size in sizes))
        self.rescale(units)
        if fit_intercept:
            return Sums(self.result, units, [])
        result, d = self.result, self.about.n_features
        deviations = np.sqrt(result.variances)
        # before the state, whose memory they share, is overwritten
        about_means = AboutMeans(result.origin + result.offset, deviations[d:] ** 2)
        distance = distance_from_origin(result.offset, deviations[:d])
        statistic.uncentre(self.state)
        about_zero = replace(statistic, centred=False).finalize(self.state)
        if is_out_of_range(about_zero):
            raise InputError(
                "squares of the columns leave the range of float64 without an intercept; fit one, "
                "or fit the data"
            )
        return Sums(about_zero, units, [], distance=distance, about_means=about_means)

    @np.errstate(all="ignore")
    def sizes(self) -> tuple[Float64, Float64]:
        """Return the root mean squares of X (D,) and y (K,), in the units."""
        result = self.result
        x = result.origin + result.offset
        y = result.y_origin + result.y_offset
        deviations = np.sqrt(result.variances)
        d = self.about.n_features
        return np.hypot(x, deviations[:d]), np.hypot(y, deviations[d:])

    def _common_units(self, other: Gathered) -> Scaling:
        """Return units for both: the smaller factor, because it belongs to the larger values."""
        if _equal(self.units, other.units):
            return self.units
        pairs = zip(self.units, other.units, self.sizes(), other.sizes(), strict=True)
        # zeros fit any units
        x, y = (
            np.where(size == 0, theirs, np.where(size_2 == 0, mine, np.minimum(mine, theirs)))
            for mine, theirs, size, size_2 in pairs
        )
        return Scaling(x, y)

    def rescale(self, units: Scaling) -> None:
        """Bring the state to other units, in place."""
        if _equal(self.units, units):
            return
        # a difference of exponents, because a quotient may leave float64's range
        x, y = (
            np.ldexp(1.0, np.clip(np.frexp(new)[1] - np.frexp(old)[1], -1074, 1023))
            for new, old in zip(units, self.units, strict=True)
        )
        self.about.statistic.rescale(self.state, x, y)


def _equal(a: Scaling, b: Scaling) -> bool:
    return bool((a.x == b.x).all() and (a.y == b.y).all())
