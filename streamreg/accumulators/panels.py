"""Accumulators with one square array, of which threads and workers compute panels of columns."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.kernels import numpy as numpy_kernels

if TYPE_CHECKING:
    from collections.abc import Iterable

State = TypeVar("State")
Result = TypeVar("Result")


class PanelAccumulator(Accumulator[State, Result]):
    """A statistic whose state has a square array in Fortran order, or several of one size.

    Its other fields are small.
    """

    square: ClassVar[str]  # the name of that field, (D, D) or (D, D, F)

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Columns of the square array."""

    @property
    def n_parts(self) -> int:
        return numpy_kernels.gram_panels(self.n_columns)

    def part(self, state: State, numbers: range) -> State:
        return self._replaced(state, self._square_of(state).T[..., self._columns(numbers), :].T)

    def joined(self, parts: Iterable[tuple[range, State]]) -> State:
        square = self._square_of(self.zero())
        for numbers, state in parts:
            square.T[..., self._columns(numbers), :] = self._square_of(state).T
        return self._replaced(state, square)

    def _columns(self, panels: range) -> Any:  # noqa: ANN401  (NumPy's index)
        return np.r_[tuple(numpy_kernels.gram_columns(self.n_columns, panels))]

    def _square_of(self, state: Any) -> Any:  # noqa: ANN401  (a named tuple)
        return getattr(state, self.square)

    def _replaced(self, state: Any, square: Any) -> State:  # noqa: ANN401
        replaced: State = state._replace(**{self.square: square})
        return replaced
