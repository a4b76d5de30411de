"""What a pass keeps: a small state to which blocks are added and which merges.

Laws, the same for all (tests/laws.py):

* any split of the rows into blocks and segments gives the same answer, to rounding;
* ``merge(zero(), a)`` and ``merge(a, zero())`` are ``a``;
* ``finalize`` writes nothing;
* ``update`` and ``merge`` own their first argument, and never write into the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels

State = TypeVar("State")
Result = TypeVar("Result")

# squares of what lies beyond, times a sum of weights up to 1e120, may leave float64's range
_LARGEST, _SMALLEST = 2.0**300, 2.0**-300


class Accumulator(ABC, Generic[State, Result]):
    """A statistic of all rows, gathered block by block."""

    @property
    @abstractmethod
    def state_nbytes(self) -> int:
        """Bytes of one state, known without data."""

    @property
    @abstractmethod
    def scratch_nbytes(self) -> int:
        """Bytes that ``update`` needs at most, beside the state and the block."""

    @abstractmethod
    def zero(self) -> State:
        """Return the state of no rows."""

    @abstractmethod
    def update(self, state: State, block: Block, kernels: Kernels) -> State:
        """Add a block to a state.

        ``kernels`` holds the loops of the device where the block lies, for whom they serve; with
        ``kernels.parallel(task, count)``, which runs ``task(0) … task(count - 1)``, an accumulator
        whose state is too large for one copy a thread splits its work between threads.
        """

    @property
    def n_parts(self) -> int:
        """Into how many parts ``update`` splits its work."""
        return 1

    def part(self, state: State, numbers: range) -> State:
        """Return what is left of a state if only these parts were worked on."""
        del numbers
        return state

    def joined(self, parts: Iterable[tuple[range, State]]) -> State:
        """Return the state whose parts were worked on apart."""
        ((_, state),) = parts
        return state

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Return the state of the rows of both.

        On a GPU, states larger than 32 MiB are merged there, where NumPy's functions are CuPy's;
        they are tuples of float64 arrays, with a count of rows ``n``, and are added to in place.
        """

    @abstractmethod
    def finalize(self, state: State) -> Result:
        """Return the statistic."""

    @abstractmethod
    def is_finite(self, state: State) -> bool:
        """Whether the state is free of the NaN and inf that a NaN or inf in any row leaves.

        Asked where the state lies, as ``merge``.
        """


class Scaling(NamedTuple):
    """Powers of two that bring columns near 1, where squares would leave float64's range.

    Multiplying by them rounds nothing.
    """

    x: Float64  # (D,)
    y: Float64  # (K,)


def power_of_two(sizes: Float64) -> Float64:
    """Return the factor that brings each size near 1; 1 for sizes whose squares are safe."""
    safe = (sizes == 0) | ((sizes > _SMALLEST) & (sizes < _LARGEST))
    _, exponents = np.frexp(np.where(safe, 1.0, sizes))
    # 2¹⁰²³ is the largest power; what is smaller still is brought as near as it can be
    return np.where(safe, 1.0, np.ldexp(1.0, np.minimum(-exponents, 1023)))
