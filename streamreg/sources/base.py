"""What a source of rows is, and how its chunks become rows in memory.

To add a kind of source, write one file with a :class:`RowSource` and a function
``open_rows(data, name, ...)`` that returns it, or ``None`` where the data are of another kind;
then name the file in ``sources/__init__.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.blocks import Array


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
        filled = [height for height in heights if height > 0]
        bounds = np.concatenate([[0], np.cumsum(filled, dtype=np.int64)]).tolist()
        return cls(n_rows=bounds[-1], chunk_rows=max(filled, default=1), bounds=tuple(bounds))

    def __len__(self) -> int:
        if self.bounds is not None:
            return len(self.bounds) - 1
        return -(-self.n_rows // self.chunk_rows)

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
    dtype: np.dtype
    grid: RowGrid

    @abstractmethod
    def open(self) -> Reader:
        """Return a reader, to be used by one thread at a time."""

    @abstractmethod
    def reader_nbytes(self, block_rows: int) -> int:
        """Bytes that one reader keeps while it reads blocks of at most ``block_rows`` rows."""

    def place(self, row: int, column: int = 0) -> str:
        """Say where a value lies, for a message: the array, and its chunk where it has any."""
        del row, column
        return self.name

    @property
    def row_nbytes(self) -> int:
        """Bytes of one decoded row."""
        width = int(np.prod(self.shape[1:], dtype=np.int64)) if len(self.shape) > 1 else 1
        return width * self.dtype.itemsize


class Reader(ABC):
    """Reads rows into buffers that live as long as the reader does."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return rows ``start`` to ``stop``; they stay as they are until the next read."""

    def close(self) -> None:
        """Give back what the system lent: files, not memory."""


class ChunkReader(Reader):
    """Reads chunk rows whole, keeps the last one, and joins them where a block spans several."""

    def __init__(self, source: RowSource) -> None:
        self._grid = source.grid
        self._row_shape = source.shape[1:]
        self._dtype = source.dtype
        self._chunk: int | None = None
        self._rows: Array | None = None
        self._joined: Array | None = None

    @abstractmethod
    def load(self, chunk: int) -> Array:
        """Return the rows of a chunk; they stay as they are until the next call."""

    def read(self, start: int, stop: int) -> Array:
        first, last = self._grid.chunk_at(start), self._grid.chunk_at(stop - 1)
        if first == last:
            return self._part(first, start, stop)
        joined = self._room(stop - start)
        for chunk in range(first, last + 1):
            low, high = self._grid.rows(chunk)
            low, high = max(low, start), min(high, stop)
            joined[low - start : high - start] = self._part(chunk, low, high)
        return joined

    def _part(self, chunk: int, start: int, stop: int) -> Array:
        if self._rows is None or chunk != self._chunk:
            # forgotten first: a failed load must not leave half of another chunk behind
            self._chunk, self._rows = None, None
            self._rows = self.load(chunk)
            self._chunk = chunk
        offset = self._grid.rows(chunk)[0]
        return self._rows[start - offset : stop - offset]

    def _room(self, n_rows: int) -> Array:
        if self._joined is None or len(self._joined) < n_rows:
            self._joined = np.empty((n_rows, *self._row_shape), self._dtype)
        return self._joined[:n_rows]


def joined_nbytes(source: RowSource, block_rows: int) -> int:
    """Bytes of the buffer in which a :class:`ChunkReader` joins chunks; 0 where it needs none."""
    aligned = source.grid.bounds is None and block_rows <= source.grid.chunk_rows
    return 0 if aligned and source.grid.chunk_rows % block_rows == 0 else (
        block_rows * source.row_nbytes
    )


def require_rows(source: RowSource, *, max_dimensions: int = 2) -> None:
    """Refuse an array that no regression can use.

    Raises
    ------
    InputError
        The dtype is not real, there are no rows or no columns, or too many dimensions.
    """
    shape, dtype, name = source.shape, source.dtype, source.name
    if dtype.kind == "c":
        raise InputError(
            f"Complex data not supported: {name} has dtype {dtype}; fit its .real and .imag parts"
        )
    if dtype.kind not in "biuf":
        raise InputError(
            f"{name} has dtype {dtype}, which is not a real number; "
            "store it as integers or floats"
        )
    if not 1 <= len(shape) <= max_dimensions:
        allowed = "(N,)" if max_dimensions == 1 else "(N, D)"
        raise InputError(
            f"{name} has shape {shape}, {len(shape)} dimensions; it must be {allowed}. "
            "Reshape your data"
        )
    if shape[0] == 0:
        raise InputError(
            f"Found array with 0 sample(s) (shape={shape}) while a minimum of 1 is required: {name}"
        )
    if len(shape) > 1 and shape[1] == 0:
        raise InputError(
            f"Found array with 0 feature(s) (shape={shape}) "
            f"while a minimum of 1 is required: {name}"
        )
