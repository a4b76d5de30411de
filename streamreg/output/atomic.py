"""Files that appear on disk whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING

from streamreg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic_write(partial: Path, path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Yield a file that is synced and renamed to ``path`` when the ``with`` block succeeds.

    Until then its name is ``partial``, to which no other process writes. An older file is renamed
    to ``previous``, or replaced; after an ``OSError`` it is still at ``path`` or at ``previous``.
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
        # if the name is too long, unlink fails as open did
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


def require_folder(path: Path, what: str) -> None:
    """Refuse a ``path`` at which no file can be made; ``what`` names it."""
    if not path.parent.is_dir():
        raise InputError(f"{what} has no folder; create {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"{what} is refused: this process may not write in {str(path.parent)!r}")


def sync(path: Path) -> None:
    """Sync a file or folder to the disk, because a power cut could lose its contents."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise
    finally:
        os.close(file)
