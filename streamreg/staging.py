"""Folders that appear on disk whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from streamreg.errors import InputError
from streamreg.files import sync

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")
# in a folder that may be gone on with: what it is being filled with
_IDENTITY = ".streamreg-output"


def require_writable(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Path:
    """Return where ``path`` really lies, once nothing stands in the way of writing there.

    Asked before the first pass, so that hours of reading do not end at a folder that is missing.

    Parameters
    ----------
    path, overwrite
        The folder of a Zarr array or group, and whether one that is there may be replaced.
    inputs
        Paths that are read meanwhile. URLs among them are passed over.

    Raises
    ------
    InputError
        ``path`` is a URL, equals, contains or lies inside an input, exists, or its parent folder
        is missing or not writable. What is not a Zarr array or group is never overwritten.
    """
    text = os.fspath(path)
    if "://" in text:
        raise InputError(
            f"output {text} is a URL, and outputs are written to local folders only; "
            "name a local folder and copy it from there"
        )
    target = Path(os.path.realpath(text))
    parent = target.parent
    for source in inputs:
        _require_apart(target, text, os.fspath(source))
    if not parent.is_dir():
        raise InputError(f"output {text} has no folder to lie in; create {parent}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"output {text} must lie in {parent}, where this process may not write")
    if target.exists() and not _is_zarr(target):
        raise InputError(
            f"output {text} exists and is not Zarr, so it is kept; choose another name"
        )
    if target.exists() and not overwrite:
        raise InputError(f"output {text} exists; pass overwrite=True (--overwrite) to replace it")
    return target


@contextmanager
def staged(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]],
    identity: str = "",
) -> Iterator[tuple[Path, bool]]:
    """Yield a folder that is renamed to ``path`` once the ``with`` block has ended well.

    With an ``identity`` it is kept if the block does not end well, but for an ``InputError``, and
    yielded again to who comes with the same one; then the second value is true. Else it is
    removed.

    Raises
    ------
    InputError
        As :func:`require_writable`, or another process is writing there now.
    """
    target = require_writable(path, overwrite=overwrite, inputs=inputs)
    partial = _partial(target)
    try:
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"folder {partial} cannot be made: {error.strerror}") from error
    try:
        is_begun = _claim(partial, lock, identity)
        try:
            yield partial, is_begun
            _publish(partial, target, overwrite=overwrite)
            (target / _IDENTITY).unlink(missing_ok=True)
        except BaseException as error:
            if identity and not isinstance(error, InputError):
                error.add_note(
                    f"what was written so far is kept in {str(partial)!r}: do the same again, and "
                    "it goes on from there; or remove it"
                )
            else:
                shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _claim(partial: Path, lock: int, identity: str) -> bool:
    """Keep other writers out, whose chunks would mix with ours; say whether one began our work.

    What another one left is cleared.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another writer is filling {partial} now; wait for it, or choose another name"
        ) from None
    except OSError:
        pass  # a file system without locks
    left = list(partial.iterdir())
    if left and not _is_zarr(partial) and not (partial / _IDENTITY).is_file():
        raise InputError(f"folder {partial} is in the way and holds nothing of Zarr; remove it")
    begun = partial / _IDENTITY
    if identity and begun.is_file() and begun.read_bytes() == identity.encode():
        return True
    for entry in left:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if identity:
        begun.write_bytes(identity.encode())
    return False


def _publish(partial: Path, target: Path, *, overwrite: bool) -> None:
    for parent, _, files in os.walk(partial, topdown=False):
        for name in (*files, ""):
            sync(Path(parent, name))
    require_writable(target, overwrite=overwrite)
    if target.exists():
        # a folder can be renamed onto an empty one, not onto one that holds files
        replaced = Path(tempfile.mkdtemp(prefix=f"{target.name}.replaced-", dir=target.parent))
        target.rename(replaced)
        try:
            partial.rename(target)
        except BaseException:
            replaced.rename(target)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        partial.rename(target)
    sync(target.parent)


def _partial(target: Path) -> Path:
    return Path(f"{target}.partial")


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _METADATA_FILES)


def _require_apart(target: Path, text: str, source: str) -> None:
    local = unquote(source.removeprefix("file://")) if source.startswith("file://") else source
    if "://" in local:
        return
    read = Path(os.path.realpath(local))
    for written in (target, _partial(target)):
        if written == read or written in read.parents or read in written.parents:
            raise InputError(
                f"output {text} would overwrite the input {source}: they are one folder, "
                "or one lies inside the other; choose another name"
            )
