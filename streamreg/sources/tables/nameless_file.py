"""A temporary file that is gone once nobody uses it."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

from streamreg.errors import InputError


class NamelessFile:
    """A temporary file without a name in its folder, closed when nobody uses it any more."""

    def __init__(self, folder: Path | None) -> None:
        try:
            descriptor, name = tempfile.mkstemp(prefix="streamreg-", dir=folder)
        except OSError as error:
            raise InputError(
                f"no temporary file can be made in {folder or tempfile.gettempdir()}: "
                f"{error.strerror}; set TMPDIR to another folder"
            ) from error
        self.path = Path(f"/dev/fd/{descriptor}")
        weakref.finalize(self, os.close, descriptor)
        Path(name).unlink()
