"""How many files the readers of this process keep open for kernels, within the system's limit."""

from __future__ import annotations

import errno
import resource
from threading import Lock

# the most files that a reader keeps open, for the chunks of one block
_MOST_OF_A_READER = 64
# of the files that a process may open, the part that all readers together keep open
_SHARE = 4

_lock = Lock()
_n_kept = 0


def is_exhausted(error: BaseException | None) -> bool:
    """Whether the process, or the system, has too many open files."""
    return isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}


def cure_of(error: BaseException) -> str:
    """Return what lets a sound file be opened; an empty text if the file may be damaged."""
    if is_exhausted(error):
        return "Raise the limit of open files (ulimit -n), or lower n_threads"
    return "Give this user the right to read it" if isinstance(error, PermissionError) else ""


class Allowance:
    """The files that one reader may keep open."""

    def __init__(self) -> None:
        self._n_files = 0

    def resize(self, n_files: int) -> bool:
        """Allow this number of files instead of the last; return false if the limit is reached."""
        global _n_kept  # noqa: PLW0603  (the limit is the process's)
        if n_files == self._n_files:
            return True
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        with _lock:
            added = n_files - self._n_files
            most = soft // _SHARE if soft != resource.RLIM_INFINITY else _n_kept + added
            if n_files > _MOST_OF_A_READER or (added > 0 and _n_kept + added > most):
                return False
            _n_kept += added
            self._n_files = n_files
        return True
