"""What an engine is, and the inner loop of all: the blocks of a segment to one state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from itertools import tee, zip_longest
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

import numpy as np

from streamreg.engines.blas import one_blas_thread
from streamreg.engines.partition import HOST, Blocks, PartitionPolicy, Segments
from streamreg.errors import Message, Remedy
from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
    from streamreg.kernels.base import Kernels
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")


class PartialResult(NamedTuple):
    """The state of consecutive blocks, and what their reader counted."""

    state: Any  # of the accumulator
    n_blocks: int = 0
    n_rows: int = 0  # rows that count
    weight_sum: float = 0.0  # Σ sᵢ of these rows
    n_omitted: int = 0  # rows left out for NaN or inf
    rounded: frozenset[str] = frozenset()  # names of X and y with integers that float64 rounds

    def copied(self) -> PartialResult:
        """Return a copy with a state of its own."""
        state = type(self.state)(*(array.copy(order="K") for array in self.state))
        return self._replace(state=state)

    def followed_by(self, later: PartialResult, state: Any) -> PartialResult:  # noqa: ANN401
        """Return the partial result of these blocks and the next ones, given their merged state."""
        return PartialResult(
            state,
            self.n_blocks + later.n_blocks,
            self.n_rows + later.n_rows,
            self.weight_sum + later.weight_sum,
            self.n_omitted + later.n_omitted,
            self.rounded | later.rounded,
        )

    def with_block(self, block: Block, n_omitted: int, rounded: Iterable[str]) -> PartialResult:
        """Return the counts of one more block; the state is left to the caller."""
        weight_sum = float(block.n_rows) if block.weight is None else float(block.weight.sum())
        block_counts = PartialResult(
            None, 1, block.n_rows, weight_sum, n_omitted, frozenset(rounded)
        )
        return self.followed_by(block_counts, self.state)


OnPartial = Callable[[PartialResult], None]


class Reduction(NamedTuple, Generic[Result]):
    """What one pass over all rows gives."""

    result: Result
    n_rows: int  # rows that count: neither left out for NaN or inf nor of weight 0
    weight_sum: float  # Σ sᵢ of these rows


class Engine(ABC):
    """Runs passes over one data set; use it as a context manager.

    Parameters
    ----------
    on_rows
        Called, from any thread, with the number of rows just done, for progress.
    """

    def __init__(
        self,
        dataset: Dataset,
        on_rows: Callable[[int], None],
        policy: PartitionPolicy = HOST,
    ) -> None:
        self._dataset = dataset
        self._on_rows = on_rows
        self.policy = policy
        self.blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, policy)
        # integers beyond 2^53 are looked for in the first pass only
        self._checks_integers = True
        self.n_omitted = 0  # rows that the last pass left out for NaN or inf
        # names of X and y in which an integer was read that float64 cannot represent
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
    ) -> Reduction[Result]:
        """Run one pass.

        Parameters
        ----------
        start
            The partial result of the first blocks, if they were reduced before: they are not read.
        on_partial
            Called on the caller's thread after each segment with the partial result. A pass can be
            resumed from it. The next segment changes it.

        Raises
        ------
        InputError
            NaN or inf in the data.
        DataCorruptionError
            A chunk is absent or damaged.
        """
        start = start or PartialResult(accumulator.zero())
        self.blocks.require_first(start.n_blocks)
        segments = Segments.of(
            len(self.blocks), self._dataset.pass_nbytes, accumulator.state_nbytes, self.policy
        )
        # only while passes run: a solver works with all threads of BLAS
        with one_blas_thread():
            done = self._run_pass(accumulator, start, segments, on_partial)
        self._checks_integers = False
        self.n_omitted = done.n_omitted
        self.rounded.update(done.rounded)
        return Reduction(accumulator.finalize(done.state), done.n_rows, done.weight_sum)

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Acquire what passes need; the stack releases it at the end."""

    @abstractmethod
    def _run_pass(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        """Return the partial result of all blocks, given that of the first ones."""

    def rounding_warnings(self) -> list[str]:
        """Return a warning for each of X and y whose integers float64 rounds."""
        return [
            f"{name} holds integers beyond 2^53, which float64 rounds; subtract a constant from "
            "such columns before they are stored"
            for name in sorted(self.rounded)
        ]

    def omission_warnings(self) -> list[str]:
        """Return the warning that the last pass left out rows for NaN or inf, if it did."""
        if not self.n_omitted:
            return []
        hold, were = ("holds", "was") if self.n_omitted == 1 else ("hold", "were")
        rows = count(self._dataset.n_rows, "row")
        text = f"{self.n_omitted:,} of {rows} {hold} NaN or inf and {were} left out ("
        return [Message(text, Remedy("nan_policy", "omit"), ")")]

    def _report_rows_before(self, n_blocks: int) -> None:
        """Report the rows of blocks that an earlier run reduced."""
        if n_blocks:
            _, rows = self.blocks[n_blocks - 1]
            self._on_rows(rows)


def merge_in_order(
    accumulator: Accumulator[Any, Any],
    start: PartialResult,
    segments: Iterable[PartialResult],
    on_partial: OnPartial | None,
) -> PartialResult:
    """Return the partial result of the blocks of ``start`` and of the segments after it."""
    merged = start
    for segment in segments:
        # sums may overflow: the caller checks them
        with np.errstate(all="ignore"):
            state = accumulator.merge(merged.state, segment.state)
        merged = merged.followed_by(segment, state)
        # released before the next one is awaited: the plan counts it once
        del segment
        if on_partial is not None:
            on_partial(merged)
    return merged


def reduce_segment(
    reader: BlockReader,
    accumulator: Accumulator[Any, Any],
    start: PartialResult,
    blocks: Iterable[tuple[int, int]],
    kernels_for: Callable[[Block], Kernels],
    on_block: Callable[[int], None] = lambda _: None,
    on_partial: OnPartial | None = None,
) -> PartialResult:
    """Return the partial result of some blocks, in order, after those of ``start``.

    Parameters
    ----------
    reader
        Used by this thread alone.
    start
        The partial result of the blocks before; its state is written to.
    blocks
        First row, and the row after the last, of each block.
    kernels_for
        Returns the kernels for a block.
    on_block
        Called with the number of rows of each block when it is done; may raise to end the pass.
    on_partial
        Called with the partial result after each block; the next block changes it.

    Raises
    ------
    InputError
        NaN or inf in the data.
    DataCorruptionError
        A chunk is absent or damaged.
    """
    partial, has_overflowed = start, False
    # sums may overflow before it is known whether NaN, inf or large values are the cause
    with np.errstate(all="ignore"):
        ahead, behind = tee(blocks)
        next(ahead, None)
        for (first, stop), following in zip_longest(behind, ahead):
            omitted_before = reader.n_omitted
            block = reader.read(first, stop)
            if following is not None:
                reader.prefetch(*following)
            if block.n_rows:
                state = accumulator.update(partial.state, block, kernels_for(block))
                partial = partial._replace(state=state)
                # the sums of large values stay infinite: then the rows in memory are checked
                is_suspect = not accumulator.is_finite(state)
                if is_suspect and not (has_overflowed and block.is_finite()):
                    error = reader.not_finite(first, stop)
                    if error is not None:
                        raise error
                    has_overflowed = True
            partial = partial.with_block(block, reader.n_omitted - omitted_before, reader.rounded)
            # released before the next read: a reader that makes new arrays would hold two
            del block
            on_block(stop - first)
            if on_partial is not None:
                on_partial(partial)
    return partial
