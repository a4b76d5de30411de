"""Passes on a GPU: threads read blocks, and one of them has them copied there and folded."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.engines.base import Engine, PartialResult, joined, merged_in_order
from streamreg.engines.partition import LARGE_STATE_NBYTES, Blocks
from streamreg.engines.threads import ThreadsEngine
from streamreg.gpu.device import DeviceState
from streamreg.gpu.transfers import Transfers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.engines.base import OnPartial
    from streamreg.engines.partition import Segments
    from streamreg.gpu.device import Gpu
    from streamreg.gpu.transfers import Filled, KeptRows
    from streamreg.planning.terms import DeviceNeeds
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset


class _Noted(NamedTuple):
    """What a reader noted of a block."""

    n_omitted: int
    rounded: frozenset[str]


class _Read(NamedTuple):
    """A block that a thread has read."""

    filled: Filled
    noted: _Noted


class DeviceEngine(Engine):
    """Runs passes on a GPU.

    Blocks and segments are larger than those of :class:`ThreadsEngine`. A state lies on the device
    while a segment is folded, and comes to the host while the next one is; a large one is merged
    with others there. Only at the end of segments does the thread that folds wait for the device,
    and are NaN and inf noticed. Beside what other engines raise,
    :class:`MemoryLimitError` tells that the device refused memory.

    Rows of CuPy are folded where they lie. Blocks of Dask arrays are added up one by one, as tasks
    on a cluster's workers have to, each on its own: so the bits are theirs.

    Parameters
    ----------
    dataset, on_rows
        As of every :class:`Engine`.
    n_threads
        Threads that read.
    gpu
        The device.
    needs
        Bytes of it that were planned, and buffers.
    """

    def __init__(
        self,
        dataset: Dataset,
        n_threads: int,
        on_rows: Callable[[int], None],
        gpu: Gpu,
        needs: DeviceNeeds,
    ) -> None:
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, on_device=True)
        super().__init__(dataset, blocks, on_rows, on_device=True)
        self._threads = ThreadsEngine(dataset, n_threads, on_rows, blocks=blocks)
        self._gpu = gpu
        self._needs = needs
        self._n_kept = needs.n_kept
        self._loops = gpu.kernels()
        self._kept: KeptRows | None = None
        self._kept_notes: dict[int, _Noted] = {}
        self._whole = dataset.whole_on_device()
        self._one_by_one = any(source.is_remote for source in dataset.sources())

    def _begin(self, stack: ExitStack) -> None:
        needs = self._needs
        stack.enter_context(self._gpu.working(needs.limit_nbytes))
        self._transfers = Transfers(
            self._gpu, needs.n_slots, needs.pinned_nbytes, needs.buffer_nbytes,
            needs.least_buffer_nbytes,
        )  # fmt: skip
        stack.callback(self._transfers.close)
        if self._dataset.on_device:
            self._gpu.settle()
        stack.enter_context(self._threads)
        stack.callback(self._forget)

    def _forget(self) -> None:
        self._kept = None
        self._loops.forget()

    def _folded(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        if start.n_blocks:
            self._on_rows(self._blocks[start.n_blocks - 1][1])
        rest = segments.after(start.n_blocks)
        if accumulator.state_nbytes > LARGE_STATE_NBYTES:
            merged = self._merged_there(accumulator, start, rest, on_partial)
        else:
            with closing(self.folded(accumulator, rest)) as states:
                merged = merged_in_order(accumulator, start, states, on_partial)
        self._loops.forget()
        return merged

    def folded(
        self,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        before: PartialResult | None = None,
    ) -> Generator[PartialResult, None, None]:
        """Yield what each segment is folded into, while the next one is.

        With ``before``, what the blocks before a single segment are folded into, it goes on there.
        """
        waiting: list[Callable[[], PartialResult]] = []
        with closing(self._states(accumulator, segments, before)) as states:
            for segment, there, folded in states:
                fetch = there.send(self._transfers.fetching)
                waiting.append(partial(self._fetched, accumulator, fetch, segment, folded))
                if len(waiting) > 1:
                    yield waiting.pop(0)()
        for made in waiting:
            yield made()

    def _merged_there(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: list[range],
        on_partial: OnPartial | None,
    ) -> PartialResult:
        """Return what large states are merged into: on the device, and fetched when it is asked."""
        merged, total = start, None
        # sums may have overflown: it is looked at where they are used
        with np.errstate(all="ignore"), closing(self._states(accumulator, segments)) as states:
            for segment, there, folded in states:
                with self._transfers.folding:
                    self._require_finite(accumulator, there.state, segment)
                    if total is None and start.n_blocks:
                        total = DeviceState(self._gpu, start.state, self._transfers.folding)
                    if total is None:
                        total = there
                    else:
                        total.add(accumulator.merge(total.state, there.state))
                # gone before the next is made: the plan counts two
                del there
                merged = joined(merged, folded)
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
        before: PartialResult | None = None,
    ) -> Generator[tuple[range, DeviceState[Any], PartialResult], None, None]:
        """Yield the state of each segment, once all is queued, and what is known beside it.

        Blocks of the next segment are read meanwhile.
        """
        if before is not None and len(segments) > 1:
            raise ValueError("one segment at most can go on where others ended")
        start = before or PartialResult.nothing(accumulator)
        wanted = [
            number for segment in segments for number in segment
            if number not in self._kept_notes
        ]  # fmt: skip
        with closing(self._threads.each_of(wanted, self._fill, apart=True)) as reads:
            for segment in segments:
                with self._transfers.folding:
                    there = DeviceState(
                        self._gpu, start.state, self._transfers.folding,
                        is_of_no_rows=before is None,
                    )  # fmt: skip
                    noted = self._fold(accumulator, there, segment, reads)
                    self._loops.finish(there.state)
                known = start._replace(state=None)
                for note in noted:
                    known = joined(known, PartialResult(None, 1, note.n_omitted, note.rounded))
                yield segment, there, known
                del there

    def _fetched(
        self,
        accumulator: Accumulator[Any, Any],
        fetch: Callable[[], Any],
        segment: range,
        folded: PartialResult,
    ) -> PartialResult:
        state = fetch()
        self._require_finite(accumulator, state, segment)
        return folded._replace(state=state)

    def _fold(
        self,
        accumulator: Accumulator[Any, Any],
        there: DeviceState[Any],
        segment: range,
        reads: Iterator[_Read],
    ) -> list[_Noted]:
        """Queue the folding of a segment, and return what readers noted of its blocks."""

        def add(part: Block) -> None:
            if len(part.X):
                there.add(accumulator.update(there.state, part, self._loops.kernels))

        noted: list[_Noted] = []
        while len(noted) < len(segment):
            rest = segment[len(noted) :]
            if self._kept is not None and rest[0] in self._kept:
                whole, n_blocks = self._kept.run(rest[:1] if self._one_by_one else rest)
                add(whole)
                noted += [self._kept_notes[number] for number in rest[:n_blocks]]
                self._on_rows(self._blocks[rest[n_blocks - 1]][1] - self._blocks[rest[0]][0])
            else:
                filled, note = next(reads)
                with closing(self._arrived(rest[0], filled, note)) as parts:
                    for part in parts:
                        add(part)
                noted.append(note)
            if self._one_by_one:
                self._loops.finish(there.state)
        return noted

    def _arrived(self, number: int, filled: Filled, note: _Noted) -> Generator[Block, None, None]:
        """Yield a block as it lies on the device: where it stays, or for a while, in parts."""
        while number < self._n_kept and self._kept is None:
            _, n_rows = self._blocks[self._n_kept - 1]
            self._kept = self._transfers.kept(filled.block, n_rows, self._whole)
            if self._kept is None:
                self._n_kept //= 2  # it runs without, too
        if number >= self._n_kept or self._kept is None:
            yield from self._transfers.parts(filled)
            return
        self._kept_notes[number] = note
        place = self._kept.room_for(number, filled.block)
        self._transfers.copy(filled, place)
        yield place

    def _fill(self, reader: BlockReader, start: int, stop: int) -> _Read:
        before = reader.n_omitted
        filled = self._transfers.fill(partial(reader.read, start, stop))
        return _Read(filled, _Noted(reader.n_omitted - before, frozenset(reader.rounded)))

    def _require_finite(
        self, accumulator: Accumulator[Any, Any], state: object, segment: range
    ) -> None:
        # sums may overflow before it is known whether the data or their size are to blame
        with np.errstate(all="ignore"):
            is_finite = accumulator.is_finite(state)
        error = None if is_finite else self._threads.not_finite(segment)
        if error is not None:
            raise error
