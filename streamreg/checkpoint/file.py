"""A checkpoint file: written atomically, with the previous one kept, for one fit at a time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from streamreg.errors import CheckpointError, InputError, warn
from streamreg.output.archive import Archive, NotAnArchiveError, Stored, write_archive
from streamreg.output.atomic import atomic_write, require_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamreg.blocks import Array

_FORMAT, _VERSION = "streamreg-checkpoint", 2
# between two saves: at least this time, and at least this multiple of the time of the last save
INTERVAL_SECONDS = 5.0
_LEAST_MULTIPLE = 20


class CheckpointFile:
    """The last checkpoint of a fit, at ``path``.

    The one before it is at ``<path>.previous``. ``<path>.lock`` keeps other fits out.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any]) -> None:
        self.path = Path(os.path.realpath(path))
        self.name = f"checkpoint {str(self.path)!r}"
        self.previous = self.path.with_name(f"{self.path.name}.previous")
        self._lock = FileLock(f"{self.path}.lock", timeout=0)
        # all that the answer depends on; tuples become lists, as in the file
        self.identity = json.loads(json.dumps(identity))
        self._archive: Archive | None = None
        self._is_damaged = False
        self._due = time.monotonic() + INTERVAL_SECONDS
        self.header: dict[str, Any] = {}  # of the last checkpoint, if there is one
        self.failure = ""  # why the last attempt to save failed, if it did

    @property
    def is_due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._due

    def open(self) -> None:
        """Lock out other fits, and open the last checkpoint that is whole, if there is any.

        ``InputError``: nothing can be written to the path, or another fit uses it.
        ``CheckpointError``: the file is damaged, not a checkpoint, or of another format version.
        """
        if self.path.is_dir():
            raise InputError(f"{self.name} is a folder; pass the path of a file")
        require_folder(self.path, self.name)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.name} is in use by another fit, which holds {self._lock.lock_file!r}; wait "
                "for it to end, or pass another path"
            ) from None
        except OSError as error:
            raise InputError(f"{self.name} cannot be used: {error.strerror}") from error
        try:
            self._archive = self._last_whole()
            if self._archive is not None:
                self.header = self._archive.header
                self._require_format()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and release its lock."""
        if self._archive is not None:
            self._archive.close()
        self._lock.release()

    def save(self, header: Mapping[str, Any], arrays: Mapping[str, Array | Stored]) -> bool:
        """Replace the file; if that fails, warn, keep the old one, and return ``False``."""
        began = time.monotonic()
        own = {"format": _FORMAT, "version": _VERSION, "identity": self.identity}
        partial = self.path.with_name(f"{self.path.name}.partial")
        # a damaged file must not replace a whole one
        previous = None if self._is_damaged else self.previous
        try:
            with atomic_write(partial, self.path, previous) as file:
                write_archive(file, own | dict(header), arrays)
            reopened = Archive(self.path)
        except OSError as error:
            self._warn(error)
            return False
        finally:
            took = time.monotonic() - began
            self._due = time.monotonic() + max(INTERVAL_SECONDS, _LEAST_MULTIPLE * took)
        if self._archive is not None:
            self._archive.close()
        self._archive, self.header, self.failure = reopened, reopened.header, ""
        self._is_damaged = False
        return True

    def read(self, name: str, like: Array, *, grows: bool = False) -> Array:
        """Return an array of the last checkpoint; its dtype and shape must be those of ``like``.

        If ``grows``, its length may differ.
        """
        try:
            array = self._opened.read(name)
        except NotAnArchiveError as error:
            raise self.damaged(str(error)) from error
        shape = array.shape[:1] + like.shape[1:] if grows else like.shape
        if array.dtype != like.dtype or array.shape != shape:
            raise self.damaged(
                f"{name} is {array.dtype} {array.shape}, not {like.dtype} {like.shape}"
            )
        return array

    def stored(self, name: str) -> Stored:
        """Return an array of the last checkpoint without reading it."""
        return self._opened.stored(name)

    @property
    def _opened(self) -> Archive:
        if self._archive is None:
            raise self.damaged("it holds nothing")
        return self._archive

    def damaged(self, how: str) -> CheckpointError:
        """Return the error that the checkpoint is damaged."""
        return CheckpointError(
            f"{self.name} is damaged: {how}. Remove it and "
            f"{self.previous.name!r} to start over; if it is no checkpoint, pass another path"
        )

    def _last_whole(self) -> Archive | None:
        damages = []
        for path in (self.path, self.previous):
            try:
                archive = Archive(path, checks_all=True)
            except FileNotFoundError:
                continue
            except (OSError, NotAnArchiveError) as damage:
                damages.append(str(damage))
                continue
            if damages:
                self._is_damaged = True
                warn(
                    f"{self.name} is damaged ({damages[0]}); the fit resumes "
                    f"from the previous one, {path.name!r}"
                )
            return archive
        if damages:
            raise self.damaged(" and ".join(damages))
        return None

    def _require_format(self) -> None:
        header = self.header
        if header.get("format") != _FORMAT:
            raise CheckpointError(
                f"{str(self.path)!r} is not a checkpoint of streamreg: its format is "
                f"{header.get('format')!r}. Pass another path"
            )
        if header.get("version") != _VERSION:
            raise CheckpointError(
                f"{self.name} has format version {header.get('version')!r}, and "
                f"this version of streamreg reads {_VERSION}. Resume with the version that wrote "
                f"it, or remove it and {self.previous.name!r} to start over"
            )

    def _warn(self, error: OSError) -> None:
        left = "the previous one is kept" if self.header else "none was saved before"
        if not self.failure:
            warn(
                f"{self.name} cannot be written: {error.strerror}; {left}, and "
                "the fit continues. Free space on its disk, or stop the fit and pass another path"
            )
        self.failure = str(error.strerror)
