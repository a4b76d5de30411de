"""What a source of rows is: its grid, its reader, and what it says of itself.

To add a kind of source, write one file with a :class:`RowSource`, its :class:`Reader` and a
:class:`Kind`; then name that kind in ``sources/kinds.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

    from streamreg.blocks import Array
    from streamreg.sources.file_stamps import FileStamps


@dataclass(frozen=True)
class RowGrid:
    """The chunks of a source along its rows.

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


class Description(NamedTuple):
    """What ``streamreg info`` shows of how a source is stored; empty where that is unknown."""

    chunks: str | tuple[int, ...] = ""
    chunk_size: str = ""
    codecs: str = ""
    checksum: str = ""


class RowSource(ABC):
    """An array whose rows can be read, some at a time.

    A source answers for itself: other packages ask it, and never compare its class. A new kind of
    source implements ``open`` and ``reader_nbytes``, and overrides what differs from the defaults.

    Attributes
    ----------
    name
        What messages call the array: ``'flights.zarr/X'``, ``X``.
    shape
        (N,) or (N, D).
    dtype
        A real dtype of any width and byte order.
    grid
        The chunks along the rows.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    grid: RowGrid

    # reading

    @abstractmethod
    def open(self) -> Reader:
        """Return a reader, to be used by one thread at a time."""

    # bytes

    @abstractmethod
    def reader_nbytes(self, block_rows: int) -> int:
        """Bytes that one reader holds while it reads blocks of at most ``block_rows`` rows.

        A block is either whole chunks, or a piece of one chunk.
        """

    @property
    def shared_nbytes(self) -> int:
        """Bytes that all readers together hold once."""
        return 0

    def device_nbytes(self, block_rows: int) -> int:
        """Bytes of GPU memory that one reader takes, where rows are made on the device."""
        del block_rows
        return 0

    @property
    def row_nbytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def pass_nbytes(self) -> int:
        """Bytes that one pass over all rows decodes: N · ``row_nbytes``, if rows are dense."""
        return self.grid.n_rows * self.row_nbytes

    # memory in which the rows are

    @property
    def in_memory(self) -> bool:
        """Whether a read returns a view of memory that holds the rows already."""
        return False

    @property
    def on_device(self) -> bool:
        """Whether rows are CuPy's: in the memory of a GPU."""
        return False

    @property
    def whole(self) -> Array | None:
        """All rows, (N, D) or (N, K), if they are on a GPU in C order, ready to be reduced."""
        return None

    @property
    def is_computed(self) -> bool:
        """Whether Dask computes the rows: they are not read only to be looked at.

        On a cluster the workers compute such rows, and ``delayed_chunks`` says how.
        """
        return False

    # identity: which rows these are, and whether they are still the same

    @property
    def storage(self) -> str:
        """How and where values are stored, as far as that may change an answer."""
        return ""

    def inputs(self) -> list[Path]:
        """Return the local files and folders that the rows come from: no output may be there."""
        return []

    @property
    def is_checked_whole(self) -> bool:
        """Whether a checksum of all rows tells them from others: they are quick to read."""
        return self.in_memory

    @property
    def stamps(self) -> FileStamps | None:
        """Which version of each of its files was read; ``None`` if no file is watched."""
        return None

    def require_there(self) -> None:  # noqa: B027  (most are where they were opened)
        """Raise :class:`InputError` if this process cannot find the rows."""

    def require_unchanged(self) -> None:  # noqa: B027  (most have no stamps)
        """Raise :class:`DataCorruptionError` if a file with a stamp has changed since."""

    # messages

    def place(self, row: int, column: int = 0) -> str:
        """Name the place of a value for a message: the array, and its chunk where it has any."""
        del row, column
        return self.name

    def describe(self) -> Description:
        """Return what ``streamreg info`` shows: chunks, their size, codecs and checksums."""
        return Description()

    def layout_advice(self, block_nbytes: int) -> list[str]:
        """Return sentences that say which layout would be read faster or more safely.

        Parameters
        ----------
        block_nbytes
            Bytes of the largest block that is read at once.
        """
        del block_nbytes
        return []

    def rechunk_advice(self, rows: int) -> str:
        """Return how to rewrite the rows in chunks of ``rows`` rows, as a sentence or as code."""
        return f"rewrite {self.name} in chunks of at most {count(rows, 'row')}"

    # clusters

    @property
    def why_unreachable_from_workers(self) -> str:
        """Why the workers of a cluster cannot open the source; empty if they can.

        A part of a sentence that begins with the name of the source.
        """
        return f"lies in this process ({type(self).__name__})"

    def delayed_chunks(self, bounds: list[tuple[int, int]]) -> list[list[Any]] | None:
        """Return, for each span of rows, the chunks that hold it, as values that Dask computes.

        ``None`` unless ``is_computed``.
        """
        del bounds
        return None

    def holding(self, start: int, chunks: list[Any]) -> RowSource:
        """Return the source with the rows from ``start`` on that came with a cluster's task.

        ``chunks`` are those of ``delayed_chunks``, computed. A source that the worker opens
        itself is returned as it is.
        """
        del start, chunks
        return self


class Reader(ABC):
    """Reads rows into buffers that live as long as the reader does."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return rows ``start`` to ``stop``; they stay as they are until the next read."""

    def expect(self, start: int, stop: int) -> None:  # noqa: B027  (most cannot)
        """Let the system fetch these rows into the page cache, where it can."""

    def close(self) -> None:  # noqa: B027  (most have nothing to give back)
        """Close files. Memory is freed with the reader."""


class ArrayGroup(ABC):
    """Several arrays that are stored together: X, y and perhaps sample_weight.

    Attributes
    ----------
    feature_names, target_names
        Names of the columns of X and y, where the group knows them.
    """

    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None

    @abstractmethod
    def member(self, name: str, *, optional: bool = False) -> object:
        """Return the array of that name, as a kind of source accepts it.

        ``None`` if the group has no such array and it is optional.

        Raises
        ------
        InputError
            The group has no such array.
        DataCorruptionError
            The metadata of the array cannot be understood.
        """


class OpenRows(Protocol):
    """How a kind opens its data."""

    def __call__(self, data: Any, name: str, *, missing_chunks: str) -> RowSource:  # noqa: ANN401
        """Return the rows of ``data``, which the kind claims.

        Parameters
        ----------
        data
            An object or a path.
        name
            What messages call it where it has no name of its own.
        missing_chunks
            ``"error"`` or ``"fill"``: what an absent chunk means, where chunks may be absent.

        Raises
        ------
        InputError
            The data cannot be read as rows.
        DataCorruptionError
            The metadata cannot be understood.
        """


def no_group(data: object) -> ArrayGroup | None:
    """Return ``None``: the kind stores no several arrays together."""
    del data
    return None


@dataclass(frozen=True)
class Kind:
    """A kind of source, as the registry in ``sources/kinds.py`` lists it.

    Attributes
    ----------
    claims
        Whether an object or path is of this kind. It reads metadata at most.
    open_rows
        Opens what the kind claims.
    open_group
        Opens what the kind claims as several arrays; returns ``None`` if it is one array.
    """

    claims: Callable[[object], bool]
    open_rows: OpenRows
    open_group: Callable[[object], ArrayGroup | None] = no_group
