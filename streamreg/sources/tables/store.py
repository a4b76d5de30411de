"""The columns of a table, wherever they are stored, as batches of Arrow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

from streamreg.formatting import MIB
from streamreg.sources.tables.values import has_levels

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

# of decoded rows that are read at once
PIECE_NBYTES = 8 * MIB


class Columns(ABC):
    """The columns of a table by name; ``parsed`` makes rows of those that are used."""

    # the path of the table
    name: str
    # columns that are no data, with the reason
    own_columns: Mapping[str, str]

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The names of all columns."""

    def delimiter_for(self, name: str) -> str | None:  # noqa: ARG002
        """Return the delimiter with which a text file would have a column of this name."""
        return None

    @abstractmethod
    def level_columns(self, candidates: Sequence[str]) -> list[str]:
        """Return the columns that hold texts or categories."""

    @abstractmethod
    def parsed(
        self,
        used: Sequence[str],
        one_hot: Collection[str],
        *,
        texts: Collection[str] = (),
        folder: Path | None = None,
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> Store:
        """Return the rows of the columns that are ``used``, as numbers but for ``texts``.

        Temporary files are in ``folder``; ``on_rows`` is told of rows that are parsed.
        """


class Store(Columns):
    """Columns of N rows, in parts that can be read by themselves: row groups, or batches.

    ``schema`` holds the names and types of the columns, ``bounds`` the first row of each part, then
    N.
    """

    schema: pa.Schema
    bounds: Sequence[int]
    # whether rows were reported when they were parsed
    is_parsed: bool = False
    # columns that only count rows, if that was noticed when they were parsed
    counters: frozenset[str] | None = None
    # columns in which a number beyond 2**53 was rounded when the table was opened
    rounded: frozenset[str] = frozenset()
    # what row 0 is called, and what that means, for messages
    first_row: int = 0
    rows_meaning: str = "the first row is 0"
    # what to do first if a solver takes many passes
    advice_for_many_passes: str = ""

    @property
    def names(self) -> Sequence[str]:
        names: list[str] = self.schema.names
        return names

    def level_columns(self, candidates: Sequence[str]) -> list[str]:
        return [name for name in candidates if has_levels(self.schema.field(name).type)]

    def parsed(
        self,
        used: Sequence[str],  # noqa: ARG002
        one_hot: Collection[str],  # noqa: ARG002
        *,
        texts: Collection[str] = (),  # noqa: ARG002
        folder: Path | None = None,  # noqa: ARG002
        on_rows: Callable[[int], None] = lambda _: None,  # noqa: ARG002
    ) -> Store:
        return self

    @property
    def n_rows(self) -> int:
        """N."""
        return self.bounds[-1]

    @abstractmethod
    def select(self, columns: Sequence[str], piece_rows: int) -> Selection:
        """Return some columns, to be read in pieces of mostly ``piece_rows`` rows."""

    @abstractmethod
    def selection_nbytes(self, columns: Sequence[str], piece_rows: int) -> tuple[int, int]:
        """Bytes that a selection holds for each of its readers, and for all of them together."""

    def local_paths(self) -> list[Path]:
        """Return the files of the table."""
        return []

    def require_unchanged(self) -> None:
        """Raise ``DataCorruptionError`` if a file has changed since it was opened."""

    def pieces(self, rows: int) -> tuple[int, ...]:
        """Return the bounds of pieces of equal height of each part, of ``rows`` rows at most."""
        bounds = [0]
        for start, stop in pairwise(self.bounds):
            height = piece_height(stop - start, rows)
            bounds += [min(at + height, stop) for at in range(start, stop, height)]
        return tuple(bounds)


class Selection(ABC):
    """Some columns of a store; any thread may read them."""

    # readers that use the selection now
    n_readers: int = 0

    @abstractmethod
    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        """Yield the rows from ``start`` to ``stop``."""

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Close files."""


def piece_height(n_rows: int, most: int) -> int:
    """Return the rows of the pieces of a part of ``n_rows`` rows: equal, and ``most`` at most."""
    n_pieces = -(-n_rows // max(1, most))
    return max(1, -(-n_rows // max(1, n_pieces)))


def spans(bounds: Sequence[int], start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield (part, first row, row after the last), in rows of the part, of a range of rows."""
    part = bisect_right(bounds, start) - 1
    while start < stop:
        low, high = bounds[part], min(bounds[part + 1], stop)
        if high > start:
            yield part, start - low, high - low
        start, part = max(start, high), part + 1


def width(kind: pa.DataType) -> int:
    """Return the bytes of a value; 32 of a text."""
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return 32
