"""A call on a thread of a pool, for which the caller waits and can be interrupted at any moment."""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

Made = TypeVar("Made")
# An interrupt that arrives just before the caller begins to wait does not end the wait. So it
# lasts no longer than this.
_WAIT_SECONDS = 0.25


class ThreadTask(Generic[Made]):
    """Runs ``run()`` on a thread.

    The caller does not wait for the executor's future. That wait has no limit, and if it is
    interrupted while it takes its locks, it leaves them taken, and the thread never ends.
    """

    def __init__(self, threads: Executor, run: Callable[[], Made]) -> None:
        # what it returned or raised, once it has ended
        self._ended: list[tuple[Made | None, BaseException | None]] = []
        # wakes the caller; an interrupt may lose what it takes from here
        self._woken: SimpleQueue[None] = SimpleQueue()
        self._future = threads.submit(_call, run, self._ended, self._woken)

    def cancel(self) -> bool:
        """Return whether the task has not begun, and never will."""
        return not self._ended and self._future.cancel()

    def wait(self) -> None:
        """Wait for the end."""
        while not self._ended:
            with suppress(Empty):
                self._woken.get(timeout=_WAIT_SECONDS)

    def error(self) -> BaseException | None:
        """Return what it raised, once it has ended."""
        self.wait()
        return self._ended[0][1]

    def result(self) -> Made:
        """Return what it returned, or raise what it raised, once it has ended."""
        error = self.error()
        if error is not None:
            try:
                raise error
            finally:
                # the traceback holds this frame
                del self, error
        made: Made = self._ended[0][0]  # type: ignore[assignment]
        return made


def _call(
    run: Callable[[], Made],
    ended: list[tuple[Made | None, BaseException | None]],
    woken: SimpleQueue[None],
) -> None:
    try:
        ended.append((run(), None))
    # the caller raises it
    except BaseException as error:  # noqa: BLE001
        ended.append((None, error))
    # the traceback holds this frame
    del ended
    woken.put(None)
