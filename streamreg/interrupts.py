"""Work that an interrupt does not leave half done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")
P = ParamSpec("P")


def finished(work: Callable[P, Made], *given: P.args, **options: P.kwargs) -> Made:
    """Return ``work(…)``; what interrupts this thread meanwhile goes on once that has ended.

    zarr writes by threads of its own: an interrupt of the one that waits for them would leave them
    at it, and what they write would come back while its folder is being removed.
    """
    with ThreadPoolExecutor(1) as pool:
        # the pool does not wait for a thread that it is interrupted in starting
        pool.submit(int).result()
        return pool.submit(work, *given, **options).result()
