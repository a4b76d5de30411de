"""Folders that appear on disk whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from streamreg.errors import InputError, Remedy
from streamreg.output.atomic import require_folder, sync
from streamreg.signals import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FULL = {errno.ENOSPC, errno.EDQUOT}
_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")
# file in a partial output that can be resumed; it identifies what is being written
_IDENTITY = ".streamreg-output"


def require_writable(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Return the real path of an output that can be written to ``path``.

    Called before the first pass too, so that hours of reading do not end at a missing folder. Only
    Zarr arrays and groups are overwritten. The output must not equal, contain or be inside one of
    the ``inputs``; URLs among them are ignored.
    """
    text = os.fspath(path)
    if "://" in text:
        raise InputError(
            f"output {text} is a URL, and outputs are written to local folders only; "
            "name a local folder and copy it from there"
        )
    target = Path(os.path.realpath(text))
    require_apart(path, _partial(target), inputs)
    require_folder(target, f"output {text}")
    if target.exists() and not _is_zarr(target):
        raise InputError(
            f"output {text} exists and is not Zarr, so it is kept; choose another name"
        )
    if target.exists() and not overwrite:
        raise InputError(
            f"output {text} exists; pass ", Remedy("overwrite", value=True), " to replace it"
        )
    return target


def require_apart(
    path: str | os.PathLike[str],
    partial: Path,
    inputs: Iterable[str | os.PathLike[str]],
) -> None:
    """Refuse an output that is, contains or is inside one of the inputs."""
    text = os.fspath(path)
    target = Path(os.path.realpath(text))
    for source in (os.fspath(each) for each in inputs):
        local = unquote(source.removeprefix("file://")) if source.startswith("file://") else source
        read = Path(os.path.realpath(local))
        written = () if "://" in local else (target, partial)
        if any(path == read or path in read.parents or read in path.parents for path in written):
            raise InputError(
                f"output {text} would overwrite the input {source}: they are one, "
                "or one is inside the other; choose another name"
            )


@contextmanager
def staged(
    path: str | os.PathLike[str], *, overwrite: bool, identity: str = ""
) -> Iterator[tuple[Path, bool]]:
    """Yield a folder that is renamed to ``path`` when the ``with`` block succeeds.

    If the block fails, the folder is removed; with an ``identity`` it is kept, unless the error is
    an ``InputError``. A later call with the same identity yields the kept folder and true. If
    another process writes to the folder, ``InputError`` is raised.
    """
    target = require_writable(path, overwrite=overwrite)
    claim = _Claim(_partial(target))
    is_filled = False
    try:
        # an interrupt after the folder is made and before ``is_ours`` is set would leave it there
        uninterrupted(claim.take, identity)
        yield claim.folder, claim.is_resumed
        is_filled = True
        claim.sync()
        require_writable(target, overwrite=overwrite)
        uninterrupted(claim.publish, target)
    except BaseException as error:
        if claim.is_ours and identity and (is_filled or not isinstance(error, InputError)):
            error.add_note(
                f"What was written so far is kept in {str(claim.folder)!r}: do the same again to "
                "resume, or remove it"
            )
        elif claim.is_ours:
            uninterrupted(partial(shutil.rmtree, ignore_errors=True), claim.folder)
        if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
            # a write does not name what it writes to
            error.filename = str(target)
        raise
    finally:
        claim.release()


class _Claim:
    """The folder of a partial output, which this process locks against other writers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_ours = False
        self.is_resumed = False
        self._lock: int | None = None

    def take(self, identity: str) -> None:
        """Make and lock the folder; if an earlier writer left it, resume or clear it."""
        self._make_and_lock()
        left = list(self.folder.iterdir())
        identity_file = self.folder / _IDENTITY
        if left and not _is_zarr(self.folder) and not identity_file.is_file():
            raise InputError(f"folder {self.folder} is in the way and is not Zarr; remove it")
        self.is_ours = True
        if identity and identity_file.is_file() and identity_file.read_bytes() == identity.encode():
            self.is_resumed = True
            return
        for entry in left:
            is_folder = entry.is_dir() and not entry.is_symlink()
            shutil.rmtree(entry) if is_folder else entry.unlink()
        if identity:
            identity_file.write_bytes(identity.encode())

    def _make_and_lock(self) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = os.open(self.folder, flags)
        except OSError as error:
            raise InputError(f"folder {self.folder} cannot be made: {error.strerror}") from error
        is_busy = False
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # any other error: the file system has no locks
            is_busy = isinstance(error, BlockingIOError)
        # another writer may have published the folder before it was locked
        at_path = self.folder.lstat() if self.folder.exists() else None
        if is_busy or at_path is None or not os.path.samestat(os.fstat(self._lock), at_path):
            raise InputError(
                f"another writer is filling {self.folder} now; wait for it, or choose another name"
            )

    def sync(self) -> None:
        """Sync all files and folders to the disk."""
        for parent, _, files in os.walk(self.folder, topdown=False):
            for name in (*files, ""):
                sync(Path(parent, name))

    def publish(self, target: Path) -> None:
        """Rename the folder to ``target``, and remove the output that it replaces."""
        replaced = None
        if target.exists():
            # a folder can be renamed to an empty folder, not to one that holds files
            replaced = Path(tempfile.mkdtemp(prefix=f"{target.name}.replaced-", dir=target.parent))
            target.rename(replaced)
        try:
            self.folder.rename(target)
        except BaseException:
            if replaced is not None:
                replaced.rename(target)
            raise
        self.is_ours = False
        (target / _IDENTITY).unlink(missing_ok=True)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
        sync(target.parent)

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _partial(target: Path) -> Path:
    return Path(f"{target}.partial")


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _METADATA_FILES)
