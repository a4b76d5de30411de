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
    """Yield a file that is synced and renamed to ``path`` when the ``with`` block succeeds.

    Parameters
    ----------
    partial
        The file's name until then, in the same folder; no other process writes to it.
    path
        The file's name in the end; an older file of that name is replaced.
    previous
        The new name of the older file, if it is to be kept.

    Raises
    ------
    OSError
        The file cannot be written; the older file is still at ``path`` or at ``previous``.
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
        # unlink raises too if the name is too long
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    sync(path.parent)


def open_regular(path: Path) -> IO[bytes]:
    """Open a file to be read; raise ``OSError`` for a device and for a pipe, which would hang."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(file, "rb")


def sync(path: Path) -> None:
    """Sync a file or folder to the disk, because a power cut could lose all but its name."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise
    finally:
        os.close(file)
