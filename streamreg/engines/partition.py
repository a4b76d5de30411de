"""The partition of a pass: which rows are read at once, and which blocks share one state.

Both depend only on the shape, chunks and dtype of the data, and on the size of a state. The memory
limit and the number of threads have no effect on them, and so change no bit of an answer.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import astuple, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from streamreg.errors import CheckpointError
from streamreg.formatting import MIB, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.sources.base import RowGrid

# rows that a kernel takes at a time
_KERNEL_ROWS = 4
# a pass of no more segments has a power of two of them, if they are few because states are large
_FEW = 8


@dataclass(frozen=True)
class PartitionPolicy:
    """Constants that determine a partition."""

    # chunks are joined, by a copy, up to this size
    block_nbytes: int = 2 * MIB
    # size of a block if a part of a chunk can be read. Each block costs some 0.1 ms in Python.
    # Measured at D = 128, as a share of reading alone: 8 MiB 0.57, 16 MiB 0.64, 32 MiB 0.66.
    piece_nbytes: int = 16 * MIB
    # Threads and workers share the segments of a pass, and checkpoints are saved after segments.
    # Each segment costs one state, which is allocated and merged.
    # A pass has ``many_segments``, unless each would be smaller than ``least_segment_nbytes``.
    many_segments: int = 32
    least_segment_nbytes: int = 16 * MIB
    # A pass has more segments if each has at least ``segment_nbytes``, and is at least
    # ``states_a_segment`` times as large as a state. Measured as a share of reading alone:
    # D = 256, 16 MiB 0.54, 32 MiB 0.61; D = 100,000, 16 states 0.38, 32 states 0.45.
    segment_nbytes: int = 32 * MIB
    states_a_segment: int = 32
    most_segments: int = 1024
    # a state above this size is not copied for a checkpoint
    large_state_nbytes: int = 32 * MIB
    # whether a pass keeps one large state and threads share the work on it, in one segment
    shares_large_states: bool = True
    # whether it does if the state has parts, on which different threads can work
    shares_states_with_parts: bool = False
    # segments are about this many times as large as a state; 0: of any size
    states_of_few: int = 0

    def identity(self) -> list[int]:
        """Return all constants; a checkpoint of another partition cannot be resumed."""
        return [_KERNEL_ROWS, *map(int, astuple(self))]

    def is_large(self, state_nbytes: int) -> bool:
        """Whether a state of this size is too large to be copied."""
        return state_nbytes > self.large_state_nbytes

    def n_segments(
        self, n_blocks: int, pass_nbytes: int, state_nbytes: int, n_parts: int = 1
    ) -> int:
        """Return the number of segments of a pass over this many blocks and bytes."""
        if self.shares(n_parts) and self.is_large(state_nbytes):
            return 1
        least = max(self.segment_nbytes, self.states_a_segment * state_nbytes)
        wanted = min(max(self.many_segments, pass_nbytes // least), self.most_segments)
        most = pass_nbytes // self.least_segment_nbytes
        if self.states_of_few:
            most = min(most, _shared(-(-pass_nbytes // (self.states_of_few * state_nbytes))))
        return max(1, min(wanted, most, n_blocks))

    def shares(self, n_parts: int) -> bool:
        """Whether threads share a large state, which has this many parts."""
        return self.shares_large_states or (self.shares_states_with_parts and n_parts > 1)

    def of_rows(self, *, is_sparse: bool) -> PartitionPolicy:
        """Return the policy for these rows."""
        if not is_sparse:
            return self
        # Sparse rows take more time for each byte, so that few bytes are shared by threads; and
        # threads do not share a state without parts, because each value changes another number.
        return replace(
            self,
            least_segment_nbytes=4 * MIB,
            states_of_few=3,
            shares_large_states=False,
            shares_states_with_parts=True,
        )


# the policy for threads, of this machine or of a cluster's workers
HOST = PartitionPolicy()


@dataclass(frozen=True)
class Blocks:
    """The blocks of a data set, as (first row, row after the last).

    Chunks smaller than a block are joined to one. Larger ones are divided into pieces of equal
    height, the last one lower, if their rows can be read piecemeal; otherwise they are read whole.
    """

    n_rows: int
    group_rows: int  # of consecutive chunks that are joined; the last group may have fewer
    piece_rows: int  # of a block
    bounds: tuple[int, ...] | None = None  # for chunks of unequal height: first rows, then N

    @classmethod
    def of(cls, grid: RowGrid, row_nbytes: int, policy: PartitionPolicy = HOST) -> Blocks:
        """Return the blocks of rows of this many bytes, stored in the chunks of ``grid``."""
        if grid.has_blocks:
            return cls(grid.n_rows, grid.chunk_rows, grid.chunk_rows, grid.bounds)
        rows = max(1, policy.block_nbytes // row_nbytes)
        if grid.divisible:
            rows = max(1, round(policy.piece_nbytes / row_nbytes / _KERNEL_ROWS)) * _KERNEL_ROWS
        if grid.bounds is not None:
            bounds = _joined(grid.bounds, rows)
            largest = max(b - a for a, b in pairwise(bounds))
            return cls(grid.n_rows, largest, largest, bounds)
        height = min(grid.chunk_rows, grid.n_rows)
        if not grid.divisible:
            group = max(1, rows // height) * height
            return cls(grid.n_rows, group, group)
        if height <= rows:
            # as many chunks as come nearest to ``rows``
            group = round(rows / height) * height
            return cls(grid.n_rows, group, group)
        # equal pieces, each a multiple of the rows that a kernel takes at a time
        pieces = max(1, round(height / rows))
        return cls(grid.n_rows, height, -(-height // (pieces * _KERNEL_ROWS)) * _KERNEL_ROWS)

    @property
    def max_rows(self) -> int:
        """Rows of the largest block."""
        return min(self.piece_rows, self.n_rows)

    def __len__(self) -> int:
        if self.bounds is not None:
            return len(self.bounds) - 1
        groups, rest = divmod(self.n_rows, self.group_rows)
        return groups * -(-self.group_rows // self.piece_rows) + -(-rest // self.piece_rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.bounds is not None:
            return self.bounds[index], self.bounds[index + 1]
        group, piece = divmod(index, -(-self.group_rows // self.piece_rows))
        start = group * self.group_rows + piece * self.piece_rows
        stop = min(start + self.piece_rows, (group + 1) * self.group_rows, self.n_rows)
        return start, stop

    def require_first(self, n_blocks: int) -> None:
        """Raise :class:`CheckpointError` if the data have fewer blocks than a checkpoint claims."""
        if n_blocks > len(self):
            raise CheckpointError(
                f"the checkpoint claims {count(n_blocks, 'reduced block')} but the data have "
                f"{len(self):,}; it is damaged: remove it to start over"
            )

    def number_at(self, row: int) -> int:
        """Return the number of the block that holds a row."""
        if self.bounds is not None:
            return bisect_right(self.bounds, row) - 1
        group, offset = divmod(row, self.group_rows)
        return group * -(-self.group_rows // self.piece_rows) + offset // self.piece_rows


def _shared(n_segments: int) -> int:
    """Return a power of two for a few segments, which threads can share evenly."""
    return n_segments if n_segments > _FEW else 1 << (n_segments - 1).bit_length()


def segments_of(n_blocks: int, n_segments: int) -> list[range]:
    """Return the segments of a pass, as ranges of block numbers."""
    bounds = (at * n_blocks // n_segments for at in range(n_segments + 1))
    return [range(first, last) for first, last in pairwise(bounds)]


def segments_after(segments: list[range], n_blocks: int) -> list[range]:
    """Return the segments after the first ``n_blocks`` blocks.

    Raises :class:`CheckpointError` if that is inside a segment, where a fit of this version never
    stops.
    """
    rest = [segment for segment in segments if segment.start >= n_blocks]
    of_all = segments[-1].stop
    if (rest[0].start if rest else of_all) != n_blocks:
        raise CheckpointError(
            f"the checkpoint ends after {n_blocks:,} of {of_all:,} blocks, where no segment ends: "
            "it is of another version, or damaged. Remove it to start over"
        )
    return rest


def _joined(bounds: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Join consecutive chunks while they have no more than ``rows`` rows together."""
    joined = [bounds[0]]
    for before, here in pairwise(bounds[1:]):
        if here - joined[-1] > rows:
            joined.append(before)
    joined.append(bounds[-1])
    return tuple(joined)
