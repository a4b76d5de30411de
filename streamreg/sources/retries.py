"""Reads that fail for a moment are retried: a network file system stalls, a server is busy."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
Made = TypeVar("Made")

# seconds before the second, third and fourth attempt
PAUSES = (0.1, 0.4, 1.6)
_FOR_A_MOMENT = {
    errno.EIO,
    errno.ESTALE,
    errno.EAGAIN,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.ECONNABORTED,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
}


def retried(read: Callable[P, Made], *given: P.args, **options: P.kwargs) -> Made:
    """Return ``read(…)``; retry it if the system or a network fails for a moment."""
    for pause in PAUSES:
        try:
            return read(*given, **options)
        except OSError as error:
            is_network = isinstance(error, ConnectionError | TimeoutError)
            if not is_network and error.errno not in _FOR_A_MOMENT:
                raise
            time.sleep(pause)
    return read(*given, **options)


def read_whole(file: int, offset: int, target: memoryview) -> None:
    """Fill ``target`` from an open file; raise :class:`EOFError` if the file ends before."""
    done = 0
    while done < len(target):
        n_read = retried(os.preadv, file, [target[done:]], offset + done)
        if n_read == 0:
            raise EOFError
        done += n_read
