"""The hot loops behind the accumulators, one signature each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from streamreg.blocks import Float64

# runs task(0) … task(count - 1), perhaps on several threads
Parallel = Callable[[Callable[[int], None], int], None]


class Affine(NamedTuple):
    """How a kernel reads columns: x·scale - shift; ``None`` for ones, and for zeros."""

    scale: Float64 | None = None  # (D,) or (K,), powers of two: rounds nothing
    shift: Float64 | None = None  # (D,) or (K,)


AS_STORED = Affine()


def serial(task: Callable[[int], None], count: int) -> None:
    """Run ``task(0) … task(count - 1)`` one after another."""
    for number in range(count):
        task(number)
