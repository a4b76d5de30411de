"""Passes on a GPU: threads read blocks, and one of them has them copied there and folded."""

from __future__ import annotations

from contextlib import ExitStack, closing
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np

from streamreg.engines.base import Folded, merged_in_order
from streamreg.engines.threads import ThreadsEngine
from streamreg.kernels.gpu import DeviceState, Transfers
from streamreg.layout import Blocks, Segments

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from types import TracebackType

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.engines.base import OnFolded
    from streamreg.kernels.gpu import Filled, Gpu
    from streamreg.plans import DeviceNeeds
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import DataSet

Result = TypeVar("Result")


class _Noted(NamedTuple):
    """What a reader noted of a block."""

    n_omitted: int
    rounded: frozenset[str]


class _Read(NamedTuple):
    """A block that a thread has read."""

    filled: Filled
    noted: _Noted


class _Kept(NamedTuple):
    """A block that stays on the device."""

    block: Block
    noted: _Noted


class DeviceEngine:
    """Runs passes over one data set; use it as a context manager.

    Blocks are larger than those of :class:`ThreadsEngine`; segments are cut by the same rule. A
    state lies on the device while a segment is folded, and comes to the host at its end: only then
    does anyone wait for the device.

    Parameters
    ----------
    dataset
        The rows.
    n_threads
        Threads that read.
    on_rows
        Told the rows of each block that is read, from any thread, for progress.
    gpu
        The device.
    needs
        Bytes of it that were planned, and buffers.

    Attributes
    ----------
    n_omitted, rounded
        As of every :class:`Engine`.
    """

    def __init__(
        self,
        dataset: DataSet,
        n_threads: int,
        on_rows: Callable[[int], None],
        gpu: Gpu,
        needs: DeviceNeeds,
    ) -> None:
        self._dataset = dataset
        self._on_rows = on_rows
        self._blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, on_device=True)
        self._threads = ThreadsEngine(dataset, n_threads, on_rows, blocks=self._blocks)
        self._gpu = gpu
        self._needs = needs
        self._loops = gpu.kernels()
        self._kept: dict[int, _Kept] = {}
        self.n_omitted = 0
        self.rounded: set[str] = set()

    def __enter__(self) -> Self:
        needs = self._needs
        with ExitStack() as stack:
            stack.enter_context(self._gpu.working(needs.limit_nbytes))
            self._transfers = Transfers(
                self._gpu, needs.n_pinned, needs.pinned_nbytes, needs.buffer_nbytes
            )
            stack.callback(self._transfers.close)
            stack.enter_context(self._threads)
            self._on_exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._kept.clear()
        self._loops.forget()
        self._on_exit.__exit__(kind, error, traceback)

    def reduce(
        self,
        accumulator: Accumulator[Any, Result],
        start: Folded | None = None,
        on_folded: OnFolded = lambda _: None,
    ) -> Result:
        """Run one pass and return the accumulator's statistic.

        Raises
        ------
        InputError, DataCorruptionError
            As :func:`streamreg.engines.base.fold_segment`, but that NaN and inf are noticed at the
            end of a segment.
        MemoryLimitError
            The device refused memory.
        """
        start = start or Folded.nothing(accumulator)
        self._blocks.require_begun(start.n_blocks)
        pass_nbytes = self._dataset.n_rows * self._dataset.row_nbytes
        segments = Segments.of(len(self._blocks), pass_nbytes, accumulator.state_nbytes)
        rest = segments.after(start.n_blocks)
        if start.n_blocks:
            self._on_rows(self._blocks[start.n_blocks - 1][1])
        with closing(self._folded(accumulator, rest)) as states:
            merged = merged_in_order(accumulator, start, states, on_folded)
        self._loops.forget()
        self.n_omitted = merged.n_omitted
        self.rounded.update(merged.rounded)
        return accumulator.finalize(merged.state)

    def _folded(
        self, accumulator: Accumulator[Any, Any], segments: list[range]
    ) -> Generator[Folded, None, None]:
        """Yield what each segment is folded into; blocks of the next are read meanwhile."""
        wanted = [number for segment in segments for number in segment if number not in self._kept]
        reads = self._threads.each_of(wanted, self._fill)
        with closing(reads):
            for segment in segments:
                with self._transfers.folding:
                    there = DeviceState(self._gpu, accumulator.zero(), self._transfers.folding)
                    noted = [self._fold(accumulator, there, number, reads) for number in segment]
                    state = there.fetch()
                self._require_finite(accumulator, state, segment)
                yield Folded(
                    state, len(segment), sum(note.n_omitted for note in noted),
                    frozenset().union(*(note.rounded for note in noted)),
                )  # fmt: skip

    def _fold(
        self,
        accumulator: Accumulator[Any, Any],
        there: DeviceState[Any],
        number: int,
        reads: Iterator[_Read],
    ) -> _Noted:
        """Queue the folding of one block."""
        if number in self._kept:
            block, noted = self._kept[number]
            start, stop = self._blocks[number]
            self._on_rows(stop - start)
            parts: Iterable[Block] = [block]
        else:
            filled, noted = next(reads)
            if self._is_to_be_kept(number):
                self._kept[number] = _Kept(self._transfers.kept(filled), noted)
                parts = [self._kept[number].block]
            else:
                parts = self._transfers.parts(filled)
        for part in parts:
            if len(part.X):
                there.state = accumulator.update(there.state, part, self._loops.kernels)
        return noted

    def _is_to_be_kept(self, number: int) -> bool:
        """Whether a block is one of those, spread evenly over all, that stay on the device."""
        share = Fraction(self._needs.n_kept, len(self._blocks))
        return floor((number + 1) * share) > floor(number * share)

    def _fill(self, reader: BlockReader, start: int, stop: int) -> _Read:
        before = reader.n_omitted
        filled = self._transfers.fill(reader.read(start, stop))
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
