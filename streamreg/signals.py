"""SIGTERM and Ctrl-C around work that must finish."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

Result = TypeVar("Result")
P = ParamSpec("P")


def uninterrupted(work: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
    """Return ``work(*args, **kwargs)``; raise an interrupt of this thread after the work has ended.

    zarr writes with threads of its own. If only the thread that waits for them were interrupted,
    they would still write files into a folder that is being removed.
    """
    with ThreadPoolExecutor(1) as pool:
        # starts the pool's thread, because an interrupt while it starts would not wait for it
        pool.submit(int).result()
        future = pool.submit(work, *args, **kwargs)
        interrupt: KeyboardInterrupt | SystemExit | None = None
        while not future.done():
            try:
                wait([future])
            # a second Ctrl-C does not leave the work half done either
            except (KeyboardInterrupt, SystemExit) as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
        return future.result()


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Raise ``SystemExit`` in the main thread on SIGTERM, so that the work can save its state.

    By default SIGTERM ends the process at once. The exit code is 143, as shells report it. If the
    program has set a handler, that handler stays.
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


def _exit(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise SystemExit(128 + number)
