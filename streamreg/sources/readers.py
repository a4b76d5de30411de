"""How chunks become rows in memory, for one thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource


class Reader(ABC):
    """Reads rows into buffers that live as long as the reader does."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return rows ``start`` to ``stop``; they stay as they are until the next read."""

    def expect(self, start: int, stop: int) -> None:  # noqa: B027  (most cannot)
        """Have the system fetch these rows into its own cache, if that can be asked of it."""

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Give back what the system lent: files, not memory."""


class ViewReader(Reader):
    """Hands out views of an array in memory."""

    def __init__(self, array: Array) -> None:
        self._array = array

    def read(self, start: int, stop: int) -> Array:
        return self._array[start:stop]


class ChunkReader(Reader):
    """Reads chunk rows whole, keeps the last one, and joins them where a block spans several."""

    def __init__(self, source: RowSource) -> None:
        self._grid = source.grid
        self._joined = RowBuffer(source.shape[1:], source.dtype)
        self._chunk: int | None = None
        self._rows: Array | None = None

    @abstractmethod
    def load(self, chunk: int) -> Array:
        """Return the rows of a chunk; they stay as they are until the next call."""

    def read(self, start: int, stop: int) -> Array:
        spans = self._spans(start, stop)
        if len(spans) == 1:
            return self._part(*spans[0])
        joined = self._joined.rows(stop - start)
        for chunk, low, high in spans:
            joined[low - start : high - start] = self._part(chunk, low, high)
        return joined

    def _spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Return the chunks that hold some rows, and from which row to which each does."""
        spans = []
        for chunk in range(self._grid.chunk_at(start), self._grid.chunk_at(stop - 1) + 1):
            low, high = self._grid.rows(chunk)
            spans.append((chunk, max(low, start), min(high, stop)))
        return spans

    def _part(self, chunk: int, start: int, stop: int) -> Array:
        if self._rows is None or chunk != self._chunk:
            # forgotten first: a failed load must not leave half of another chunk behind
            self._chunk, self._rows = None, None
            self._rows = self.load(chunk)
            self._chunk = chunk
        offset = self._grid.rows(chunk)[0]
        return self._rows[start - offset : stop - offset]


class RowBuffer:
    """Room for rows that is kept from one read to the next, and grows if it must."""

    def __init__(self, row_shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._rows: Array = np.empty((0, *row_shape), dtype)

    def rows(self, count: int) -> Array:
        """Return ``count`` contiguous rows, whatever they hold."""
        if len(self._rows) < count:
            row_shape, dtype = self._rows.shape[1:], self._rows.dtype
            # given back first: else the old and the new would lie side by side
            self._rows = np.empty((0, *row_shape), dtype)
            self._rows = np.empty((count, *row_shape), dtype)
        return self._rows[:count]
