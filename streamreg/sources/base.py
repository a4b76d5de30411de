"""What a source of rows is.

To add a kind of source, write one file with a :class:`RowSource` and a function
``open_rows(data, name, ...)`` that returns it, or ``None`` where the data are of another kind;
then name the file in ``sources/opening.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np

    from streamreg.blocks import Array
    from streamreg.sources.zarr.versions import FileStamps


@dataclass(frozen=True)
class RowGrid:
    """Where a source is cut along its rows.

    Attributes
    ----------
    n_rows
        N.
    chunk_rows
        Rows of each chunk; the last may hold fewer.
    bounds
        For chunks of unequal height: the first row of each chunk, then N.
    divisible
        Whether some rows of a chunk can be read without reading the rest of it.
    """

    n_rows: int
    chunk_rows: int
    bounds: tuple[int, ...] | None = None
    divisible: bool = False

    @classmethod
    def irregular(cls, heights: Sequence[int]) -> RowGrid:
        """Return the grid of chunks of these heights; empty ones are left out."""
        filled = [int(height) for height in heights if height > 0]
        chunk_rows, n_rows = max(filled, default=1), sum(filled)
        if all(height == chunk_rows for height in filled[:-1]):
            return cls(n_rows, chunk_rows)
        return cls(n_rows, chunk_rows, bounds=tuple(accumulate(filled, initial=0)))

    def __len__(self) -> int:
        if self.bounds is not None:
            return len(self.bounds) - 1
        return (self.n_rows + self.chunk_rows - 1) // self.chunk_rows

    def chunk_at(self, row: int) -> int:
        """Return the number of the chunk that holds ``row``."""
        if self.bounds is not None:
            return bisect_right(self.bounds, row) - 1
        return row // self.chunk_rows

    def rows(self, chunk: int) -> tuple[int, int]:
        """Return the first row of a chunk, and the row after its last."""
        if self.bounds is not None:
            return self.bounds[chunk], self.bounds[chunk + 1]
        start = chunk * self.chunk_rows
        return start, min(start + self.chunk_rows, self.n_rows)


class RowSource(ABC):
    """An array whose rows can be read, a few at a time.

    Attributes
    ----------
    name
        What messages call the array: ``'flights.zarr/X'``, ``X``.
    shape
        (N,) or (N, D).
    dtype
        A real dtype of any width and byte order.
    grid
        Where the array is cut along its rows.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grid: RowGrid

    @abstractmethod
    def open(self) -> Reader:
        """Return a reader, to be used by one thread at a time."""

    @abstractmethod
    def reader_nbytes(self, block_rows: int) -> int:
        """Bytes that one reader keeps while it reads blocks of at most ``block_rows`` rows.

        The blocks are taken to be whole chunks, or pieces of one.
        """

    def device_nbytes(self, block_rows: int) -> int:
        """Bytes that one reader takes of a GPU, where rows are made there."""
        del block_rows
        return 0

    @property
    def in_memory(self) -> bool:
        """Whether reading hands out what lies in memory already."""
        return False

    @property
    def whole(self) -> Array | None:
        """All rows, (N, D) or (N, K), if they lie on a GPU in C order, as they are folded."""
        return None

    @property
    def on_device(self) -> bool:
        """Whether rows are CuPy's: in the memory of a GPU."""
        return False

    @property
    def is_checked_whole(self) -> bool:
        """Whether all rows are looked at to tell them from others: they lie at hand."""
        return self.in_memory

    @property
    def is_computed(self) -> bool:
        """Whether rows are computed elsewhere, and none should be had just to look at them."""
        return False

    @property
    def shared_nbytes(self) -> int:
        """Bytes that all readers together keep once."""
        return 0

    def place(self, row: int, column: int = 0) -> str:
        """Say where a value lies, for a message: the array, and its chunk where it has any."""
        del row, column
        return self.name

    def inputs(self) -> list[Path]:
        """Return the local files and folders that the rows come from: no output may lie there."""
        return []

    @property
    def stamps(self) -> FileStamps | None:
        """Which version of each of its files was read; ``None`` where nobody watches them."""
        return None

    def require_there(self) -> None:  # noqa: B027  (most are where they were opened)
        """Raise :class:`InputError` if the rows cannot be found by this process."""

    def require_unchanged(self) -> None:  # noqa: B027  (most have no stamps)
        """Raise :class:`DataCorruptionError` if a file that stamps tell of has changed since."""

    @property
    def storage(self) -> str:
        """How and where values are stored, as far as that may change an answer."""
        return ""

    @property
    def row_nbytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Reader(ABC):
    """Reads rows into buffers that live as long as the reader does."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return rows ``start`` to ``stop``; they stay as they are until the next read."""

    def expect(self, start: int, stop: int) -> None:  # noqa: B027  (most cannot)
        """Have the system fetch these rows into its own cache, if that can be asked of it."""

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Give back what the system lent: files, not memory."""
