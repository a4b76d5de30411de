"""The hot loops behind the accumulators, one signature each."""

from __future__ import annotations

from collections.abc import Callable

# runs task(0) … task(count - 1), perhaps on several threads
Parallel = Callable[[Callable[[int], None], int], None]


def serial(task: Callable[[int], None], count: int) -> None:
    """Run ``task(0) … task(count - 1)`` one after another."""
    for number in range(count):
        task(number)
