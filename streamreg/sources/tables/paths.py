"""Which paths are tables; no library is imported to say so."""

from __future__ import annotations

import glob
import os
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = (".csv", ".tsv")
_PACKED = (".gz", ".bz2", ".zst", ".xz", ".zip")
# sparse rows as text; any other name will do if the first column is named
LIBSVM = (".svm", ".libsvm", ".svmlight")
_BINARY = (".parquet", ".pq", ".arrow", ".feather", ".ipc")
ENDINGS = (*_TEXT, ".csv.gz", *(f".csv{packed}" for packed in _PACKED[1:]), *_BINARY)
_LIBSVM = (*LIBSVM, *(text + packed for text in LIBSVM for packed in _PACKED))
_ALL = (
    *_TEXT,
    ".tab",
    *(text + packed for text in _TEXT for packed in _PACKED),
    *_BINARY,
    *_LIBSVM,
)
_ZARR = ("zarr.json", ".zgroup", ".zarray")
_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"\xfd7zXZ": "xz",
}
_DIGITS = re.compile(r"(\d+)")


def is_table(data: object) -> bool:
    """Whether ``data`` is the path of a table: a file, a folder, a glob or a pipe."""
    text = os.fspath(data) if isinstance(data, str | os.PathLike) else b""
    if isinstance(text, bytes):
        return False
    if "://" in text and not text.startswith("file://"):
        return is_table_file(Path(text.partition("?")[0]))
    try:
        return _is_local_table(text.removeprefix("file://"))
    except (OSError, ValueError):
        return False


def _is_local_table(text: str) -> bool:
    path = Path(text)
    if path.is_dir():
        return not any((path / name).exists() for name in _ZARR) and _has_tables(path)
    if path.exists() and not path.is_file():
        return True  # a pipe
    if is_table_file(path):
        return True
    if path.suffix.lower() == ".zip" and path.is_file():
        return _is_zipped_table(path)
    return glob.has_magic(text) and any(map(is_table, glob.iglob(text)))  # noqa: PTH207


def is_table_file(path: Path) -> bool:
    """Whether a file has the name of a table."""
    return path.name.lower().endswith(_ALL)


def is_libsvm(data: object) -> bool:
    """Whether ``data`` is a path with the name of libsvm text, or a folder or glob of such."""
    if not isinstance(data, str | os.PathLike):
        return False
    text = os.fspath(data)
    if isinstance(text, bytes) or text.lower().endswith(_LIBSVM):
        return not isinstance(text, bytes)
    try:
        if Path(text).is_dir():
            found = [*map(str, _tables_in(Path(text)))]
        else:
            found = glob.glob(text) if glob.has_magic(text) else []  # noqa: PTH207
    except (OSError, ValueError):
        return False
    return bool(found) and all(path.lower().endswith(_LIBSVM) for path in found)


def compression_of(first: bytes) -> str | None:
    """Return the codec that a file's first bytes tell."""
    return next((name for magic, name in _MAGIC.items() if first.startswith(magic)), None)


def natural_order(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key that sorts part.10 after part.2."""
    pieces = _DIGITS.split(str(path))
    return [(piece.isdecimal(), int(piece) if piece.isdecimal() else 0, piece) for piece in pieces]


def _has_tables(folder: Path) -> bool:
    if is_table_file(folder):
        return True
    return any(True for _ in _tables_in(folder))


def _tables_in(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(("_", "."))]
        paths = (Path(parent, name) for name in files if not name.startswith(("_", ".")))
        yield from filter(is_table_file, paths)


def _is_zipped_table(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(is_table_file(Path(name)) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
