"""The base class of engines, and the types of their input and output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np

from streamreg.blocks import namespace
from streamreg.engines.blas import one_blas_thread
from streamreg.engines.partition import (
    HOST,
    Blocks,
    PartitionPolicy,
    segments_after,
    segments_of,
)
from streamreg.errors import Message, Remedy
from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Block
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
    log_weight_sum: float = 0.0  # Σ log sᵢ of the rows that count

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
            self.log_weight_sum + later.log_weight_sum,
        )

    def with_block(self, block: Block, n_omitted: int, rounded: Iterable[str]) -> PartialResult:
        """Return the result with one more block counted; the caller updates the state."""
        weight_sum, log_weight_sum = float(block.n_rows), 0.0
        if block.weight is not None:
            weight_sum = float(block.weight.sum())
            # a weight may be CuPy's
            log_weight_sum = float(namespace(block.weight).log(block.weight).sum())
        block_counts = PartialResult(
            None, 1, block.n_rows, weight_sum, n_omitted, frozenset(rounded), log_weight_sum
        )
        return self.followed_by(block_counts, self.state)


class Task(NamedTuple):
    """What a task on a worker of a cluster reduces."""

    dataset: Dataset
    accumulator: Accumulator[Any, Any]
    segments: list[range]  # of block numbers
    start: PartialResult | None = None  # continued by a single segment, never written to
    part: range | None = None  # numbers of the parts of the state to work on, if not all
    checks_integers: bool = True  # whether to look for integers that float64 cannot represent


class SegmentReducer(Protocol):
    """Reduces segments in the calling thread; a cluster sends it to its workers, pickled."""

    def reduce(self, task: Task) -> list[PartialResult]:
        """Return the partial result of each segment."""

    def describe_processor(self) -> str:
        """Say on what kind of processor sums are made; raise if it cannot be used."""


# called on the caller's thread after each segment; the next segment changes its argument
OnPartial = Callable[[PartialResult], None]


class Pass(NamedTuple):
    """What an engine is asked to reduce."""

    accumulator: Accumulator[Any, Any]
    start: PartialResult  # of the first blocks, which are not read
    segments: list[range]  # of block numbers
    on_partial: OnPartial | None

    def rest(self) -> list[range]:
        """Return the segments that are not yet reduced; may raise :class:`CheckpointError`."""
        return segments_after(self.segments, self.start.n_blocks)

    def merge(self, merged: PartialResult, later: PartialResult) -> PartialResult:
        """Return the partial result of these blocks and the next ones; writes to ``merged``."""
        # sums may overflow: the caller checks them
        with np.errstate(all="ignore"):
            state = self.accumulator.merge(merged.state, later.state)
        return merged.followed_by(later, state)

    def merge_in_order(self, partials: Iterable[PartialResult]) -> PartialResult:
        """Return the partial result of all blocks, given those of the rest of the segments."""
        merged = self.start
        for partial in partials:
            merged = self.merge(merged, partial)
            # released before waiting for the next one, because the plan counts only one
            del partial
            if self.on_partial is not None:
                self.on_partial(merged)
        return merged


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
        self.policy = policy = policy.of_rows(is_sparse=dataset.X.is_sparse)
        self.blocks = Blocks.of(dataset.X.grid, dataset.partition_row_nbytes, policy)
        # integers beyond 2^53 are looked for in the first pass only
        self.checks_integers = True
        self.n_omitted = 0  # rows that the last pass left out for NaN or inf
        self.log_weight_sum = 0.0  # Σ log sᵢ of the rows that counted in it
        # names of X and y in which an integer was read that float64 cannot represent
        self.rounded: set[str] = set()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._begin(stack)
            self._on_exit = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._on_exit.__exit__(*exception)  # type: ignore[arg-type]

    def reduce(
        self,
        accumulator: Accumulator[Any, Result],
        start: PartialResult | None = None,
        on_partial: OnPartial | None = None,
    ) -> Reduction[Result]:
        """Run one pass and return the statistic; otherwise as :meth:`accumulate`."""
        done = self.accumulate(accumulator, start, on_partial)
        return Reduction(accumulator.finalize(done.state), done.n_rows, done.weight_sum)

    def accumulate(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult | None = None,
        on_partial: OnPartial | None = None,
    ) -> PartialResult:
        """Run one pass and return the state of all rows.

        Parameters
        ----------
        start
            The partial result of the first blocks, if they were reduced before: they are not read.
        on_partial
            Called on the caller's thread with the partial result after each segment, or after each
            block of a single segment. A pass can be resumed from it. The next segment changes it.

        Raises
        ------
        InputError
            NaN or inf in the data.
        DataCorruptionError
            A chunk is absent or damaged.
        """
        start = start or PartialResult(accumulator.zero())
        self.blocks.require_first(start.n_blocks)
        n_blocks, nbytes = len(self.blocks), self._dataset.pass_nbytes
        n_segments = self.policy.n_segments(
            n_blocks, nbytes, accumulator.state_nbytes, accumulator.n_parts
        )
        if accumulator.in_order:
            n_segments = 1
        work = Pass(accumulator, start, segments_of(n_blocks, n_segments), on_partial)
        # only during the pass, because solvers use all threads of BLAS
        with one_blas_thread():
            done = self._run_pass(work)
        self.checks_integers = False
        self.n_omitted = done.n_omitted
        self.rounded.update(done.rounded)
        self.log_weight_sum = done.log_weight_sum
        return done

    @abstractmethod
    def _begin(self, stack: ExitStack) -> None:
        """Acquire what passes need; the stack releases it at the end."""

    @abstractmethod
    def _run_pass(self, work: Pass) -> PartialResult:
        """Return the partial result of all blocks."""

    def release(self) -> None:  # noqa: B027  (most keep no buffers)
        """Free the buffers of readers, which the next pass opens again."""

    def rounding_warnings(self) -> list[str]:
        """Return a warning for each of X and y whose integers float64 rounds."""
        cure = "; subtract a constant from such columns before they are stored"
        if self._dataset.X.is_sparse:
            # a constant would be stored in every row
            cure = "; store them in larger units"
        return [
            f"{name} holds integers beyond 2^53, which float64 rounds{cure}"
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
