"""Whether data on disk are still those that were read before: a fit must not mix two versions."""

from __future__ import annotations

import json
import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError

if TYPE_CHECKING:
    import os
    from pathlib import Path

    Stamps = np.ndarray[Any, np.dtype[np.uint32]]

# files beyond are not watched: 4 bytes each, of which only those of files that were read are used
_MOST_FILES = 1 << 24


class FileStamps:
    """Size and time of each chunk file when it was first read, 4 bytes a file; 0 if never.

    Parameters
    ----------
    shape
        How many files there are along each axis.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._stamps: Stamps | None = None

    @property
    def values(self) -> Stamps:
        """One stamp for each file that is watched."""
        if self._stamps is None:
            self._stamps = np.zeros(min(_MOST_FILES, math.prod(self._shape)), np.uint32)
        return self._stamps

    def agree(self, file_at: tuple[int, ...], status: os.stat_result) -> bool:
        """Whether the file has not changed since it was first asked for."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        # inode numbers are left out: file systems over a network may make new ones up
        stamp = zlib.crc32(f"{status.st_size} {status.st_mtime_ns}".encode()) or 1
        if self.values[number] == 0:
            self.values[number] = stamp
        return bool(self.values[number] == stamp)

    def forget(self, file_at: tuple[int, ...]) -> None:
        """Take a file for one that was never read: it was of no use."""
        number = self._number(file_at)
        if number < _MOST_FILES:
            self.values[number] = 0

    def _number(self, file_at: tuple[int, ...]) -> int:
        number = 0
        for at, length in zip(file_at, self._shape, strict=True):
            number = number * length + at
        return number


class ArrayMetadata:
    """The metadata document of an array in a local folder, as it was when the array was opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        version_2 = folder / ".zarray"
        self._file = version_2 if version_2.exists() else folder / "zarr.json"
        self._stamp = self._stat()
        self._content = self._read()

    def require_unchanged(self) -> None:
        """Raise if the array has been resized or written anew since.

        Raises
        ------
        DataCorruptionError
            It has.
        """
        stamp = self._stat()
        if stamp == self._stamp:
            return
        if self._read() != self._content:
            raise DataCorruptionError(
                f"{self._name} changed during the fit: it was resized, or written anew. "
                "Start again when nothing writes to it"
            )
        self._stamp = stamp

    def _stat(self) -> tuple[int, int] | None:
        try:
            status = self._file.stat()
        except OSError:
            return None
        return status.st_size, status.st_mtime_ns

    def _read(self) -> object:
        try:
            content = json.loads(self._file.read_bytes())
        except (OSError, ValueError):
            return None
        if isinstance(content, dict):
            content.pop("attributes", None)  # they may come and go
        return content
