"""Whether data on disk are still those that were read before: a fit must not mix two versions."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError

if TYPE_CHECKING:
    import os
    from pathlib import Path

# files beyond are not watched: 4 bytes each, of which only those of files that were read are used
_MOST_FILES = 1 << 24


class FileStamps:
    """Size and time of each chunk file when it was first read, 4 bytes a file.

    Parameters
    ----------
    shape
        How many files there are along each axis.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._stamps: np.ndarray[Any, np.dtype[np.uint32]] | None = None

    def agree(self, file_at: tuple[int, ...], status: os.stat_result) -> bool:
        """Whether the file has not changed since it was first asked for."""
        number = 0
        for at, length in zip(file_at, self._shape, strict=True):
            number = number * length + at
        if number >= _MOST_FILES:
            return True
        if self._stamps is None:
            self._stamps = np.zeros(min(_MOST_FILES, math.prod(self._shape)), np.uint32)
        # inode numbers are left out: file systems over a network may make new ones up
        stamp = hash((status.st_size, status.st_mtime_ns)) & 0xFFFFFFFF or 1
        if self._stamps[number] == 0:
            self._stamps[number] = stamp
        return bool(self._stamps[number] == stamp)


class ArrayMetadata:
    """The metadata document of an array in a local folder, as it was when the array was opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        self._files = [folder / file for file in ("zarr.json", ".zarray")]
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
        # attributes may come and go
        if self._read() != self._content:
            raise DataCorruptionError(
                f"{self._name} changed during the fit: it was resized, or written anew. "
                "Start again when nothing writes to it"
            )
        self._stamp = stamp

    def _stat(self) -> list[tuple[int, int]]:
        stamps = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                continue
            stamps.append((status.st_size, status.st_mtime_ns))
        return stamps

    def _read(self) -> list[Any]:
        contents = []
        for file in self._files:
            try:
                content = json.loads(file.read_bytes())
            except (OSError, ValueError):
                continue
            if isinstance(content, dict):
                content.pop("attributes", None)
            contents.append(content)
        return contents
