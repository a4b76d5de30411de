"""Stamps of files that were read: a fit must not mix two versions of a file."""

from __future__ import annotations

import math
import threading
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.sources.retries import retried

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

# Files beyond this number are not watched. A stamp takes 4 bytes, and memory only once it is set.
_MOST_FILES = 1 << 24
# held while a stamp is compared and set, because threads read the same files
_STAMPING = threading.RLock()
# flag of a stamp: rows of the file were used
_USED = 0x80000000
# the stamp of a file that is absent, where absent chunks are allowed
_ABSENT = 0xFFFFFFFF


class FileStamps:
    """Size and time of each chunk file when it was first read, 4 bytes a file; 0 if never.

    ``shape`` counts the files along each axis; ``describe`` names one, by its place, for a message.
    """

    def __init__(self, shape: tuple[int, ...], describe: Callable[[tuple[int, ...]], str]) -> None:
        self._shape = shape
        self._describe = describe
        self._values: np.ndarray[Any, np.dtype[np.uint32]] | None = None

    @property
    def values(self) -> np.ndarray[Any, np.dtype[np.uint32]]:
        """One stamp for each file that is watched; made when the first file is read."""
        with _STAMPING:
            if self._values is None:
                self._values = np.zeros(min(_MOST_FILES, math.prod(self._shape)), np.uint32)
            return self._values

    def require_unchanged(self, path: Callable[[tuple[int, ...]], Path]) -> None:
        """Raise if a file that was read has changed; ``path`` returns a file from its place."""
        for number in np.flatnonzero(self.values):
            at = self._place(number)
            try:
                status = retried(path(at).stat)
            except OSError as error:
                is_gone = isinstance(error, FileNotFoundError)
                if is_gone and self.values[number] == _ABSENT:
                    continue
                why = "is missing now" if is_gone else f"cannot be read now: {error.strerror}"
                raise DataCorruptionError(
                    f"{self._describe(at)} was read before and {why}"
                ) from error
            if not self.agree(at, status):
                raise changed(self._describe(at))

    def agree(self, file_at: tuple[int, ...], status: os.stat_result | None) -> bool:
        """Whether a file is as it was when first opened; ``status`` is ``None`` if it is absent."""
        number, stamp = self._number(file_at), _ABSENT
        if number >= _MOST_FILES:
            return True
        if status is not None:
            # without the inode number, which some network file systems change
            checksum = zlib.crc32(f"{status.st_size} {status.st_mtime_ns}".encode())
            stamp = checksum % (_USED - 1) or 1
        values = self.values
        with _STAMPING:
            known = int(values[number])
            if not known:
                values[number] = stamp
            return not known or known | _USED == stamp | _USED

    def use(self, file_at: tuple[int, ...]) -> None:
        """Record that rows of a file were used: from now on the file must not change."""
        number = self._number(file_at)
        if number < _MOST_FILES:
            values = self.values
            with _STAMPING:
                values[number] |= _USED

    def forget_unused(self, file_at: tuple[int, ...]) -> bool:
        """Forget the stamp of a file; return false, without effect, if rows of it were used."""
        number = self._number(file_at)
        if number >= _MOST_FILES:
            return True
        values = self.values
        with _STAMPING:
            is_used = bool(values[number] >= _USED)
            if not is_used:
                values[number] = 0
        return not is_used

    def seen(self) -> dict[int, int]:
        """Return the stamps of the files that were read, by the numbers of the files."""
        return {int(number): int(self.values[number]) for number in np.flatnonzero(self.values)}

    def merge(self, seen: dict[int, int]) -> None:
        """Record what another process read; raise if that was another version of a file."""
        for number, stamp in seen.items():
            mine = self.values[number]
            if mine != 0 and mine | _USED != stamp | _USED:
                raise changed(self._describe(self._place(number)))
            self.values[number] |= stamp

    def __reduce__(self) -> tuple[type[FileStamps], tuple[Any, ...]]:
        # each worker begins with no stamps
        return FileStamps, (self._shape, self._describe)

    def _place(self, number: Any) -> tuple[int, ...]:  # noqa: ANN401  (an integer of NumPy)
        return tuple(int(at) for at in np.unravel_index(number, self._shape))

    def _number(self, file_at: tuple[int, ...]) -> int:
        """Return the number of a file, in C order of the grid."""
        number = 0
        for at, length in zip(file_at, self._shape, strict=True):
            number = number * length + at
        return number


def changed(what: str) -> DataCorruptionError:
    """Return the error that says that a fit must not mix two versions of a chunk."""
    return DataCorruptionError(
        f"{what} changed since it was first read. Start again when nothing writes to it"
    )
