"""Whether data on disk are still those that were read before: a fit must not mix two versions."""

from __future__ import annotations

import json
import math
import threading
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources.retries import retried

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

    Stamps = np.ndarray[Any, np.dtype[np.uint32]]

# files beyond are not watched: 4 bytes each, of which only those of files that were read are used
_MOST_FILES = 1 << 24
# held while a stamp is looked at and set: threads read the same files
_NOTING = threading.Lock()
# set in a stamp once rows of the file were of use
_USED = 0x80000000
# the stamp of a file that is not there, and may be absent
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
        """Look at all files that were read before; ``path`` says where one is, by its place.

        Raises
        ------
        DataCorruptionError
            One has changed since, or is gone.
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
        """Whether the file has not changed since it was first asked for."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        # inode numbers are left out: file systems over a network may make new ones up
        stamp = zlib.crc32(f"{status.st_size} {status.st_mtime_ns}".encode()) % (_USED - 1) or 1
        values = self.values
        with _NOTING:
            if values[number] == 0:
                values[number] = stamp
            return bool(values[number] & ~np.uint32(_USED) == stamp)

    def agree_absent(self, file_at: tuple[int, ...]) -> bool:
        """Whether a file that is not there was not there when it was first asked for."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        if self.values[number] == 0:
            self.values[number] = _ABSENT
        return bool(self.values[number] == _ABSENT)

    def use(self, file_at: tuple[int, ...]) -> None:
        """Take note that rows of a file were of use: from now on it must stay as it is."""
        number = self._number(file_at)
        values = self.values
        if number < _MOST_FILES:
            with _NOTING:
                values[number] |= np.uint32(_USED)

    def forget_unused(self, file_at: tuple[int, ...]) -> bool:
        """Take a file for one that was never read; false if rows of it were of use."""
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
        """Return which files were read so far, and their stamps."""
        numbers = np.flatnonzero(self.values)
        return SeenFiles(numbers, self.values[numbers])

    def meet(self, seen: SeenFiles) -> None:
        """Take note of what somebody else read.

        Raises
        ------
        DataCorruptionError
            A file was another one there.
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
        # whoever it is sent to begins anew
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


class ArrayMetadata:
    """The metadata document of an array in a local folder, as it was when the array was opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = name
        version_2 = folder / ".zarray"
        self._file = version_2 if version_2.exists() else folder / "zarr.json"
        self._stamp = self._stat()
        self._content = self._read()

    def require_there(self) -> None:
        """Raise if the array cannot be found here: of use where it was opened elsewhere.

        Raises
        ------
        InputError
            There is no such file, or it cannot be read.
        """
        try:
            self._file.read_bytes()
        except OSError as error:
            raise InputError(f"{str(self._file)!r}: {error.strerror}") from error

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
