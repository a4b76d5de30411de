"""Accumulators that number the rows, which one thread reads in their order."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from streamreg.accumulators.base import Accumulator

State = TypeVar("State", bound=Any)
Result = TypeVar("Result")


class OrderedAccumulator(Accumulator[State, Result]):
    """A statistic that gives or takes a value for each row that counts, by its number.

    Rows are left out for weight 0 or NaN, so that their number is known only from the rows before
    them. All blocks therefore come in order, to one state, which has the count ``n``.
    """

    in_order: ClassVar[bool] = True

    def merge(self, a: State, b: State) -> State:
        if b.n and a.n:
            raise ValueError("rows of two states have no common numbers")
        return b if b.n else a
