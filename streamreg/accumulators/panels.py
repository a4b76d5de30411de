"""Accumulators with one square array, of which threads and workers compute panels of columns.

Those with many targets compute ranges of targets too.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.kernels import numpy as numpy_kernels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

State = TypeVar("State")
Result = TypeVar("Result")


class PanelAccumulator(Accumulator[State, Result]):
    """A statistic whose state has a square array in Fortran order, or several of one size.

    Its parts are panels of columns of that array, then ranges of targets. Other fields are small,
    and each part computes them.
    """

    square: ClassVar[str]  # the name of that field, (D, D) or (D, D, F)
    # the names of fields of the targets: (K,) or (F, K); the last, (D, K) or (D, K, F), is in
    # Fortran order too
    by_target: ClassVar[tuple[str, ...]] = ()

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Columns of the square array."""

    @property
    def n_panels(self) -> int:
        """The number of panels of the square array."""
        return numpy_kernels.gram_panels(self.n_columns)

    def panel(self, number: int) -> slice:
        """Return the columns of a panel, which are computed at once."""
        return numpy_kernels.gram_columns(self.n_columns, [number])[0]

    @property
    def target_ranges(self) -> list[slice]:
        """The targets that are computed at once."""
        return []

    @property
    def n_parts(self) -> int:
        return self.n_panels + len(self.target_ranges)

    def part(self, state: State, numbers: range) -> State:
        named: Any = state
        shares = {
            name: lines[..., at, :].T if is_wide else lines[..., at]
            for name, lines, at, is_wide in self._shared(state, numbers)
        }
        replaced: State = named._replace(**shares)
        return replaced

    def joined(self, parts: Iterable[tuple[range, State]]) -> State:
        whole: Any = self.zero()
        last: Any = None
        for numbers, state in parts:
            last = state
            for name, lines, at, is_wide in self._shared(whole, numbers):
                share = getattr(state, name)
                if is_wide:
                    lines[..., at, :] = share.T
                else:
                    lines[..., at] = share
        names = (self.square, *self.by_target)
        joined: State = last._replace(**{name: getattr(whole, name) for name in names})
        return joined

    def _shared(self, state: Any, numbers: range) -> Iterator[tuple[str, Any, Any, bool]]:  # noqa: ANN401
        """Yield the fields that parts share: name, array, index of these parts, whether it is wide.

        Wide arrays are transposed, so that the last axis but one is divided, else the last.
        """
        n_panels, ranges = self.n_panels, self.target_ranges
        columns = _index(self.panel(number) for number in numbers if number < n_panels)
        yield self.square, getattr(state, self.square).T, columns, True
        targets = _index(ranges[number - n_panels] for number in numbers if number >= n_panels)
        for name in self.by_target:
            is_wide = name == self.by_target[-1]
            array = getattr(state, name)
            yield name, array.T if is_wide else array, targets, is_wide


def _index(slices: Iterable[slice]) -> Any:  # noqa: ANN401  (NumPy's index)
    """Return the numbers in some slices."""
    numbers = [np.arange(each.start, each.stop) for each in slices]
    return np.concatenate([np.empty(0, np.intp), *numbers])
