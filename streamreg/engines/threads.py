"""Passes on this machine: segments on threads, BLAS on one thread in each of them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from streamreg.engines.base import Engine, PartialResult, merge_in_order, reduce_segment
from streamreg.engines.blas import blas_architecture, one_blas_thread
from streamreg.engines.block_cache import BlockCache, CachingReader
from streamreg.engines.partition import HOST, Blocks, PartitionPolicy
from streamreg.engines.reader_pool import ReaderPool
from streamreg.kernels.registry import load_kernels
from streamreg.sources.block_reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.base import OnPartial
    from streamreg.engines.partition import Segments
    from streamreg.kernels.base import KernelSet
    from streamreg.sources.dataset import Dataset


class ThreadsEngine(Engine):
    """Runs passes on threads of this process.

    Threads reduce segments, which are merged in order: the number of threads changes no bit. A
    state too large for one copy a thread is kept once, and threads share each update.

    Parameters
    ----------
    n_threads
        With 1, the caller's own thread does all.
    kernels
        The name of the kernels.
    cache_nbytes
        Bytes for decoded blocks that stay in memory between passes.
    """

    def __init__(
        self,
        dataset: Dataset,
        n_threads: int,
        on_rows: Callable[[int], None] = lambda _: None,
        *,
        kernels: str = "numpy",
        cache_nbytes: int = 0,
        policy: PartitionPolicy = HOST,
    ) -> None:
        super().__init__(dataset, on_rows, policy)
        self._kernels = load_kernels(kernels)
        open_reader: Callable[[Dataset], BlockReader] = BlockReader
        if cache_nbytes:
            open_reader = partial(
                CachingReader, cache=BlockCache(dataset, self.blocks, cache_nbytes)
            )
        self._pool = ReaderPool(dataset, self.blocks, n_threads, on_rows, open_reader)

    def _begin(self, stack: ExitStack) -> None:
        stack.enter_context(self._pool)

    def _run_pass(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        self._pool.checks_integers = self._checks_integers
        self._report_rows_before(start.n_blocks)
        if len(segments) == 1:
            # the plan counts the buffers of one reader for such a pass
            self._pool.close_readers(keep=1)
            kernels = self._kernels.shared_by(self._pool.share)
            rest = range(start.n_blocks, len(self.blocks))
            return self._reduce(accumulator, start, rest, kernels, on_partial)

        def run(segment: range) -> PartialResult:
            nothing = PartialResult(accumulator.zero())
            return self._reduce(accumulator, nothing, segment, self._kernels)

        rest_of_pass = self._pool.in_order(run, segments.after(start.n_blocks))
        with closing(rest_of_pass) as partials:
            return merge_in_order(accumulator, start, partials, on_partial)

    def _reduce(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segment: range,
        kernels: KernelSet,
        on_partial: OnPartial | None = None,
    ) -> PartialResult:
        with self._pool.reader() as reader:
            return reduce_segment(
                reader,
                accumulator,
                start,
                (self.blocks[number] for number in segment),
                kernels.for_block,
                self._pool.report,
                on_partial,
            )


@dataclass(frozen=True)
class ThreadsReducer:
    """Reduces segments on the calling thread of a cluster's worker, with one reader."""

    kernels: str
    policy: PartitionPolicy = HOST

    def reduce(
        self,
        dataset: Dataset,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        *,
        start: PartialResult | None = None,
        part: range | None = None,
        checks_integers: bool = True,
    ) -> list[PartialResult]:
        """Return the partial result of each segment, as :class:`SegmentReducer` says."""
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, self.policy)
        kernels = load_kernels(self.kernels)
        if part is not None:
            kernels = kernels.shared_by(partial(_run_some, part))
        reader = BlockReader(dataset)
        reader.checks_integers = checks_integers
        try:
            with one_blas_thread():
                partials = [
                    reduce_segment(
                        reader,
                        accumulator,
                        _writable(accumulator, start, part),
                        (blocks[number] for number in segment),
                        kernels.for_block,
                    )
                    for segment in segments
                ]
            if part is None:
                return partials
            return [each._replace(state=accumulator.part(each.state, part)) for each in partials]
        finally:
            reader.close()

    def describe_processor(self) -> str:
        """Return for which processor BLAS chose its kernels, once ours are loaded."""
        load_kernels(self.kernels)
        return blas_architecture()


def _writable(
    accumulator: Accumulator[Any, Any], start: PartialResult | None, part: range | None
) -> PartialResult:
    """Return a partial result to add to: ``start`` belongs to a task that may run again."""
    if start is None:
        return PartialResult(accumulator.zero())
    if part is None:
        return start.copied()
    return start._replace(state=accumulator.joined([(part, start.state)]))


def _run_some(part: range, task: Callable[[int], None], count: int) -> None:
    """Run the tasks of some parts of a state."""
    for number in part:
        if number < count:
            task(number)
