"""Files that appear on disk whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_write(partial: Path, path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Yield a file that stands at ``path``, synced, once the ``with`` block has ended well.

    Parameters
    ----------
    partial
        What it is called until then; in the same folder, written by nobody else.
    path
        Where it shall stand; what was there is replaced.
    previous
        Where what was there is kept instead.

    Raises
    ------
    OSError
        Something cannot be written; what was there is still there, or at ``previous``.
    """
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None:
            with suppress(FileNotFoundError):
                path.replace(previous)
        partial.replace(path)
    finally:
        # a name too long to be written is too long to be removed
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    sync(path.parent)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to be read; raise ``OSError`` of a pipe, which would hang, and of a device."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(file, "rb")


def sync(path: Path) -> None:
    """Have the system write a file or folder to the disk: a power cut could keep its name only."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(file)
