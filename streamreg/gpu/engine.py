"""Passes on a GPU: threads read blocks, and one thread queues their transfer and reduction."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.engines.base import Engine, PartialResult, merge_in_order
from streamreg.engines.reader_pool import ReaderPool
from streamreg.gpu.device import DeviceState
from streamreg.gpu.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.engines.base import OnPartial
    from streamreg.engines.partition import PartitionPolicy, Segments
    from streamreg.gpu.device import Gpu
    from streamreg.gpu.transfers import DeviceBlockCache, Filled
    from streamreg.planning.terms import DeviceNeeds
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset


class _Read(NamedTuple):
    """A block that a thread has read."""

    filled: Filled
    counts: PartialResult  # of this block alone, without a state


class GpuEngine(Engine):
    """Runs passes on a GPU.

    Blocks and segments are larger than those of threads. A state is on the device while its segment
    is reduced, and is copied to the host while the next segment is; large states are merged on the
    device. The queueing thread waits for the device only at the end of segments, where NaN and inf
    are noticed.

    Rows of CuPy are reduced in place. Blocks of Dask arrays are added up one by one, as tasks on a
    cluster's workers have to: so both give bitwise identical results.

    Parameters
    ----------
    n_threads
        Threads that read.
    needs
        Bytes of the device that were planned.

    Raises
    ------
    MemoryLimitError
        From a pass: the device refused memory.
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
        self._n_cached = needs.n_kept
        self._kernels = gpu.kernels()
        self._cache: DeviceBlockCache | None = None
        self._cached_counts: dict[int, PartialResult] = {}
        self._whole = dataset.whole_on_device()
        self._one_by_one = any(source.is_computed for source in dataset.sources())

    def _begin(self, stack: ExitStack) -> None:
        needs = self._needs
        stack.enter_context(self._gpu.working(needs.limit_nbytes))
        self._transfers = Transfers(
            self._gpu,
            needs.n_slots,
            needs.pinned_nbytes,
            needs.buffer_nbytes,
            needs.least_buffer_nbytes,
        )
        stack.callback(self._transfers.close)
        if self._dataset.on_device:
            self._gpu.synchronize()
        stack.enter_context(self._pool)
        stack.callback(self._release)

    def _release(self) -> None:
        self._cache = None
        self._kernels.forget()

    def _run_pass(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        self._report_rows_before(start.n_blocks)
        rest = segments.after(start.n_blocks)
        if self.policy.is_large(accumulator.state_nbytes):
            merged = self._merge_on_device(accumulator, start, rest, on_partial)
        else:
            with closing(self.reduce_segments(accumulator, rest)) as partials:
                merged = merge_in_order(accumulator, start, partials, on_partial)
        self._kernels.forget()
        return merged

    def reduce_segments(
        self,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        start: PartialResult | None = None,
        *,
        checks_integers: bool | None = None,
    ) -> Generator[PartialResult, None, None]:
        """Yield the partial result of each segment, while the next one is reduced.

        With ``start``, the partial result of the blocks before it, a single segment continues it.
        """
        self._pool.checks_integers = (
            self._checks_integers if checks_integers is None else checks_integers
        )
        waiting: list[Callable[[], PartialResult]] = []
        with closing(self._states(accumulator, segments, start)) as states:
            for segment, state, counts in states:
                fetch = state.send(self._transfers.fetching)
                waiting.append(partial(self._fetched, accumulator, fetch, segment, counts))
                if len(waiting) > 1:
                    yield waiting.pop(0)()
        for fetched in waiting:
            yield fetched()

    def _merge_on_device(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: list[range],
        on_partial: OnPartial | None,
    ) -> PartialResult:
        """Merge large states on the device; fetch the result at the end, or for ``on_partial``."""
        merged, total = start, None
        self._pool.checks_integers = self._checks_integers
        # sums may overflow: whoever uses them checks them
        with np.errstate(all="ignore"), closing(self._states(accumulator, segments)) as states:
            for segment, device_state, counts in states:
                with self._transfers.reducing:
                    self._require_finite(accumulator, device_state.state, segment)
                    if total is None and start.n_blocks:
                        total = DeviceState(self._gpu, start.state, self._transfers.reducing)
                    if total is None:
                        total = device_state
                    else:
                        total.add(accumulator.merge(total.state, device_state.state))
                # released before the next one is made: the plan counts two
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
        """Yield the state of each segment, once all is queued, and its counts.

        Meanwhile threads read blocks of the next segment.
        """
        if start is not None and len(segments) > 1:
            raise ValueError("only a single segment can continue a partial result")
        before = start or PartialResult(accumulator.zero())
        wanted = [
            number
            for segment in segments
            for number in segment
            if number not in self._cached_counts
        ]
        with closing(self._pool.read_in_order(wanted, self._fill, in_background=True)) as reads:
            for segment in segments:
                with self._transfers.reducing:
                    state = DeviceState(
                        self._gpu,
                        before.state,
                        self._transfers.reducing,
                        is_of_no_rows=start is None,
                    )
                    counts = self._queue(accumulator, state, segment, reads)
                    self._kernels.finish(state.state)
                yield segment, state, before._replace(state=None).followed_by(counts, None)
                del state

    def _fetched(
        self,
        accumulator: Accumulator[Any, Any],
        fetch: Callable[[], Any],
        segment: range,
        counts: PartialResult,
    ) -> PartialResult:
        state = fetch()
        self._require_finite(accumulator, state, segment)
        return counts._replace(state=state)

    def _queue(
        self,
        accumulator: Accumulator[Any, Any],
        state: DeviceState[Any],
        segment: range,
        reads: Iterator[_Read],
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
                read = next(reads)
                with closing(self._arrived(rest[0], read)) as parts:
                    for part in parts:
                        add(part)
                counts = counts.followed_by(read.counts, None)
            if self._one_by_one:
                self._kernels.finish(state.state)
        return counts

    def _arrived(self, number: int, read: _Read) -> Generator[Block, None, None]:
        """Yield a block on the device: in the cache, or in a buffer, perhaps in parts."""
        while number < self._n_cached and self._cache is None:
            _, n_rows = self.blocks[self._n_cached - 1]
            self._cache = self._transfers.cache(read.filled.block, n_rows, self._whole)
            if self._cache is None:
                self._n_cached //= 2  # it runs without, too
        if number >= self._n_cached or self._cache is None:
            yield from self._transfers.parts(read.filled)
            return
        self._cached_counts[number] = read.counts
        place = self._cache.slot_for(number, read.filled.block)
        self._transfers.copy(read.filled, place)
        yield place

    def _fill(self, reader: BlockReader, start: int, stop: int) -> _Read:
        before = reader.n_omitted
        filled = self._transfers.fill(partial(reader.read, start, stop))
        counts = PartialResult(None).with_block(
            filled.block, reader.n_omitted - before, reader.rounded
        )
        return _Read(filled, counts)

    def _require_finite(
        self, accumulator: Accumulator[Any, Any], state: object, segment: range
    ) -> None:
        # sums may overflow before it is known whether NaN, inf or large values are the cause
        with np.errstate(all="ignore"):
            is_finite = accumulator.is_finite(state)
        error = None if is_finite else self._pool.not_finite(segment)
        if error is not None:
            raise error
