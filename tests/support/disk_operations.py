"""Operations that write to the disk, each announced before it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def announce(patch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    """Call ``before`` whenever a file is opened to be written, written, synced or renamed.

    ``before`` may raise an error, or kill the process: the operation does not run then.
    """
    real_open, real_replace = Path.open, Path.replace

    class File:
        def __init__(self, file):
            self._file = file

        def __getattr__(self, name):
            return getattr(self._file, name)

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self._file.close()

        def write(self, content):
            before()
            return self._file.write(content)

    def open_(path, mode="r", *args, **options):
        if "w" not in mode:
            return real_open(path, mode, *args, **options)
        before()
        return File(real_open(path, mode, *args, **options))

    def replace(path, target):
        before()
        return real_replace(path, target)

    def fsync(file):
        before()
        # the disk is not waited for, because no test cuts the power
        os.fstat(file)

    patch.setattr(Path, "open", open_)
    patch.setattr(Path, "replace", replace)
    patch.setattr(os, "fsync", fsync)
