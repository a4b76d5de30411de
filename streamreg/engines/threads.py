"""Passes on this machine: segments on threads, BLAS on one thread in each."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from streamreg.engines.base import Engine, PartialResult, merged_in_order, reduce_segment
from streamreg.engines.blas import one_blas_thread
from streamreg.engines.block_cache import BlockCache, CachingReader
from streamreg.engines.partition import Blocks
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels import serial

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Iterator

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.engines.base import OnPartial
    from streamreg.engines.partition import Segments
    from streamreg.errors import InputError
    from streamreg.kernels import Kernels
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

Item = TypeVar("Item")
Made = TypeVar("Made")


class _StoppedError(Exception):
    """Another thread failed, or the user interrupted: this one gives up."""


class ThreadsEngine(Engine):
    """Runs passes on threads of this process.

    Segments are folded by threads and merged in their order, so that the number of threads changes
    no bit. A state too large for one copy a thread is kept once, and threads share each update.
    Where one fails, the others stop after the block at which they are.

    Parameters
    ----------
    dataset, on_rows
        As of every :class:`Engine`.
    n_threads
        Threads that fold; with 1 all is done by the caller's own.
    kernels
        The loops that fold a block.
    cache_nbytes
        Room for blocks that stay in memory from one pass to the next.
    blocks
        How rows are cut, if not as usual.
    """

    def __init__(
        self,
        dataset: Dataset,
        n_threads: int,
        on_rows: Callable[[int], None] = lambda _: None,
        kernels: Kernels = numpy_kernels.KERNELS,
        cache_nbytes: int = 0,
        blocks: Blocks | None = None,
    ) -> None:
        blocks = blocks or Blocks.of(dataset.X.grid, dataset.row_nbytes)
        super().__init__(dataset, blocks, on_rows)
        self._n_threads = n_threads
        self._kernels = kernels
        self._open: Callable[[], BlockReader] = dataset.open
        if cache_nbytes:
            kept = BlockCache(dataset, self._blocks, cache_nbytes)
            self._open = partial(CachingReader, dataset, kept)
        self._idle: list[BlockReader] = []
        self._lending = threading.Lock()
        self._stop = threading.Event()

    def _begin(self, stack: ExitStack) -> None:
        stack.enter_context(one_blas_thread())
        stack.callback(self._close_readers)
        self._pool = ThreadPoolExecutor(self._n_threads, thread_name_prefix="streamreg")
        stack.callback(self._pool.shutdown, wait=True, cancel_futures=True)
        stack.callback(self._stop.set)

    def _folded(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        self._tell_earlier(start.n_blocks)
        if len(segments) == 1:
            # the plan counts one reader's buffers for a pass that is read by one thread
            self._close_readers(keep=1)
            shared = self._kernels._replace(parallel=self._share)
            rest = range(start.n_blocks, len(self._blocks))
            return self._fold(accumulator, start, shared, rest, on_partial)

        def fold(segment: range) -> PartialResult:
            nothing = PartialResult.nothing(accumulator)
            return self._fold(accumulator, nothing, self._kernels, segment)

        with closing(self._in_order(segments.after(start.n_blocks), fold)) as states:
            return merged_in_order(accumulator, start, states, on_partial)

    def each_block(
        self, make: Callable[[BlockReader, Block], Made], done: int = 0
    ) -> Iterator[Made]:
        """Yield ``make(reader, block)`` of every block, in order; threads work a few ahead.

        Blocks of which all rows are ``done`` are left out.
        """
        first = len(self._blocks) if done == self._dataset.n_rows else self._blocks.number_at(done)
        self._tell_earlier(first)

        def read(reader: BlockReader, start: int, stop: int) -> Made:
            return make(reader, reader.read(start, stop))

        return self.each_of(range(first, len(self._blocks)), read)

    def each_of(
        self,
        numbers: Iterable[int],
        read: Callable[[BlockReader, int, int], Made],
        *,
        apart: bool = False,
    ) -> Generator[Made, None, None]:
        """Yield ``read(reader, start, stop)`` of some blocks, in order.

        Where it is ``apart``, a single thread is not the caller's own either.
        """

        def run(number: int) -> Made:
            with self._reader() as reader:
                start, stop = self._blocks[number]
                made = read(reader, start, stop)
                self._tell(stop - start)
                return made

        return self._in_order(numbers, run, apart=apart)

    def not_finite(self, numbers: Iterable[int]) -> InputError | None:
        """Return the error that names the first NaN or inf of some blocks, if there is any."""
        with self._reader() as reader:
            errors = (reader.not_finite(*self._blocks[number]) for number in numbers)
            return next((error for error in errors if error is not None), None)

    def _fold(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        kernels: Kernels,
        segment: range,
        on_partial: OnPartial | None = None,
    ) -> PartialResult:
        with self._reader() as reader:
            blocks = (self._blocks[number] for number in segment)
            return reduce_segment(
                reader, accumulator, start, blocks, kernels, self._tell, on_partial
            )

    def _in_order(
        self, items: Iterable[Item], run: Callable[[Item], Made], *, apart: bool = False
    ) -> Generator[Made, None, None]:
        """Yield ``run(item)`` in order, with at most one more under way than there are threads."""
        if self._n_threads == 1 and not apart:
            yield from map(run, items)
            return
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                if len(waiting) > self._n_threads:
                    yield waiting.popleft().result()
                waiting.append(self._pool.submit(self._stopping_all, run, item))
            while waiting:
                yield waiting.popleft().result()
        except _StoppedError:
            raise self._first_error(waiting) from None
        finally:
            self._cancel(waiting)

    def _share(self, task: Callable[[int], None], count: int) -> None:
        """Run the parts of an update on the pool's threads."""
        if count == 1 or self._n_threads == 1:
            serial(task, count)
            return
        waiting = deque(self._pool.submit(task, number) for number in range(count))
        try:
            while waiting:
                waiting.popleft().result()
        finally:
            self._cancel(waiting)

    def _stopping_all(self, run: Callable[[Item], Made], item: Item) -> Made:
        """Return ``run(item)``; if it fails, no other thread begins another block."""
        try:
            return run(item)
        except BaseException:
            self._stop.set()
            raise

    def _first_error(self, waiting: Iterable[Future[Made]]) -> BaseException:
        """Return why a thread was told to stop: of several errors that of the first segment."""
        errors = (future.exception() for future in waiting if not future.cancel())
        return next(error for error in errors if error and not isinstance(error, _StoppedError))

    def _cancel(self, waiting: Collection[Future[Made]]) -> None:
        """Stop what is under way, where a pass does not end well; else nothing is."""
        if waiting:
            self._stop.set()
        for future in waiting:
            future.cancel()

    @contextmanager
    def _reader(self) -> Iterator[BlockReader]:
        """Lend a reader to one thread; there are never more than threads."""
        with self._lending:
            reader = self._idle.pop() if self._idle else self._open()
        try:
            yield reader
        finally:
            with self._lending:
                self._idle.append(reader)

    def _close_readers(self, *, keep: int = 0) -> None:
        with ExitStack() as stack:  # closes all, whichever fails
            while len(self._idle) > keep:
                stack.callback(self._idle.pop().close)

    def _tell_earlier(self, n_blocks: int) -> None:
        if n_blocks:
            _, rows = self._blocks[n_blocks - 1]
            self._tell(rows)

    def _tell(self, rows: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self._on_rows(rows)
