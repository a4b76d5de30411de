"""Reads that fail for a moment, tried again: a network's file system that stalls, a busy server."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
Made = TypeVar("Made")

# seconds before the second, third and fourth attempt
PAUSES = (0.1, 0.4, 1.6)
_FOR_A_MOMENT = {
    errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED,
    errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH,
}  # fmt: skip


def retried(read: Callable[P, Made], *given: P.args, **options: P.kwargs) -> Made:
    """Return ``read(…)``; where the system or a network fails for a moment, try again.

    Raises
    ------
    Exception
        What ``read`` raised last, or at once where trying again would not help.
    """
    for pause in PAUSES:
        try:
            return read(*given, **options)
        except OSError as error:
            is_network = isinstance(error, ConnectionError | TimeoutError)
            if not is_network and error.errno not in _FOR_A_MOMENT:
                raise
            time.sleep(pause)
    return read(*given, **options)
