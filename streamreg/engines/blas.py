"""BLAS on one thread while any pass of this process runs; all threads while a solver works."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from threadpoolctl import OpenBLASController, ThreadpoolController, threadpool_info

# from this number of columns on, several threads compute a Cholesky factor faster than one
_THREADS_PAY_FROM = 4096


class _OneThread(AbstractContextManager[None]):
    """Counts the running passes, because the setting is one for all threads of the process.

    Without the count, the first of two passes to end would lift the limit of the other, and the
    second would leave BLAS at one thread permanently.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._before: dict[str, tuple[Any, int]] = {}
        self._libraries: list[Any] = []
        self._n_modules = 0

    def __enter__(self) -> None:
        with self._lock:
            self._holders += 1
            # a search for libraries takes 2 ms; new ones appear only with new modules
            if self._n_modules != len(sys.modules):
                controller = ThreadpoolController().select(user_api="blas")
                self._libraries, self._n_modules = controller.lib_controllers, len(sys.modules)
            for library in self._libraries:
                # a library that was loaded after another pass began is limited now
                if library.filepath not in self._before:
                    self._before[library.filepath] = (library, library.num_threads)
                    _set_threads(library, 1)

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                for library, n_threads in self._before.values():
                    _set_threads(library, n_threads)
                self._before.clear()


def _set_threads(library: Any, n_threads: int) -> None:  # noqa: ANN401  (it publishes no types)
    # threadpoolctl lets one thread at a time set OpenBLAS and silently ignores the others: fits in
    # several threads would not limit it, or leave it at one thread permanently
    if not isinstance(library, OpenBLASController):
        library.set_num_threads(n_threads)
        return
    library.clear_controlling_thread(force=True)
    library.set_num_threads(n_threads)
    library.clear_controlling_thread(force=True)


_ONE_THREAD = _OneThread()


def one_blas_thread() -> AbstractContextManager[None]:
    """Keep BLAS on one thread: with two each, two threads of a pass are 3 to 8 times slower.

    It also keeps the order of BLAS's sums independent of the number of processors.
    """
    return _ONE_THREAD


def blas_threads_of_solver(n_features: int) -> AbstractContextManager[None]:
    """Return the setting of BLAS while a solver works between passes: all threads, if that pays.

    With few columns one thread is as fast, and last bits do not depend on the number of processors.
    """
    return nullcontext() if n_features >= _THREADS_PAY_FROM else one_blas_thread()


def blas_architecture() -> str:
    """Return the processor that BLAS's kernels are for; other kernels may give other last bits."""
    kinds = {
        str(each.get("architecture")) for each in threadpool_info() if each["user_api"] == "blas"
    }
    return ", ".join(sorted(kinds))
