"""Passes on a GPU: threads read blocks, and one thread queues their transfer and reduction."""

from __future__ import annotations

from contextlib import closing
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
    from streamreg.gpu.device import Gpu
    from streamreg.gpu.transfers import DeviceBlockCache, Filled
    from streamreg.planning.terms import DeviceNeeds
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

    # a block that a thread has read, and its counts, without a state
    Read = tuple[Filled, PartialResult]


class GpuEngine(Engine):
    """Runs passes on a GPU; a pass raises :class:`MemoryLimitError` if that refuses memory.

    A state is on the device while its segment is reduced, and is copied to the host while the next
    segment is reduced; large states are merged on the device. The queueing thread waits for the
    device only at the end of segments, where NaN and inf are found.

    CuPy arrays are reduced in place. The sums of Dask blocks are finished one by one, as tasks on a
    cluster's workers have to, so that both give bitwise identical results.
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
        self._pool = ReaderPool(dataset, self.blocks, n_threads, on_rows)
        self._gpu = gpu
        self._needs = needs
        self._n_cached = needs.n_cached
        self._kernels = gpu.kernels()
        self._cache: DeviceBlockCache | None = None
        self._cached_counts: dict[int, PartialResult] = {}
        self._whole = whole_arrays(dataset)
        self._one_by_one = any(source.is_computed for source in dataset.sources())

    def _begin(self, stack: ExitStack) -> None:
        gpu, needs = self._gpu, self._needs
        stack.enter_context(gpu.working(needs.limit_nbytes))
        self._transfers = Transfers(gpu, needs.n_slots, needs.pinned_nbytes, needs.buffer_nbytes)
        stack.callback(self._transfers.close)
        if any(source.is_cupy for source in self._dataset.sources()):
            # rows may still be computed on other streams
            gpu.device.synchronize()
        stack.enter_context(self._pool)
        stack.callback(self._release)

    def _release(self) -> None:
        self._cache = None
        self._kernels.forget()

    def _run_pass(self, work: Pass) -> PartialResult:
        self._report_rows_before(work.start.n_blocks)
        if self.policy.is_large(work.accumulator.state_nbytes):
            merged = self._merge_on_device(work)
        else:
            with closing(self.reduce_segments(work.accumulator, work.rest())) as partials:
                merged = work.merge_in_order(partials)
        self._kernels.forget()
        return merged

    def reduce_segments(
        self,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        start: PartialResult | None = None,
    ) -> Generator[PartialResult, None, None]:
        """Yield the partial result of each segment, while the next one is reduced.

        With ``start``, the partial result of the blocks before it, a single segment continues it.
        """

        def fetched(
            fetch: Callable[[], Any], segment: range, counts: PartialResult
        ) -> PartialResult:
            state = fetch()
            self._require_finite(accumulator, state, segment)
            return counts._replace(state=state)

        waiting: list[tuple[Callable[[], Any], range, PartialResult]] = []
        with closing(self._states(accumulator, segments, start)) as states:
            for segment, state, counts in states:
                waiting.append((state.send(self._transfers.fetching), segment, counts))
                if len(waiting) > 1:
                    yield fetched(*waiting.pop(0))
        for last in waiting:
            yield fetched(*last)

    def _merge_on_device(self, work: Pass) -> PartialResult:
        """Merge large states on the device; fetch the result at the end, or for ``on_partial``."""
        accumulator, start, _, on_partial = work
        merged, total = start, None
        # sums may overflow: solvers check them
        with np.errstate(all="ignore"), closing(self._states(accumulator, work.rest())) as states:
            for segment, device_state, counts in states:
                with self._transfers.reducing:
                    self._require_finite(accumulator, device_state.state, segment)
                    if total is None and start.n_blocks:
                        total = DeviceState(self._gpu, start.state, self._transfers.reducing)
                    if total is None:
                        total = device_state
                    else:
                        total.add(accumulator.merge(total.state, device_state.state))
                # released before the next one is made, because the plan counts two
                del device_state
                merged = merged.followed_by(counts, merged.state)
                if on_partial is not None:
                    merged = merged._replace(state=total.send(self._transfers.fetching)())
                    on_partial(merged)
        if total is None or on_partial is not None:
            return merged
        return merged._replace(state=total.send(self._transfers.fetching)())

    def _states(
        self,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        start: PartialResult | None = None,
    ) -> Generator[tuple[range, DeviceState[Any], PartialResult], None, None]:
        """Yield each segment, its state when all is queued, and its counts.

        Meanwhile threads read blocks of the next segment.
        """
        before = start or PartialResult(accumulator.zero())
        numbers = (number for segment in segments for number in segment)
        wanted = [number for number in numbers if number not in self._cached_counts]
        stream, is_new = self._transfers.reducing, start is None
        with closing(self._pool.read_in_order(wanted, self._fill, in_background=True)) as reads:
            for segment in segments:
                with stream:
                    state = DeviceState(self._gpu, before.state, stream, is_of_no_rows=is_new)
                    counts = self._queue(accumulator, state, segment, reads)
                    self._kernels.finish(state.state)
                yield segment, state, before._replace(state=None).followed_by(counts, None)
                del state

    def _queue(
        self,
        accumulator: Accumulator[Any, Any],
        state: DeviceState[Any],
        segment: range,
        reads: Iterator[Read],
    ) -> PartialResult:
        """Queue the reduction of a segment, and return the counts of its blocks."""

        def add(part: Block) -> None:
            if part.n_rows:
                state.add(accumulator.update(state.state, part, self._kernels.kernels))

        counts = PartialResult(None)
        while counts.n_blocks < len(segment):
            rest = segment[counts.n_blocks :]
            if self._cache is not None and rest[0] in self._cache:
                joined, n_blocks = self._cache.run(rest[:1] if self._one_by_one else rest)
                add(joined)
                for number in rest[:n_blocks]:
                    counts = counts.followed_by(self._cached_counts[number], None)
                self._on_rows(self.blocks[rest[n_blocks - 1]][1] - self.blocks[rest[0]][0])
            else:
                filled, block_counts = next(reads)
                with closing(self._arrived(rest[0], filled, block_counts)) as parts:
                    for part in parts:
                        add(part)
                counts = counts.followed_by(block_counts, None)
            if self._one_by_one:
                self._kernels.finish(state.state)
        return counts

    def _arrived(
        self, number: int, filled: Filled, counts: PartialResult
    ) -> Generator[Block, None, None]:
        """Yield a block on the device: in the cache, or in a buffer, perhaps in parts."""
        while number < self._n_cached and self._cache is None:
            _, n_rows = self.blocks[self._n_cached - 1]
            self._cache = self._transfers.cache(filled.block, n_rows, self._whole)
            if self._cache is None:  # the device refused: the plan does not know what CUDA takes
                self._n_cached //= 2
        if number >= self._n_cached or self._cache is None:
            yield from self._transfers.parts(filled)
            return
        self._cached_counts[number] = counts
        place = self._cache.slot_for(number, filled.block)
        self._transfers.copy(filled, place)
        yield place

    def _fill(self, reader: BlockReader, start: int, stop: int) -> Read:
        before = reader.n_omitted
        reader.checks_integers = self.checks_integers
        filled = self._transfers.fill(partial(reader.read, start, stop))
        n_omitted = reader.n_omitted - before
        return filled, PartialResult(None).with_block(filled.block, n_omitted, reader.rounded)

    def _require_finite(
        self, accumulator: Accumulator[Any, Any], state: object, segment: range
    ) -> None:
        # sums may overflow before it is known whether NaN, inf or large values are the cause
        with np.errstate(all="ignore"):
            is_finite = accumulator.is_finite(state)
        error = None if is_finite else self._pool.not_finite(segment)
        if error is not None:
            raise error
