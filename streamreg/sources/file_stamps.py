"""Stamps of files that were read: a fit must not mix two versions of a file."""

from __future__ import annotations

import math
import threading
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.sources.retries import retried

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

    Stamps = np.ndarray[Any, np.dtype[np.uint32]]

# Further files are not watched. A stamp takes 4 bytes of address space, and memory only once set.
_MOST_FILES = 1 << 24
# held to compare and set a stamp, because threads read the same files
_NOTING = threading.Lock()
# flag of a stamp: rows of the file were used
_USED = 0x80000000
# the stamp of a file that is absent, where absent chunks are allowed
_ABSENT = 0xFFFFFFFF


class SeenFiles(NamedTuple):
    """Files that were read: their numbers, and the stamps that they had."""

    numbers: np.ndarray[Any, np.dtype[np.intp]]
    stamps: Stamps


class FileStamps:
    """Size and time of each chunk file when it was first read, 4 bytes a file; 0 if never.

    Parameters
    ----------
    shape
        How many files there are along each axis.
    describe
        Names a file, by its place, for a message.
    """

    def __init__(self, shape: tuple[int, ...], describe: Callable[[tuple[int, ...]], str]) -> None:
        self._shape = shape
        self._describe = describe
        self._stamps: Stamps | None = None

    @property
    def values(self) -> Stamps:
        """One stamp for each file that is watched."""
        if self._stamps is None:
            with _NOTING:
                if self._stamps is None:
                    self._stamps = np.zeros(min(_MOST_FILES, math.prod(self._shape)), np.uint32)
        return self._stamps

    def require_unchanged(self, path: Callable[[tuple[int, ...]], Path]) -> None:
        """Check all files that were read before; ``path`` returns a file from its place.

        Raises
        ------
        DataCorruptionError
            A file has changed since, or is absent now.
        """
        for number in np.flatnonzero(self.values):
            at = tuple(int(place) for place in np.unravel_index(number, self._shape))
            try:
                status = retried(path(at).stat)
            except FileNotFoundError as error:
                if self.values[number] == _ABSENT:
                    continue
                raise DataCorruptionError(
                    f"{self._describe(at)} was read before and is gone"
                ) from error
            except OSError as error:
                raise DataCorruptionError(
                    f"{self._describe(at)} was read before and cannot be any more: {error.strerror}"
                ) from error
            if not self.agree(at, status):
                raise changed(self._describe(at))

    def agree(self, file_at: tuple[int, ...], status: os.stat_result) -> bool:
        """Whether the file is unchanged since it was first opened."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        # without the inode number, which some network file systems change
        stamp = zlib.crc32(f"{status.st_size} {status.st_mtime_ns}".encode()) % (_USED - 1) or 1
        values = self.values
        with _NOTING:
            if values[number] == 0:
                values[number] = stamp
            return bool(values[number] & ~np.uint32(_USED) == stamp)

    def agree_absent(self, file_at: tuple[int, ...]) -> bool:
        """Whether an absent file was absent when it was first looked for."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        if self.values[number] == 0:
            self.values[number] = _ABSENT
        return bool(self.values[number] == _ABSENT)

    def use(self, file_at: tuple[int, ...]) -> None:
        """Record that rows of a file were used: from now on the file must not change."""
        number = self._number(file_at)
        values = self.values
        if number < _MOST_FILES:
            with _NOTING:
                values[number] |= np.uint32(_USED)

    def forget_unused(self, file_at: tuple[int, ...]) -> bool:
        """Forget the stamp of a file; return false, and keep it, if rows of the file were used."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        values = self.values
        with _NOTING:
            if values[number] >= _USED:
                return False
            values[number] = 0
        return True

    def seen(self) -> SeenFiles:
        """Return which files were read, and their stamps."""
        numbers = np.flatnonzero(self.values)
        return SeenFiles(numbers, self.values[numbers])

    def meet(self, seen: SeenFiles) -> None:
        """Record the files that another process read.

        Raises
        ------
        DataCorruptionError
            It read another version of a file.
        """
        mine = self.values[seen.numbers]
        differs = (mine != 0) & ((mine | np.uint32(_USED)) != (seen.stamps | np.uint32(_USED)))
        if differs.any():
            number = int(seen.numbers[differs.argmax()])
            raise changed(
                self._describe(tuple(int(at) for at in np.unravel_index(number, self._shape)))
            )
        self.values[seen.numbers] = mine | seen.stamps

    def __getstate__(self) -> dict[str, Any]:
        # each worker has stamps of its own
        return {**self.__dict__, "_stamps": None}

    def _number(self, file_at: tuple[int, ...]) -> int:
        number = 0
        for at, length in zip(file_at, self._shape, strict=True):
            number = number * length + at
        return number


def changed(what: str) -> DataCorruptionError:
    """Return the error that says that a fit must not mix two versions of a chunk."""
    return DataCorruptionError(
        f"{what} changed during the fit. Start again when nothing writes to it"
    )
