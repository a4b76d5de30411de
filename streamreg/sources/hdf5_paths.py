"""Paths of arrays and sparse matrices inside HDF5 files: ``"atlas.h5ad/X"``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources import hdf5
from streamreg.sources.base import Kind
from streamreg.sources.zarr.metadata import printable

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def split(data: object) -> tuple[Path, str] | None:
    """Return an HDF5 file and a name inside it; ``None`` if ``data`` is no such path."""
    if not isinstance(data, str | os.PathLike):
        return None
    text = os.fspath(data)
    if not isinstance(text, str) or "://" in text:
        return None
    path = Path(text)
    for file in path.parents:
        try:
            if file.is_dir():
                return None
            if file.is_file():
                with file.open("rb") as opened:
                    is_hdf5 = opened.read(len(_SIGNATURE)) == _SIGNATURE
                return (file, path.relative_to(file).as_posix()) if is_hdf5 else None
        except (OSError, ValueError):
            return None
    return None


def open_rows(data: Any, name: str, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of a dataset, or of a sparse matrix, in an HDF5 file."""
    file, inside = cast("tuple[Path, str]", split(data))
    label = printable(os.fspath(data))
    try:
        import h5py  # noqa: PLC0415  (imported only if there are HDF5 files)
    except ImportError as error:
        raise InputError(f"{label} is in an HDF5 file, which h5py reads: install h5py") from error
    try:
        opened = h5py.File(file, "r")
    except OSError as error:
        raise DataCorruptionError(f"{printable(str(file))} cannot be opened: {error}") from error
    if inside not in opened:
        names = ", ".join(sorted(opened)) or "nothing"
        raise InputError(f"{printable(str(file))} holds no {inside}; it holds: {names}")
    return hdf5.open_rows(opened[inside], name, missing_chunks)


KIND = Kind(lambda data: split(data) is not None, open_rows)
