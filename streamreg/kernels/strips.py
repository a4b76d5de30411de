"""Strips: columns of X, all rows of each, as centred float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from streamreg.blocks import Array, Float64
    from streamreg.kernels.row_tiles import Columns

    Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]

# Columns that are multiplied at a time. Sums are added in this order, whatever the memory and the
# threads.
STRIP_COLUMNS = 1024
# Bytes of a strip as stored, at most: larger ones save no time.
_STRIP_NBYTES = 256 << 20


class Strips(NamedTuple):
    """How columns are read: ``width`` at once, a multiple of ``step``; and which rows count."""

    width: int
    step: int
    rows: Numbers | None = None  # (N,) the numbers of the rows; ``None``: all

    def pieces(self, n_columns: int, height: int) -> Iterator[slice]:
        """Yield the columns of a strip that are taken together.

        They depend on the step and not on the width, so that strips of any width give the same
        sums.
        """
        for start in range(0, n_columns, self.step):
            stop = min(start + self.step, n_columns)
            for first in range(start, stop, height):
                yield slice(first, min(first + height, stop))

    def widened(
        self, strip: Array, piece: slice, columns: Columns, room: Float64, rows: slice = slice(None)
    ) -> Float64:
        """Return columns of a strip (N, W) as z, (n, columns), in the memory of ``room``."""
        part = strip[rows, piece] if self.rows is None else strip[self.rows[rows], piece]
        own = columns.at(piece.start, piece.stop)
        return own.widened(part, slice(0, part.shape[1]), room)


def strip_step(column_step: int) -> int:
    """Return the columns that a strip has a multiple of, given those that are read together."""
    return column_step * max(1, STRIP_COLUMNS // column_step)


def strip_counts(n_features: int, step: int, column_nbytes: int) -> Iterator[int]:
    """Yield in how many strips X can be read: the fewest first."""
    n_steps = -(-n_features // step)
    most_steps = max(1, _STRIP_NBYTES // (step * max(1, column_nbytes)))
    count = -(-n_steps // most_steps)
    while count < n_steps:
        yield count
        count += 1 + count // 8
    yield n_steps


def strip_width(n_features: int, step: int, count: int) -> int:
    """Return the columns of a strip, a multiple of the step."""
    n_steps = -(-n_features // step)
    return -(-n_steps // count) * step
