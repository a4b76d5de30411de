"""The laws of accumulators, as functions that a test calls with any accumulator and rows.

* Any split of the rows into blocks and segments gives the same answer, to rounding.
* ``merge(zero(), a)`` and ``merge(a, zero())`` are ``a``.
* ``finalize`` writes nothing; ``update`` and ``merge`` leave their second argument alone.
"""

from __future__ import annotations

import copy
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import Block
from streamreg.kernels import numpy as numpy_kernels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.accumulators.base import Accumulator

# the kernels with which accumulators are tested; a test may set others
KERNELS = numpy_kernels.KERNELS.by_kind["dense"]


class Rows(NamedTuple):
    """The rows that an accumulator gets: X (N, D), y (N, K), weights (N,) or none."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None

    def blocks(self, heights: Sequence[int], start: int = 0) -> list[Block]:
        """Return blocks of these numbers of rows, which may be 0, from row ``start`` on."""
        bounds = pairwise(accumulate(heights, initial=start))
        return [
            Block(self.X[a:b], self.y[a:b], None if self.weight is None else self.weight[a:b], a)
            for a, b in bounds
        ]


def state_of(accumulator: Accumulator[Any, Any], blocks: Sequence[Block]) -> Any:
    """Return the state of one segment."""
    state = accumulator.zero()
    for block in blocks:
        state = accumulator.update(state, block, KERNELS)
    return state


def reduce(accumulator: Accumulator[Any, Any], segments: Sequence[Sequence[Block]]) -> Any:
    """Return the state of several segments, merged in order."""
    merged = accumulator.zero()
    for blocks in segments:
        merged = accumulator.merge(merged, state_of(accumulator, blocks))
    return merged


def assert_zero_is_neutral(accumulator: Accumulator[Any, Any], rows: Rows) -> None:
    """Merging with no rows, on either side, changes no bit."""
    block = rows.blocks([len(rows.X)])
    alone = state_of(accumulator, block)
    assert_same_bits(accumulator.merge(accumulator.zero(), state_of(accumulator, block)), alone)
    assert_same_bits(accumulator.merge(state_of(accumulator, block), accumulator.zero()), alone)


def assert_an_empty_block_adds_nothing(accumulator: Accumulator[Any, Any], rows: Rows) -> None:
    """A block of no rows changes no bit of a state."""
    n = len(rows.X)
    assert_same_bits(
        state_of(accumulator, rows.blocks([0, n, 0])), state_of(accumulator, rows.blocks([n]))
    )


def assert_finalize_writes_nothing(accumulator: Accumulator[Any, Any], rows: Rows) -> None:
    """``finalize`` changes no bit of a state, and gives the same result a second time."""
    state = state_of(accumulator, rows.blocks([len(rows.X)]))
    before = copy.deepcopy(state)
    first = copy.deepcopy(accumulator.finalize(state))
    assert_same_bits(state, before)
    assert_same_bits(accumulator.finalize(state), first)


def assert_second_arguments_are_left_alone(accumulator: Accumulator[Any, Any], rows: Rows) -> None:
    """Neither a block nor the state that is merged into another is written to."""
    before = copy.deepcopy(rows)
    half = len(rows.X) // 2
    first, second = rows.blocks([half, len(rows.X) - half])
    a, b = state_of(accumulator, [first]), state_of(accumulator, [second])
    b_before = copy.deepcopy(b)
    merged = accumulator.merge(a, b)
    assert_same_bits(b, b_before)
    accumulator.update(merged, first, KERNELS)
    assert_same_bits(b, b_before)
    for array, kept in zip(rows, before, strict=True):
        if array is not None:
            np.testing.assert_array_equal(array, kept)


def assert_same_bits(a: Any, b: Any) -> None:
    """Every field of two states or results is the same, bit for bit."""
    for name, mine, other in zip(a._fields, a, b, strict=True):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(other), err_msg=name)
