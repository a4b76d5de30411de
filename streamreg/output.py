"""Zarr arrays that appear on disk whole or not at all."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from streamreg.errors import InputError
from streamreg.files import sync
from streamreg.interrupts import finished
from streamreg.memory import GIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import zarr
    from numpy.typing import DTypeLike

    from streamreg.blocks import Array

CHUNK_NBYTES = 8 * MIB
_CHUNK_MAX_NBYTES = GIB  # blosc cannot write 2 GiB at once
_METADATA_FILES = ("zarr.json", ".zarray", ".zgroup")


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
def new_group(
    path: str | os.PathLike[str],
    attributes: dict[str, Any] | None = None,
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[zarr.Group]:
    """Yield an empty Zarr v3 group; it stands at ``path`` once the ``with`` block has ended well.

    Until then it lies in ``<path>.partial``, which any exception removes; after a kill the next
    writer of ``path`` clears it. An overwrite renames twice: a kill just between leaves the old
    output whole in ``<path>.replaced-…`` and the new one in ``<path>.partial``.

    Raises
    ------
    InputError
        As :func:`require_writable`, or another process is writing there now.
    """
    import zarr  # noqa: PLC0415  (imported only by who writes Zarr arrays)

    with _staged(path, overwrite=overwrite, inputs=inputs) as partial:
        yield finished(zarr.create_group, partial, zarr_format=3, attributes=attributes)


@contextmanager
def new_array(
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float64,
    chunk_rows: int | None = None,
    *,
    overwrite: bool,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[zarr.Array[Any]]:
    """Yield one Zarr v3 array: as :func:`new_group`, with the chunks of :func:`create_array`."""
    import zarr  # noqa: PLC0415  (imported only by who writes Zarr arrays)

    with _staged(path, overwrite=overwrite, inputs=inputs) as partial:
        yield finished(zarr.create_array, partial, **_layout(shape, dtype, chunk_rows))


def create_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: DTypeLike = np.float64,
    *,
    chunk_rows: int | None = None,
) -> zarr.Array[Any]:
    """Return a new array of ``group``, (N,) or (N, D), cut into chunks of whole rows.

    A chunk has ``chunk_rows`` rows, by default as many as make 8 MiB; a row that is larger than
    that is cut. Each chunk is compressed, carries a crc32c, and is written even if all its values
    are zero, since an absent chunk is an error when read.
    """
    return finished(group.create_array, name, **_layout(shape, dtype, chunk_rows))


class RowAppender:
    """Writes an array from first row to last, each chunk once, in memory of about four chunks."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self._buffer = np.empty((array.chunks[0], *array.shape[1:]), array.dtype)
        self._filled = 0
        self._written = 0

    def append(self, rows: Array) -> None:
        """Add rows, (n,) or (n, D)."""
        if rows.shape[1:] != self._array.shape[1:]:
            raise InputError(
                f"rows of shape {rows.shape[1:]} do not belong in {self._array.name}, "
                f"whose rows have shape {self._array.shape[1:]}"
            )
        self._require_count(self._written + self._filled + len(rows), complete=False)
        while len(rows):
            piece = rows[: len(self._buffer) - self._filled]
            rows = rows[len(piece) :]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            if self._filled == len(self._buffer):
                self._write()

    def close(self) -> None:
        """Write the last rows; an :class:`InputError` if fewer came than the array has."""
        self._require_count(self._written + self._filled, complete=True)
        self._write()

    def _write(self) -> None:
        if self._filled:
            stop = self._written + self._filled
            rows = slice(self._written, stop)
            finished(self._array.__setitem__, rows, self._buffer[: self._filled])
            self._written, self._filled = stop, 0

    def _require_count(self, n_rows: int, *, complete: bool) -> None:
        expected = self._array.shape[0]
        if n_rows > expected or (complete and n_rows < expected):
            raise InputError(
                f"{self._array.name} was made for {expected:,} rows but {n_rows:,} came; "
                "did the data change while they were read?"
            )


def _layout(shape: tuple[int, ...], dtype: DTypeLike, chunk_rows: int | None) -> dict[str, Any]:
    from zarr.codecs import BloscCodec, Crc32cCodec  # noqa: PLC0415  (as zarr itself)

    item_nbytes = np.dtype(dtype).itemsize
    row_nbytes = max(1, math.prod(shape[1:])) * item_nbytes
    fitting_rows = (CHUNK_NBYTES if chunk_rows is None else _CHUNK_MAX_NBYTES) // row_nbytes
    rows = min(shape[0], fitting_rows, fitting_rows if chunk_rows is None else chunk_rows)
    columns = [min(length, CHUNK_NBYTES // item_nbytes) for length in shape[1:]]
    return {
        "shape": shape,
        "dtype": dtype,
        "chunks": tuple(max(1, length) for length in (rows, *columns)),
        # A fit reads the data many times: decoding counts. GB/s of float64, one thread, page cache,
        # and in brackets how many times smaller (flights: 30 columns, two of them made one-hot):
        #                          flights      normal deviates   200 one-hot columns
        #   crc32c alone            9.7 (1)       10.5 (1)            11 (1)
        #   zstd 1, own checksum    2.0 (10)       1.5 (1.04)          9 (43)
        #   lz4 shuffled, crc32c    4.8 (6.1)      5.1 (1.06)          9 (18)
        #   lz4, crc32c             4.5 (5.4)     10.9 (1)            22 (33)
        # so the last costs nothing where nothing can be saved, and else wins on any real disk.
        "compressors": (BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle"), Crc32cCodec()),
        "config": {"write_empty_chunks": True},
    }


@contextmanager
def _staged(
    path: str | os.PathLike[str], *, overwrite: bool, inputs: Iterable[str | os.PathLike[str]]
) -> Iterator[Path]:
    target = require_writable(path, overwrite=overwrite, inputs=inputs)
    partial = _partial(target)
    try:
        partial.mkdir(exist_ok=True)
        lock = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"folder {partial} cannot be made: {error.strerror}") from error
    try:
        _claim(partial, lock)
        try:
            yield partial
            _publish(partial, target, overwrite=overwrite)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(lock)


def _claim(partial: Path, lock: int) -> None:
    """Keep other writers out, whose chunks would mix with ours, and clear what a dead one left."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another writer is filling {partial} now; wait for it, or choose another name"
        ) from None
    except OSError:
        pass  # a file system without locks
    left = list(partial.iterdir())
    if left and not _is_zarr(partial):
        raise InputError(f"folder {partial} is in the way and holds nothing of Zarr; remove it")
    for entry in left:
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


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
