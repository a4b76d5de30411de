"""Statistics that a pass computes: blocks are added to a small state, and states merge.

Laws of every accumulator (tests/support/laws.py):

* any split of the rows into blocks and segments gives the same answer, to rounding;
* ``merge(zero(), a)`` and ``merge(a, zero())`` are ``a``;
* ``finalize`` writes nothing;
* ``update`` and ``merge`` own their first argument, and never write into the second.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np

from streamreg.blocks import ROWS, View

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels

State = TypeVar("State")
Result = TypeVar("Result")

# squares of values beyond these, times a sum of weights up to 1e120, may leave float64's range
_LARGEST, _SMALLEST = 2.0**300, 2.0**-300


class Accumulator(ABC, Generic[State, Result]):
    """A statistic of all rows, accumulated block by block."""

    # whether ``update`` reads X only through kernels; they may then read it from its files
    reads_tiles: ClassVar[bool] = False
    # whether blocks must come in the order of the rows, to one state, because the statistic
    # numbers the rows that count; ``merge`` then gets an empty state only
    in_order: ClassVar[bool] = False
    # the targets that a pass reads, from the first to before the last; ``None``: all
    targets: tuple[int, int] | None = None

    @property
    def view(self) -> View:
        """What the rows of the blocks are that ``update`` gets."""
        return ROWS

    @property
    @abstractmethod
    def state_nbytes(self) -> int:
        """Bytes of one state, known without data."""

    @property
    @abstractmethod
    def scratch_nbytes(self) -> int:
        """The most bytes that ``update`` allocates."""

    @abstractmethod
    def zero(self) -> State:
        """Return the state of no rows."""

    @abstractmethod
    def update(self, state: State, block: Block, kernels: Kernels) -> State:
        """Add a block to a state.

        ``kernels`` holds the loops for the block's kind and device. If a state is too large to keep
        one for each thread, ``kernels.parallel.run(task, count, prepare)`` runs
        ``task(0) … task(count - 1)`` on several threads, and ``prepare()`` at the same time.
        """

    @property
    def n_parts(self) -> int:
        """The number of parts into which ``update`` splits its work."""
        return 1

    def part(self, state: State, numbers: range) -> State:
        """Return the share of a state that these parts computed."""
        del numbers
        return state

    def joined(self, parts: Iterable[tuple[range, State]]) -> State:
        """Return the state whose parts were computed separately."""
        ((_, state),) = parts
        return state

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Return the state of the rows of both.

        States larger than 32 MiB are merged on a GPU if the pass runs on one: NumPy's functions
        then call CuPy's. Such states are tuples of float64 arrays, written in place, with a row
        count ``n``.
        """

    @abstractmethod
    def finalize(self, state: State) -> Result:
        """Return the statistic."""

    @abstractmethod
    def is_finite(self, state: State) -> bool:
        """Whether no row had a NaN or inf; runs on the state's device, like ``merge``."""


class Scaling(NamedTuple):
    """Exact factors, powers of two, for columns whose squares would leave float64's range."""

    x: Float64  # (D,)
    y: Float64  # (K,)

    @property
    def is_one(self) -> bool:
        """Whether it changes nothing."""
        return bool((self.x == 1).all() and (self.y == 1).all())


def power_of_two(sizes: Float64) -> Float64:
    """Return the factor that brings each size near 1; 1 for sizes whose squares are safe."""
    safe = (sizes == 0) | ((sizes > _SMALLEST) & (sizes < _LARGEST))
    _, exponents = np.frexp(np.where(safe, 1.0, sizes))
    # 2¹⁰²³ is the largest power of two in float64
    return np.where(safe, 1.0, np.ldexp(1.0, np.minimum(-exponents, 1023)))
