"""Passes on this machine: threads reduce segments, each with BLAS on one thread."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.engines.base import Engine, PartialResult
from streamreg.engines.blas import blas_architecture, one_blas_thread
from streamreg.engines.block_cache import BlockCache, CachingReader
from streamreg.engines.partition import HOST, PartitionPolicy
from streamreg.engines.reader_pool import ReaderPool
from streamreg.kernels.base import Parallel
from streamreg.kernels.registry import best_kernels, load_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.base import OnPartial, Pass, Task
    from streamreg.kernels.base import KernelSet
    from streamreg.sources.dataset import Dataset


class ThreadsEngine(Engine):
    """Runs passes on threads of this process; with one thread, on the caller's.

    Threads reduce segments, which are merged in order: the number of threads changes no bit. If
    one copy of the state per thread is too large, one copy is kept, and threads share each update.
    Decoded blocks that fit in ``cache_nbytes`` stay in memory between passes.
    """

    def __init__(
        self,
        dataset: Dataset,
        n_threads: int,
        on_rows: Callable[[int], None] = lambda _: None,
        *,
        kernels: str | None = None,
        cache_nbytes: int = 0,
        policy: PartitionPolicy = HOST,
    ) -> None:
        super().__init__(dataset, on_rows, policy)
        self._kernels = load_kernels(kernels or best_kernels())
        cache = BlockCache(dataset, self.blocks, cache_nbytes)
        open_reader = partial(CachingReader, cache=cache)
        self._pool = ReaderPool(dataset, self.blocks, n_threads, on_rows, open_reader)

    def _begin(self, stack: ExitStack) -> None:
        stack.enter_context(self._pool)

    def _run_pass(self, work: Pass) -> PartialResult:
        self._report_rows_before(work.start.n_blocks)
        if len(work.segments) == 1:
            # the plan counts the buffers of one reader for such a pass
            self._pool.close_readers(keep=1)
            rest = range(work.start.n_blocks, len(self.blocks))
            kernels = self._kernels
            if self._pool.n_threads > 1:
                kernels = kernels.shared_by(Parallel(self._pool.share, n_tiles=2))
            return self._reduce(work.accumulator, work.start, rest, kernels, work.on_partial)

        def run(segment: range) -> PartialResult:
            nothing = PartialResult(work.accumulator.zero())
            return self._reduce(work.accumulator, nothing, segment, self._kernels)

        if work.on_partial is None:
            return self._pool.merge(run, work.rest(), work.merge, work.start)
        with closing(self._pool.in_order(run, work.rest())) as partials:
            return work.merge_in_order(partials)

    def release(self) -> None:
        self._pool.close_readers()

    def run_task(self, task: Task) -> Iterator[PartialResult]:
        """Yield the partial result of each segment of a task."""
        self.checks_integers = task.checks_integers
        accumulator, start, part = task.accumulator, task.start, task.part
        kernels = self._kernels
        if part is not None:
            kernels = kernels.shared_by(Parallel(partial(_run_some, part)))
        for segment in task.segments:
            # update a copy, because ``start`` belongs to a task that may run again
            if start is None:
                own = PartialResult(accumulator.zero())
            elif part is None:
                own = start.copied()
            else:
                own = start._replace(state=accumulator.joined([(part, start.state)]))
            done = self._reduce(accumulator, own, segment, kernels)
            if part is not None:
                done = done._replace(state=accumulator.part(done.state, part))
            yield done

    def _reduce(
        self,
        accumulator: Accumulator[Any, Any],
        done: PartialResult,
        segment: range,
        kernels: KernelSet,
        on_partial: OnPartial | None = None,
    ) -> PartialResult:
        """Add blocks to the partial result ``done``, whose state is written to, and return it."""
        has_overflowed = False
        # sums may overflow before it is known whether NaN, inf or large values are the cause
        with self._pool.reader() as reader, np.errstate(all="ignore"):
            reader.checks_integers = self.checks_integers
            for number in segment:
                first, stop = self.blocks[number]
                omitted_before = reader.n_omitted
                block = reader.read(first, stop, in_files=accumulator.reads_tiles)
                if number + 1 in segment:
                    reader.prefetch(*self.blocks[number + 1])
                if block.n_rows:
                    state = accumulator.update(done.state, block, kernels.for_block(block))
                    done = done._replace(state=state)
                    # sums that overflowed stay infinite: from then on, check the rows in memory
                    is_suspect = not accumulator.is_finite(state)
                    if is_suspect and not (has_overflowed and block.is_finite()):
                        error = reader.not_finite(first, stop)
                        if error is not None:
                            raise error
                        has_overflowed = True
                done = done.with_block(block, reader.n_omitted - omitted_before, reader.rounded)
                # released before the next read, because some readers allocate a new array for it
                del block
                self._pool.report(stop - first)
                if on_partial is not None:
                    on_partial(done)
        return done


@dataclass(frozen=True)
class ThreadsReducer:
    """Reduces segments on the calling thread of a cluster's worker, with one reader."""

    kernels: str
    policy: PartitionPolicy = HOST
    uses_blas: bool = True

    def reduce(self, task: Task) -> list[PartialResult]:
        engine = ThreadsEngine(task.dataset, 1, kernels=self.kernels, policy=self.policy)
        with one_blas_thread(), engine:
            return list(engine.run_task(task))

    def describe_processor(self) -> str:
        """Return the name of the kernels, or the processor BLAS detected if it makes the sums."""
        load_kernels(self.kernels)
        return blas_architecture() if self.uses_blas else self.kernels


def _run_some(
    part: range, task: Callable[[int], None], count: int, prepare: Callable[[], None]
) -> None:
    """Run the tasks of some parts of a state, then ``prepare()``."""
    for number in part:
        if number < count:
            task(number)
    prepare()
