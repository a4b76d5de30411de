"""BLAS on one thread for as long as any pass of this process runs."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from threadpoolctl import OpenBLASController, ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Limit:
    """Counts the fits that run, since the setting is one for all threads of the process.

    Without the count, the first of two fits to end would give the other its threads back, and the
    second would leave BLAS at one thread for ever.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._before: dict[str, tuple[Any, int]] = {}
        self._libraries: list[Any] = []
        self._n_modules = 0

    def take(self) -> None:
        """Set every BLAS library that is loaded to one thread."""
        with self._lock:
            self._holders += 1
            # looking for libraries takes 2 ms; there are new ones only where modules are new
            if self._n_modules != len(sys.modules):
                controller = ThreadpoolController().select(user_api="blas")
                self._libraries, self._n_modules = controller.lib_controllers, len(sys.modules)
            for library in self._libraries:
                # one loaded since another fit began is limited now
                if library.filepath not in self._before:
                    self._before[library.filepath] = (library, library.num_threads)
                    _set_threads(library, 1)

    def give_back(self) -> None:
        """Set them to what they were, if no other fit runs."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                for library, n_threads in self._before.values():
                    _set_threads(library, n_threads)
                self._before.clear()


def _set_threads(library: Any, n_threads: int) -> None:  # noqa: ANN401  (it publishes no types)
    # threadpoolctl lets one thread at a time set OpenBLAS, and passes over others in silence: who
    # fits in several threads would leave it as it is, or leave it at one for ever
    if not isinstance(library, OpenBLASController):
        library.set_num_threads(n_threads)
        return
    library.clear_controlling_thread(force=True)
    library.set_num_threads(n_threads)
    library.clear_controlling_thread(force=True)


_LIMIT = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep BLAS on one thread: two threads with two each are slower than two with one, 3-8 times.

    It also keeps BLAS's sums in one order, whatever the number of processors.
    """
    _LIMIT.take()
    try:
        yield
    finally:
        _LIMIT.give_back()
