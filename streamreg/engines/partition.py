"""Which rows are read at once, and which blocks fold into one state.

Both depend on the shape, chunks and dtype of the data and on the size of a state alone: never on
the memory limit or the number of threads, so that these change no bit of an answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, overload

from streamreg.errors import CheckpointError
from streamreg.formatting import MIB

if TYPE_CHECKING:
    from streamreg.sources.base import RowGrid

# chunks are joined, by a copy, up to this size
BLOCK_NBYTES = 2 * MIB
# rows that can be had piecemeal are read so many at once, and folded while they are still in the
# processor's last cache. Measured at D = 256, as a part of reading alone: 2 MiB 0.54, 8 MiB 0.69
PIECE_NBYTES = 8 * MIB
# what a GPU is sent at once: to queue its folding costs the host some tenths of a millisecond, in
# which a bus of today brings 16 MiB
DEVICE_BLOCK_NBYTES = 64 * MIB
# at whose end a state comes back from it, and the host waits for that: some tenths of a
# millisecond, in which a GPU of today reads 1 GiB of its memory
DEVICE_SEGMENT_NBYTES = 2048 * MIB
# rows that loops take at a time
_LOOP_ROWS = 4
# a fit is saved, and its work shared, in segments; each costs a state that is made, handed over and
# merged. So many are wanted, none smaller than this ...
_MANY_SEGMENTS = 32
_LEAST_SEGMENT_NBYTES = 16 * MIB
# ... and more as long as each is so large, and so many times as large as a state. Measured as a
# part of reading alone: D = 256, 16 MiB 0.54, 32 MiB 0.61; D = 100,000, 16 states 0.38, 32 0.45
_SEGMENT_NBYTES = 32 * MIB
_STATES_A_SEGMENT = 32
_MOST_SEGMENTS = 1024
# states above are kept once, and threads share the work on them; on a GPU they stay there
LARGE_STATE_NBYTES = 32 * MIB
# what the cut depends on, beside the data: a fit that was begun with another one cannot be gone on
# with
PARTITION_CONSTANTS = (
    BLOCK_NBYTES, PIECE_NBYTES, DEVICE_BLOCK_NBYTES, DEVICE_SEGMENT_NBYTES, _LOOP_ROWS,
    _MANY_SEGMENTS, _LEAST_SEGMENT_NBYTES, _SEGMENT_NBYTES, _STATES_A_SEGMENT, _MOST_SEGMENTS,
    LARGE_STATE_NBYTES,
)  # fmt: skip


@dataclass(frozen=True)
class Blocks(Sequence[tuple[int, int]]):
    """The blocks of a data set, as (first row, row after the last).

    Chunks smaller than a block are joined to one; larger ones are cut into pieces of as many rows,
    the last of fewer, if their rows can be read piecemeal, else read whole.

    Attributes
    ----------
    n_rows
        N.
    group_rows
        Rows of consecutive chunks that are joined; the last group may have fewer.
    piece_rows
        Rows of a block.
    bounds
        For chunks of unequal height: the first row of each block, then N.
    """

    n_rows: int
    group_rows: int
    piece_rows: int
    bounds: tuple[int, ...] | None = None

    @classmethod
    def of(cls, grid: RowGrid, row_nbytes: int, *, on_device: bool = False) -> Blocks:
        """Return the blocks of rows of so many bytes, cut on disk by ``grid``."""
        rows = max(1, (DEVICE_BLOCK_NBYTES if on_device else BLOCK_NBYTES) // row_nbytes)
        if grid.divisible:
            piece_nbytes = DEVICE_BLOCK_NBYTES if on_device else PIECE_NBYTES
            rows = max(1, piece_nbytes // row_nbytes // _LOOP_ROWS) * _LOOP_ROWS
        if grid.bounds is not None:
            bounds = _joined(grid.bounds, rows)
            largest = max(b - a for a, b in pairwise(bounds))
            return cls(grid.n_rows, largest, largest, bounds)
        height = min(grid.chunk_rows, grid.n_rows)
        if height <= rows:
            group = rows // height * height
            return cls(grid.n_rows, group, group)
        if not grid.divisible:
            return cls(grid.n_rows, height, height)
        # equal pieces, but for what loops would take a row at a time
        pieces = -(-height // rows)
        return cls(grid.n_rows, height, -(-height // (pieces * _LOOP_ROWS)) * _LOOP_ROWS)

    @property
    def max_rows(self) -> int:
        """Rows of the largest block."""
        return min(self.piece_rows, self.n_rows)

    def __len__(self) -> int:
        if self.bounds is not None:
            return len(self.bounds) - 1
        groups, rest = divmod(self.n_rows, self.group_rows)
        return groups * -(-self.group_rows // self.piece_rows) + -(-rest // self.piece_rows)

    @overload
    def __getitem__(self, index: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, int]]: ...
    def __getitem__(self, index: int | slice) -> tuple[int, int] | list[tuple[int, int]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        if self.bounds is not None:
            return self.bounds[index], self.bounds[index + 1]
        group, piece = divmod(index, -(-self.group_rows // self.piece_rows))
        start = group * self.group_rows + piece * self.piece_rows
        stop = min(start + self.piece_rows, (group + 1) * self.group_rows, self.n_rows)
        return start, stop

    def require_begun(self, n_blocks: int) -> None:
        """Raise :class:`CheckpointError` if so many blocks cannot have been folded."""
        if n_blocks > len(self):
            raise CheckpointError(
                f"the checkpoint tells of {n_blocks:,} blocks where the data have {len(self):,}; "
                "it is damaged: remove it to start anew"
            )

    def number_at(self, row: int) -> int:
        """Return the number of the block that holds a row."""
        if self.bounds is not None:
            return bisect_right(self.bounds, row) - 1
        group, offset = divmod(row, self.group_rows)
        return group * -(-self.group_rows // self.piece_rows) + offset // self.piece_rows


@dataclass(frozen=True)
class Segments(Sequence[range]):
    """The segments of a pass, as ranges of block numbers.

    Attributes
    ----------
    n_blocks
        Blocks of the data set.
    n_segments
        1 if the state is so large that threads keep it once.
    """

    n_blocks: int
    n_segments: int

    @classmethod
    def of(
        cls, n_blocks: int, pass_nbytes: int, state_nbytes: int, *, on_device: bool = False
    ) -> Segments:
        """Return the segments of a pass over so many blocks and bytes, with such a state."""
        if on_device:
            each = DEVICE_SEGMENT_NBYTES
            if state_nbytes > LARGE_STATE_NBYTES:
                each = max(each, _STATES_A_SEGMENT * state_nbytes)
            return cls(n_blocks, max(1, min(pass_nbytes // each, _MOST_SEGMENTS, n_blocks)))
        if state_nbytes > LARGE_STATE_NBYTES:
            return cls(n_blocks, 1)
        large = pass_nbytes // max(_SEGMENT_NBYTES, _STATES_A_SEGMENT * state_nbytes)
        wanted = min(max(_MANY_SEGMENTS, large), _MOST_SEGMENTS)
        return cls(n_blocks, max(1, min(wanted, pass_nbytes // _LEAST_SEGMENT_NBYTES, n_blocks)))

    def after(self, n_blocks: int) -> list[range]:
        """Return the segments after so many blocks, which fill those before.

        Raises
        ------
        CheckpointError
            A segment has begun before, and ends after: a fit of this version never stands there.
        """
        rest = [segment for segment in self if segment.start >= n_blocks]
        if (rest[0].start if rest else self.n_blocks) != n_blocks:
            raise CheckpointError(
                f"the checkpoint stands after {n_blocks:,} of {self.n_blocks:,} blocks, where no "
                "segment ends: it is of another version, or damaged. Remove it to start anew"
            )
        return rest

    def __len__(self) -> int:
        return self.n_segments

    @overload
    def __getitem__(self, index: int) -> range: ...
    @overload
    def __getitem__(self, index: slice) -> list[range]: ...
    def __getitem__(self, index: int | slice) -> range | list[range]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < self.n_segments:
            raise IndexError(index)
        first, last = (at * self.n_blocks // self.n_segments for at in (index, index + 1))
        return range(first, last)


def _joined(bounds: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Join consecutive chunks while they have no more than ``rows`` rows together."""
    joined = [bounds[0]]
    for before, here in pairwise(bounds[1:]):
        if here - joined[-1] > rows:
            joined.append(before)
    joined.append(bounds[-1])
    return tuple(joined)
