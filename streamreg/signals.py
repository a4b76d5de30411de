"""Work that an interrupt, or a request to end, does not leave half done."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

Made = TypeVar("Made")
P = ParamSpec("P")


def uninterrupted(work: Callable[P, Made], *given: P.args, **options: P.kwargs) -> Made:
    """Return ``work(…)``; what interrupts this thread meanwhile goes on once that has ended.

    zarr writes by threads of its own: an interrupt of the one that waits for them would leave them
    at it, and what they write would come back while its folder is being removed.
    """
    with ThreadPoolExecutor(1) as pool:
        # the pool does not wait for a thread that it is interrupted in starting
        pool.submit(int).result()
        under_way = pool.submit(work, *given, **options)
        interrupt: KeyboardInterrupt | SystemExit | None = None
        while not under_way.done():
            try:
                wait([under_way])
            # the second one too: who is impatient would leave work half done
            except (KeyboardInterrupt, SystemExit) as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return under_way.result()


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Make SIGTERM, of which nobody else takes care, end the work by an exception.

    By default it ends the process at once; so that what is to be saved can be, it raises
    ``SystemExit`` in the main thread, with the code by which shells tell who ended so.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)
