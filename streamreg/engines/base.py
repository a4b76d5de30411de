"""What an engine is, and the one inner loop: fold the blocks of a segment into a state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from itertools import tee, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import numpy as np

from streamreg.engines.partition import Segments

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.partition import Blocks
    from streamreg.kernels import Kernels
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")


class PartialResult(NamedTuple):
    """What some consecutive blocks were folded into."""

    state: Any  # of the accumulator
    n_blocks: int
    n_omitted: int  # rows left out for NaN or inf
    rounded: frozenset[str]  # names of X and y that had an integer which float64 cannot hold

    @classmethod
    def nothing(cls, accumulator: Accumulator[Any, Any]) -> PartialResult:
        """Return what no blocks are folded into."""
        return cls(accumulator.zero(), 0, 0, frozenset())


OnPartial = Callable[[PartialResult], None]


def joined(a: PartialResult, b: PartialResult) -> PartialResult:
    """Return what is known of some blocks and the next ones, with the state of the first."""
    return PartialResult(
        a.state, a.n_blocks + b.n_blocks, a.n_omitted + b.n_omitted, a.rounded | b.rounded
    )


class Engine(ABC):
    """Runs passes over one data set; use it as a context manager.

    Parameters
    ----------
    dataset
        The rows.
    blocks
        How they are cut.
    on_rows
        Told the rows that are done, from any thread, for progress.
    on_device
        Whether a GPU folds the blocks: segments are then longer.

    Attributes
    ----------
    n_omitted
        Rows that the last pass left out for NaN or inf.
    rounded
        Names of X and y, where an integer was read that float64 cannot hold.
    """

    def __init__(
        self,
        dataset: Dataset,
        blocks: Blocks,
        on_rows: Callable[[int], None],
        *,
        on_device: bool = False,
    ) -> None:
        self._dataset = dataset
        self._blocks = blocks
        self._on_rows = on_rows
        self._on_device = on_device
        self.n_omitted = 0
        self.rounded: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._begin(stack)
            self._on_exit = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._on_exit.__exit__(kind, error, traceback)

    def reduce(
        self,
        accumulator: Accumulator[Any, Result],
        start: PartialResult | None = None,
        on_partial: OnPartial | None = None,
    ) -> Result:
        """Run one pass and return the accumulator's statistic.

        Parameters
        ----------
        accumulator
            What is gathered.
        start
            What the first blocks were folded into already, if any: those are not read again.
        on_partial
            Told, by the caller's thread, what the blocks so far are folded into: there a pass may
            be left and gone on with.

        Raises
        ------
        InputError
            NaN or inf in the data.
        DataCorruptionError
            A chunk is absent or damaged.
        """
        start = start or PartialResult.nothing(accumulator)
        self._blocks.require_begun(start.n_blocks)
        segments = Segments.of(
            len(self._blocks), self._dataset.n_rows * self._dataset.row_nbytes,
            accumulator.state_nbytes, on_device=self._on_device,
        )  # fmt: skip
        folded = self._folded(accumulator, start, segments, on_partial)
        self.n_omitted = folded.n_omitted
        self.rounded.update(folded.rounded)
        return accumulator.finalize(folded.state)

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Make what passes need; the stack gives it back in the end."""

    @abstractmethod
    def _folded(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        """Return what all blocks are folded into, after those of ``start``."""


def merged_in_order(
    accumulator: Accumulator[Any, Any],
    start: PartialResult,
    segments: Iterable[PartialResult],
    on_partial: OnPartial | None,
) -> PartialResult:
    """Return what the blocks of ``start`` and of the segments after it are folded into.

    ``on_partial`` is told after each segment; what it is told changes with the next.
    """
    merged = start
    for segment in segments:
        # sums may have overflown: it is looked at where they are used
        with np.errstate(all="ignore"):
            state = accumulator.merge(merged.state, segment.state)
        merged = joined(merged, segment)._replace(state=state)
        # gone before the next is awaited: the plan counts it once
        del segment
        if on_partial is not None:
            on_partial(merged)
    return merged


def reduce_segment(
    reader: BlockReader,
    accumulator: Accumulator[Any, Any],
    start: PartialResult,
    blocks: Iterable[tuple[int, int]],
    kernels: Kernels,
    on_block: Callable[[int], None],
    on_partial: OnPartial | None = None,
) -> PartialResult:
    """Return what some blocks are folded into, in order, after those of ``start``.

    Parameters
    ----------
    reader
        Where rows come from; used by this thread alone meanwhile.
    accumulator
        What is gathered.
    start
        What the blocks before are folded into; its state is written to.
    blocks
        First row, and the row after the last, of each block.
    kernels
        The loops, and who runs the parts of an update, if the accumulator splits it.
    on_block
        Told the rows of each block when it is done; may raise to end the pass.
    on_partial
        Told what the blocks so far are folded into; that changes with the next.

    Raises
    ------
    InputError
        NaN or inf in the data.
    DataCorruptionError
        A chunk is absent or damaged.
    """
    state, n_blocks, n_omitted, rounded = start
    n_omitted -= reader.n_omitted
    # sums may overflow before it is known whether the data or their size are to blame
    with np.errstate(all="ignore"):
        ahead, behind = tee(blocks)
        next(ahead, None)
        for (first, stop), following in zip_longest(behind, ahead):
            block = reader.read(first, stop)
            if following is not None:
                reader.expect(*following)
            if len(block.X):
                state = accumulator.update(state, block, kernels)
                if not accumulator.is_finite(state):
                    error = reader.not_finite(first, stop)
                    if error is not None:
                        raise error
            # gone before the next is read: readers that make new arrays would hold two
            del block
            on_block(stop - first)
            n_blocks += 1
            if on_partial is not None:
                on_partial(
                    PartialResult(
                        state, n_blocks, n_omitted + reader.n_omitted, rounded | reader.rounded
                    )
                )
    return PartialResult(state, n_blocks, n_omitted + reader.n_omitted, rounded | reader.rounded)
