"""Whether the metadata of an array has changed since it was opened."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from streamreg.errors import DataCorruptionError, InputError

if TYPE_CHECKING:
    from pathlib import Path


class ArrayMetadata:
    """The metadata document of an array in a local folder, as it was when the array was opened."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._name = name
        version_2 = folder / ".zarray"
        self._file = version_2 if version_2.exists() else folder / "zarr.json"
        self._stamp = self._stat()
        self._content = self._read()

    def require_exists(self) -> None:
        """Raise if this process cannot find the array, which another process opened."""
        try:
            self._file.read_bytes()
        except OSError as error:
            raise InputError(f"{str(self._file)!r}: {error.strerror}") from error

    def require_unchanged(self) -> None:
        """Raise if the array was resized or rewritten since it was opened."""
        stamp = self._stat()
        if stamp != self._stamp and self._read() != self._content:
            raise DataCorruptionError(
                f"{self._name} changed during the fit: it was resized, or rewritten. "
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
            content.pop("attributes", None)  # these may change
        return content
