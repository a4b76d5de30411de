"""Numbers and arrays in one file, which is not trusted when it is read.

The file is NumPy's ``.npz``, uncompressed, with a checksum (CRC-32) of each array; the array
``header`` holds JSON. No code in the file is ever run, and a size that it claims is checked against
the size of the file before memory is allocated.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zipfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.formatting import MIB
from streamreg.output.atomic import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from streamreg.blocks import Array

_PIECE_NBYTES = MIB
# the description holds dtype, order and shape
_MOST_DESCRIPTION_NBYTES = 1024
_HEADER = "header"


class Stored(NamedTuple):
    """An array in an archive, to be copied to another one."""

    archive: zipfile.ZipFile
    name: str


class NotAnArchiveError(ValueError):
    """The file is damaged, or is not an archive."""


def write_archive(
    file: IO[bytes], header: dict[str, Any], arrays: Mapping[str, Array | Stored]
) -> None:
    """Write an archive, 1 MiB at a time; stored arrays are copied from another archive."""
    text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {_HEADER: text, **arrays}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                if isinstance(array, Stored):
                    with array.archive.open(f"{array.name}.npy") as stored:
                        shutil.copyfileobj(stored, entry, _PIECE_NBYTES)
                else:
                    _write_array(entry, array)


class Archive:
    """Read an archive, whose ``header`` is the JSON object that was written with the arrays.

    A file without a whole header is a :class:`NotAnArchiveError`. Arrays are checked when read, or
    at once if ``checks_all``.
    """

    def __init__(self, path: Path, *, checks_all: bool = False) -> None:
        self._file = open_regular(path)
        try:
            with _one_kind_of_error():
                self._zip = zipfile.ZipFile(self._file)
                self.nbytes = nbytes = os.fstat(self._file.fileno()).st_size
                for entry in self._zip.infolist():
                    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > nbytes:
                        raise NotAnArchiveError(f"{entry.filename!r} is compressed")  # noqa: TRY301
                self.header = parse_header(self.read(_HEADER).tobytes())
                damaged = self._zip.testzip() if checks_all else None
                if damaged is not None:
                    raise NotAnArchiveError(f"{damaged!r} has another checksum")  # noqa: TRY301
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str) -> Array:
        """Return an array, in the order in which it was written."""
        with _one_kind_of_error():
            with self._zip.open(f"{name}.npy") as entry:
                _require_size(name, entry, self._zip.getinfo(f"{name}.npy").file_size)
            with self._zip.open(f"{name}.npy") as entry:
                return np.lib.format.read_array(entry, allow_pickle=False)

    def stored(self, name: str) -> Stored:
        """Return an array without reading it."""
        return Stored(self._zip, name)


def _write_array(entry: IO[bytes], array: Array) -> None:
    # np.lib.format.write_array makes copies of 16 MiB
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(entry, np.lib.format.header_data_from_array_1_0(array))
    values = array.reshape(-1, order="A").view(np.uint8).data
    for start in range(0, len(values), _PIECE_NBYTES):
        entry.write(values[start : start + _PIECE_NBYTES])


def _require_size(name: str, entry: IO[bytes], nbytes: int) -> None:
    """Refuse an array whose description gives another size than ``nbytes``, before allocation."""
    version = np.lib.format.read_magic(entry)
    if version != (1, 0):
        raise NotAnArchiveError(f"{name!r} is of version {version}")
    shape, _, dtype = np.lib.format.read_array_header_1_0(
        entry, max_header_size=_MOST_DESCRIPTION_NBYTES
    )
    if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != nbytes - entry.tell():
        raise NotAnArchiveError(f"{name!r} has {nbytes:,} bytes for {dtype} {shape}")


@contextmanager
def _one_kind_of_error() -> Iterator[None]:
    """Raise :class:`NotAnArchiveError` for all that zipfile, NumPy and json raise."""
    try:
        yield
    except (NotAnArchiveError, MemoryError):
        raise
    except Exception as error:
        raise NotAnArchiveError(f"{type(error).__name__}: {error}") from error


def parse_header(text: bytes) -> dict[str, Any]:
    """Return a JSON object; raise json's errors, or :class:`NotAnArchiveError`."""
    header = json.loads(text)
    if not isinstance(header, dict):
        raise NotAnArchiveError(f"its header is a {type(header).__name__}, not a dictionary")
    return header
