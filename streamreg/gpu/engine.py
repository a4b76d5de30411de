"""Passes on a GPU: threads read blocks, and one thread queues their transfer and reduction."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.engines.base import Engine, PartialResult
from streamreg.engines.reader_pool import ReaderPool
from streamreg.gpu.device import DeviceState
from streamreg.gpu.memory_model import whole_arrays
from streamreg.gpu.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.engines.base import Pass
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.gpu.device import Fetch, Gpu
    from streamreg.gpu.transfers import Slot
    from streamreg.planning.terms import DeviceNeeds
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

    # a block that a thread has read, and its counts, without a state
    Read = tuple[Slot, Block, PartialResult]


class GpuEngine(Engine):
    """Runs passes on a GPU; a pass raises :class:`MemoryLimitError` if the GPU refuses memory.

    A state is on the device while its segment is reduced, and is copied to the host while the next
    segment is reduced; large states are merged on the device. The queueing thread waits for the
    device only at the end of segments, where NaN and inf are found.

    Sums are finished after each block of Dask arrays, as on a cluster, where each block is a task:
    so both give bitwise identical results.
    """

    def __init__(
        self,
        dataset: Dataset,
        n_threads: int,
        on_rows: Callable[[int], None],
        gpu: Gpu,
        needs: DeviceNeeds,
        policy: PartitionPolicy,
    ) -> None:
        super().__init__(dataset, on_rows, policy)
        self.pool = ReaderPool(dataset, self.blocks, n_threads, on_rows)
        self._gpu = gpu
        self._needs = needs
        self._kernels = gpu.kernels()
        self._cache: Block | None = None
        self._cached_counts: dict[int, PartialResult] = {}
        self._one_by_one = any(source.is_computed for source in dataset.sources())

    def _begin(self, stack: ExitStack) -> None:
        gpu, needs = self._gpu, self._needs
        stack.enter_context(gpu.working(needs.limit_nbytes))
        self._transfers = Transfers(gpu, needs.n_slots, needs.pinned_nbytes, needs.buffer_nbytes)
        stack.callback(self._transfers.close)
        if any(source.is_cupy for source in self._dataset.sources()):
            # rows may still be computed on other streams
            gpu.device.synchronize()
        stack.enter_context(self.pool)
        stack.callback(self._release)

    def _release(self) -> None:
        self._cache = None
        self._kernels.forget()

    def _run_pass(self, work: Pass) -> PartialResult:
        self._kernels.forget()
        self._report_rows_before(work.start.n_blocks)
        if self.policy.is_large(work.accumulator.state_nbytes) and len(work.rest()) > 1:
            return self._merge_on_device(work)
        with closing(self.reduce_segments(work.accumulator, work.rest())) as partials:
            return work.merge_in_order(partials)

    def reduce_segments(
        self,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        start: PartialResult | None = None,
    ) -> Generator[PartialResult, None, None]:
        """Yield the partial result of each segment, while the next one is reduced.

        ``start`` is the partial result of the blocks before a single segment, which continues it.
        """

        def fetched(segment: range, fetch: Fetch, counts: PartialResult) -> PartialResult:
            state = fetch()
            self._require_finite(accumulator, state, segment)
            return counts._replace(state=state)

        waiting: list[tuple[range, Fetch, PartialResult]] = []
        with closing(self._states(accumulator, segments, start)) as states:
            for segment, state, counts in states:
                waiting.append((segment, state.send(self._transfers.fetching), counts))
                if len(waiting) > 1:
                    yield fetched(*waiting.pop(0))
        for last in waiting:
            yield fetched(*last)

    def _merge_on_device(self, work: Pass) -> PartialResult:
        """Merge large states on the device; fetch the result at the end, or for ``on_partial``."""
        accumulator, merged, _, on_partial = work
        segments, transfers = work.rest(), self._transfers
        with transfers.reducing:
            total = DeviceState(self._gpu, merged.state, transfers.reducing)
        # sums may overflow: solvers check them
        with np.errstate(all="ignore"), closing(self._states(accumulator, segments)) as states:
            for segment, state, counts in states:
                with transfers.reducing:
                    self._require_finite(accumulator, state.state, segment)
                    accumulator.merge(total.state, state.state)
                # released before the next one is made, because the plan counts two
                del state
                merged = merged.followed_by(counts, merged.state)
                if on_partial is not None or segment is segments[-1]:
                    merged = merged._replace(state=total.send(transfers.fetching)())
                if on_partial is not None:
                    on_partial(merged)
        return merged

    def _states(
        self,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        start: PartialResult | None = None,
    ) -> Generator[tuple[range, DeviceState, PartialResult], None, None]:
        """Yield each segment, its state once all is queued, and its counts; threads read ahead."""
        before = start or PartialResult(accumulator.zero())
        numbers = (number for segment in segments for number in segment)
        wanted = [number for number in numbers if number not in self._cached_counts]
        stream = self._transfers.reducing
        with closing(self.pool.read_in_order(wanted, self._fill, in_background=True)) as reads:
            for segment in segments:
                with stream:
                    state = DeviceState(self._gpu, before.state, stream)
                    counts = self._queue(accumulator, state, segment, reads)
                    self._kernels.finish()
                yield segment, state, before._replace(state=None).followed_by(counts, None)
                del state

    def _queue(
        self,
        accumulator: Accumulator[Any, Any],
        state: DeviceState,
        segment: range,
        reads: Iterator[Read],
    ) -> PartialResult:
        """Queue the reduction of a segment, and return the counts of its blocks."""

        def add(part: Block) -> None:
            accumulator.update(state.state, part, self._kernels.kernels)

        counts = PartialResult(None)
        while counts.n_blocks < len(segment):
            rest = segment[counts.n_blocks :]
            if self._cache is not None and rest[0] in self._cached_counts:
                joined, added = self._joined(self._cache, rest[:1] if self._one_by_one else rest)
                add(joined)
            else:
                slot, block, added = next(reads)
                place = self._place(rest[0], block, added)
                with closing(self._transfers.send(slot, block, place)) as parts:
                    for part in parts:
                        add(part)
            counts = counts.followed_by(added, None)
            if self._one_by_one:
                self._kernels.finish()
        return counts

    def _joined(self, cache: Block, numbers: range) -> tuple[Block, PartialResult]:
        """Join the first of these blocks that are contiguous in the cache, and their counts."""
        first, past = self.blocks[numbers[0]]
        starts, counts = [], PartialResult(None)
        for number in numbers:
            start, stop = self.blocks[number]
            if number not in self._cached_counts or start != first + counts.n_rows:
                break
            starts.append(start - first)
            counts, past = counts.followed_by(self._cached_counts[number], None), stop
        self._on_rows(past - first)
        rows = cache.rows(first, first + counts.n_rows)
        return replace(rows, joints=tuple(starts[1:])), counts

    def _place(self, number: int, block: Block, counts: PartialResult) -> Block | None:
        """Return the rows of the cache that hold a block; ``None`` if it is not cached."""
        if number >= self._needs.n_cached:
            return None
        if self._cache is None:
            _, n_rows = self.blocks[self._needs.n_cached - 1]
            self._cache = self._transfers.new_cache(block, n_rows, whole_arrays(self._dataset))
        self._cached_counts[number] = counts
        start, _ = self.blocks[number]
        return self._cache.rows(start, start + block.n_rows)

    def _fill(self, reader: BlockReader, start: int, stop: int) -> Read:
        before = reader.n_omitted
        reader.checks_integers = self.checks_integers
        slot, block = self._transfers.fill(partial(reader.read, start, stop))
        n_omitted = reader.n_omitted - before
        return slot, block, PartialResult(None).with_block(block, n_omitted, reader.rounded)

    def _require_finite(
        self, accumulator: Accumulator[Any, Any], state: object, segment: range
    ) -> None:
        # sums may overflow before it is known whether NaN, inf or large values are the cause
        with np.errstate(all="ignore"):
            is_finite = accumulator.is_finite(state)
        error = None if is_finite else self.pool.not_finite(segment)
        if error is not None:
            raise error
