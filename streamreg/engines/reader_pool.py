"""N readers on N threads; results come in order, and a failed pass leaves no trace."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Self, TypeVar

from streamreg.engines.merging import Merging
from streamreg.engines.thread_task import ThreadTask
from streamreg.sources.block_reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator

    from streamreg.engines.partition import Blocks
    from streamreg.errors import InputError
    from streamreg.sources.dataset import Dataset

Item = TypeVar("Item")
Made = TypeVar("Made")


class _StoppedError(Exception):
    """Another thread failed, or the user interrupted: this thread gives up."""


class ReaderPool:
    """Reads the blocks of a data set on threads; use it as a context manager.

    If a thread fails, the others stop after their present block, and the next pass can run. If
    ``n_threads`` is 1, the caller's thread reads. Each reader is used by one thread at a time.
    ``on_rows`` is called, from any thread, with the number of rows just done, for progress.
    """

    def __init__(
        self,
        dataset: Dataset,
        blocks: Blocks,
        n_threads: int,
        on_rows: Callable[[int], None],
        open_reader: Callable[[Dataset], BlockReader] = BlockReader,
    ) -> None:
        self._dataset = dataset
        self._blocks = blocks
        self.n_threads = n_threads
        self._on_rows = on_rows
        self._open_reader = open_reader
        self._idle: list[BlockReader] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        self._stop.clear()
        self._threads = ThreadPoolExecutor(self.n_threads, thread_name_prefix="streamreg")
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.close_readers()

    def read_in_order(
        self,
        numbers: Iterable[int],
        read: Callable[[BlockReader, int, int], Made],
        *,
        in_background: bool = False,
    ) -> Generator[Made, None, None]:
        """Yield ``read(reader, start, stop)`` of some blocks, in order.

        With ``in_background`` the caller's thread never reads, even if ``n_threads`` is 1.
        """

        def run(number: int) -> Made:
            start, stop = self._blocks[number]
            with self.reader() as reader:
                made = read(reader, start, stop)
                self.report(stop - start)
                return made

        return self.in_order(run, numbers, in_background=in_background)

    def in_order(
        self, run: Callable[[Item], Made], items: Iterable[Item], *, in_background: bool = False
    ) -> Generator[Made, None, None]:
        """Yield ``run(item)`` in order; at most ``n_threads + 1`` items are in progress."""
        if self.n_threads == 1 and not in_background:
            yield from map(run, items)
            return
        running: deque[ThreadTask[Made]] = deque()
        try:
            for item in items:
                if len(running) > self.n_threads:
                    yield running.popleft().result()
                running.append(self._task(partial(run, item)))
            while running:
                yield running.popleft().result()
        except _StoppedError as stopped:
            raise (self._first_error(running) or stopped) from None
        finally:
            self._stop_all(running)

    def merge(
        self,
        run: Callable[[Item], Made],
        items: Iterable[Item],
        merge: Callable[[Made, Made], Made],
        start: Made,
    ) -> Made:
        """Merge ``run(item)`` into ``start`` in order, as :meth:`in_order` does, on the threads."""
        merging = Merging(run, items, merge, start, self.n_threads + 1)
        if self.n_threads == 1:
            merging.work()
            return merging.result
        running: list[ThreadTask[None]] = []
        try:
            running += (self._task(merging.work) for _ in range(self.n_threads))
            for task in running:
                task.wait()
        finally:
            self._stop_all(running)
        if merging.errors:
            errors = [error for error in merging.errors if not isinstance(error[1], _StoppedError)]
            # of several, the error of the first item
            raise min(errors or merging.errors, key=itemgetter(0))[1]
        return merging.result

    def share(self, task: Callable[[int], None], count: int, prepare: Callable[[], None]) -> None:
        """Run ``task(0) … task(count - 1)`` on the threads, and ``prepare()`` beside them."""
        running: list[ThreadTask[None]] = []
        try:
            running.append(ThreadTask(self._threads, prepare))
            running += (ThreadTask(self._threads, partial(task, number)) for number in range(count))
            for each in running:
                each.result()
        finally:
            self._stop_all(running)

    def not_finite(self, numbers: Iterable[int]) -> InputError | None:
        """Return the error that names the first NaN or inf of some blocks, if there is any."""
        with self.reader() as reader:
            errors = (reader.not_finite(*self._blocks[number]) for number in numbers)
            return next((error for error in errors if error is not None), None)

    @contextmanager
    def reader(self) -> Iterator[BlockReader]:
        """Lend a reader to one thread; there are never more readers than threads."""
        with self._lock:
            reader = self._idle.pop() if self._idle else self._open_reader(self._dataset)
        try:
            yield reader
        finally:
            with self._lock:
                self._idle.append(reader)

    def close_readers(self, *, keep: int = 0) -> None:
        """Close all idle readers but ``keep``."""
        with ExitStack() as stack:  # closes all, even if one fails
            while len(self._idle) > keep:
                stack.callback(self._idle.pop().close)

    def report(self, n_rows: int) -> None:
        """Report rows that are done; end this thread's work if another thread failed."""
        if self._stop.is_set():
            raise _StoppedError
        self._on_rows(n_rows)

    def _task(self, run: Callable[[], Made]) -> ThreadTask[Made]:
        """Run on a thread; the others stop if it fails."""

        def stop_others_on_failure() -> Made:
            try:
                return run()
            except BaseException:
                self._stop.set()
                raise

        return ThreadTask(self._threads, stop_others_on_failure)

    def _first_error(self, running: Iterable[ThreadTask[Made]]) -> BaseException | None:
        """Return the error that stopped the threads; of several, the error of the first item."""
        errors = (task.error() for task in running if not task.cancel())
        found = (error for error in errors if error and not isinstance(error, _StoppedError))
        return next(found, None)

    def _stop_all(self, running: Iterable[ThreadTask[Made]]) -> None:
        """Stop what still runs if a pass failed or was abandoned, and reset for the next pass."""
        unfinished = [task for task in running if not task.cancel()]
        if unfinished:
            self._stop.set()
            for task in unfinished:
                task.wait()
        self._stop.clear()
