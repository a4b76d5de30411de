"""Passes on this machine: segments on threads, BLAS on one thread in each."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Self, TypeVar

from threadpoolctl import ThreadpoolController

from streamreg.engines.base import fold_segment
from streamreg.kernels import serial
from streamreg.layout import Blocks, Segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.sources.dataset import BlockReader, DataSet

State = TypeVar("State")
Result = TypeVar("Result")
Item = TypeVar("Item")
Made = TypeVar("Made")


class _StoppedError(Exception):
    """Another thread failed, or the user interrupted: this one gives up."""


class ThreadsEngine:
    """Runs passes over one data set; use it as a context manager.

    Segments are folded by threads and merged in their order, so that the number of threads changes
    no bit. A state too large for one copy a thread is kept once, and threads share each update.

    Parameters
    ----------
    dataset
        The rows.
    n_threads
        Threads that fold.
    on_rows
        Told the rows of each block that is done, from any thread, for progress.
    """

    def __init__(
        self, dataset: DataSet, n_threads: int, on_rows: Callable[[int], None] | None = None
    ) -> None:
        self._dataset = dataset
        self._n_threads = n_threads
        self._on_rows = on_rows
        self._blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
        self._readers: SimpleQueue[BlockReader] = SimpleQueue()
        self._opened: list[BlockReader] = []
        self._opening = threading.Lock()
        self._stop = threading.Event()
        self.n_omitted = 0

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="streamreg")
        # two threads with BLAS on two each are slower than two with BLAS on one, 3 to 8 times
        self._blas = ThreadpoolController().limit(limits=1, user_api="blas")
        self._blas.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._blas.__exit__(kind, error, traceback)
        for reader in self._opened:
            reader.close()

    @property
    def has_inexact_integers(self) -> bool:
        """Whether an integer was read that float64 cannot hold."""
        return any(reader.has_inexact_integers for reader in self._opened)

    def reduce(self, accumulator: Accumulator[State, Result]) -> Result:
        """Run one pass and return the accumulator's statistic.

        Raises
        ------
        InputError, DataCorruptionError
            See :func:`streamreg.engines.base.fold_segment`.
        """
        pass_nbytes = self._dataset.n_rows * self._dataset.row_nbytes
        segments = Segments.of(len(self._blocks), pass_nbytes, accumulator.state_nbytes)
        if len(segments) == 1:
            merged = self._fold(accumulator, segments[0], parallel=self._share)
        else:
            merged = accumulator.zero()
            for state in self._in_order(
                segments, lambda segment: self._fold(accumulator, segment)
            ):
                merged = accumulator.merge(merged, state)
        self.n_omitted = sum(reader.restart() for reader in self._opened)
        return accumulator.finalize(merged)

    def each_block(self, make: Callable[[Block], Made]) -> Iterator[Made]:
        """Yield ``make(block)`` of every block, in order; threads work a few blocks ahead."""

        def run(number: int) -> Made:
            reader = self._take_reader()
            try:
                start, stop = self._blocks[number]
                made = make(reader.read(start, stop))
                self._tell(stop - start)
                return made
            finally:
                self._readers.put(reader)

        return self._in_order(range(len(self._blocks)), run)

    def not_finite(self, row: int) -> Exception | None:
        """Return the error that names the NaN or inf in the block of ``row``, if there is one."""
        reader = self._take_reader()
        for start, stop in self._blocks:
            if start <= row < stop:
                return reader.not_finite(start, stop)
        return None

    def _fold(
        self,
        accumulator: Accumulator[State, Result],
        segment: range,
        parallel: Callable[[Callable[[int], None], int], None] = serial,
    ) -> State:
        reader = self._take_reader()
        try:
            return fold_segment(
                reader, accumulator, (self._blocks[i] for i in segment), parallel, self._tell
            )
        finally:
            self._readers.put(reader)

    def _in_order(self, items: Iterable[Item], run: Callable[[Item], Made]) -> Iterator[Made]:
        """Yield ``run(item)`` in order, with at most one more under way than there are threads."""
        if self._n_threads == 1:
            yield from map(run, items)
            return
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                if len(waiting) > self._n_threads:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(run, item))
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            self._stop.set()
            for future in waiting:
                future.cancel()
            raise

    def _share(self, task: Callable[[int], None], count: int) -> None:
        """Run the parts of an update on the pool's threads."""
        if count == 1 or self._n_threads == 1:
            serial(task, count)
            return
        for done in [self._pool.submit(task, number) for number in range(count)]:
            done.result()

    def _take_reader(self) -> BlockReader:
        with suppress(Empty):
            return self._readers.get_nowait()
        with self._opening:
            reader = self._dataset.open()
            self._opened.append(reader)
        return reader

    def _tell(self, rows: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        if self._on_rows is not None:
            self._on_rows(rows)
