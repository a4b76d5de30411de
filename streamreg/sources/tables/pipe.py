"""Tables that a pipe delivers."""

from __future__ import annotations

import os
import select
import shutil
import stat
import tempfile
from pathlib import Path

from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.sources.tables.nameless_file import NamelessFile

_COPY_NBYTES = MIB
_PIPE_SECONDS = 5


def copy_of_pipe(path: str) -> NamelessFile:
    """Copy what a pipe or a device delivers to a temporary file, because it is read twice."""
    if not stat.S_ISFIFO(Path(path).stat().st_mode):
        raise InputError(f"{path} is neither a file nor a folder nor a pipe")
    copy = NamelessFile(None)
    try:
        # a pipe that nobody writes to would block for ever
        pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(pipe, "rb") as source, copy.path.open("wb") as sink:
            is_written = bool(select.select([source], [], [], _PIPE_SECONDS)[0])
            os.set_blocking(pipe, True)
            if is_written:
                shutil.copyfileobj(source, sink, _COPY_NBYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be copied to {tempfile.gettempdir()}: {error.strerror}"
        ) from error
    if not is_written:
        raise InputError(f"nobody wrote to the pipe {path} within {_PIPE_SECONDS} s")
    return copy
