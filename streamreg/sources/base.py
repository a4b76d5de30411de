"""What a source of rows is: its grid, its reader, and its description.

To add a kind of source, write one file with a :class:`RowSource`, its :class:`Reader` and a
:class:`Kind`; then name that kind in ``sources/kinds.py``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from streamreg.formatting import count, rows_text
from streamreg.sources.packing import undecoded_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from streamreg.blocks import Array
    from streamreg.schema import Schema
    from streamreg.sources.file_stamps import FileStamps


@dataclass(frozen=True)
class RowGrid:
    """The chunks of a source along its rows."""

    n_rows: int
    # rows of each chunk; the last may hold fewer
    chunk_rows: int
    # if chunks have unequal heights: the first row of each chunk, then N
    bounds: tuple[int, ...] | None = None
    # whether some rows of a chunk can be read without reading the rest of it
    divisible: bool = False
    # whether each chunk is a block: chunks are neither joined nor divided
    has_blocks: bool = False

    @classmethod
    def irregular(cls, heights: Sequence[int]) -> RowGrid:
        """Return the grid of chunks of these heights; empty ones are left out."""
        filled = [int(height) for height in heights if height > 0]
        chunk_rows, n_rows = max(filled, default=1), sum(filled)
        if all(height == chunk_rows for height in filled[:-1]):
            return cls(n_rows, chunk_rows)
        return cls(n_rows, chunk_rows, bounds=tuple(accumulate(filled, initial=0)))

    @classmethod
    def in_blocks(cls, n_rows: int, height: int, *, divisible: bool) -> RowGrid:
        """Return the grid whose blocks have this height."""
        chunk_rows = max(1, min(height, n_rows))
        return cls(n_rows, chunk_rows, divisible=divisible, has_blocks=True)

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

    def spans(self, start: int, stop: int) -> list[tuple[int, int, int]]:
        """Return (chunk, first row, row after the last) for each chunk of a range of rows."""
        chunks = range(self.chunk_at(start), self.chunk_at(stop - 1) + 1)
        bounds = ((chunk, *self.rows(chunk)) for chunk in chunks)
        return [(chunk, max(low, start), min(high, stop)) for chunk, low, high in bounds]


class RowSource(ABC):
    """An array of shape (N,) or (N, D) whose rows can be read, some at a time."""

    # what messages call the array: 'flights.zarr/X', X
    name: str
    shape: tuple[int, ...]
    # what messages call one of its rows
    noun: str = "row"
    # of an array that is a part of sparse rows: the rows of X to which some of its values belong
    rows_holding: Callable[[int, int], tuple[int, int]] | None = None
    # real, of any width and byte order
    dtype: np.dtype[Any]
    grid: RowGrid

    # whether a read returns a view of memory that holds the rows already
    in_memory: bool = False
    # Whether kernels may read a few rows of a block at a time (``Reader.parts``): files hold the
    # rows as memory would, uncompressed, in C order, whole rows; or the reader holds columns.
    is_in_files: bool = False
    # whether blocks hold sparse rows (``blocks.SparseRows``)
    is_sparse: bool = False
    # of a range of columns: the number of the first, for messages
    first_column: int = 0
    # names of the columns, if they are stored with the rows
    feature_names: tuple[str, ...] | None = None
    # names of the columns of y, if they are stored with the rows
    target_names: tuple[str, ...] | None = None
    # whether rows are CuPy's: in the memory of a GPU
    is_cupy: bool = False
    # all rows, (N, D) or (N, K), if they are in GPU memory in C order, ready to be reduced
    device_rows: Array | None = None
    # whether Dask computes the rows; on a cluster the workers compute ``delayed_chunks``
    is_computed: bool = False
    # how and where values are stored, as far as that may change an answer
    storage: str = ""
    # Whether the fingerprint of the rows is a checksum of all of them, because no file tells their
    # version. To resume predictions with it would cost as much as to predict them again.
    fingerprint_reads_all_rows: bool = False
    # whether coercion rounded an integer beyond 2^53, which float64 does not represent
    is_rounded: bool = False
    # CF attributes of the array, such as scale_factor: see ``packing.NAMES``
    attributes: Mapping[str, Any] = MappingProxyType({})
    # attributes that a labelled array of xarray carries; xarray drops those that it applied
    labels: Mapping[str, Any] = MappingProxyType({})
    # which attributes make stored values NaN, for a message; empty if none do
    missing_text: str = ""
    # which version of each of its files was read; ``None`` if no file is watched
    stamps: FileStamps | None = None
    # the end of "<name> ...": why workers of a cluster cannot open the source; empty if they can
    why_unreachable_from_workers: str = "exists in this process only"

    # Columns that are read together, without the others: those of a chunk, or 1 if any columns of a
    # chunk can be read; 0 if only whole rows can.
    column_step: int = 0

    # what to do first if a solver takes many passes over the rows; empty if nothing pays
    advice_for_many_passes: str = ""

    @abstractmethod
    def open(self) -> Reader:
        """Return a reader, to be used by one thread at a time."""

    @abstractmethod
    def reader_nbytes(self, block_rows: int) -> int:
        """Bytes that one reader holds while it reads blocks of at most ``block_rows`` rows.

        A block is either whole chunks, or a piece of one chunk.
        """

    def around_columns(self, start: int, stop: int) -> tuple[RowSource, int]:  # noqa: ARG002
        """Return the least array that is read for these columns, and its first column."""
        return self, 0

    def in_strips(self, width: int) -> RowSource:
        """Return the columns as rows, (D, N), ``width`` of them in each block.

        ``width`` is a multiple of ``column_step``, which is not 0.
        """
        raise NotImplementedError

    def columns_nbytes(self, block_rows: int) -> int:  # noqa: ARG002
        """Bytes of ``reader_nbytes`` that remain if kernels read rows a few at a time."""
        return 0

    @property
    def shared_nbytes(self) -> int:
        """Bytes of memory that all readers share."""
        return 0

    @property
    def held_nbytes(self) -> int:
        """Bytes of values that the source itself computed, and holds through all passes."""
        return 0

    def device_nbytes(self, block_rows: int) -> int:  # noqa: ARG002
        """Bytes of GPU memory that one reader takes, if rows are made on the device."""
        return 0

    @property
    def row_nbytes(self) -> int:
        """Bytes of one decoded row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def pass_nbytes(self) -> int:
        """Bytes that one pass over all rows decodes."""
        return self.grid.n_rows * self.row_nbytes

    def block_nbytes(self, block_rows: int) -> int:
        """Bytes of the largest block of at most ``block_rows`` rows, decoded."""
        return block_rows * self.row_nbytes

    @property
    def density(self) -> float:
        """The share of values that are stored."""
        return 1.0

    @property
    def row_pairs(self) -> float:
        """Pairs of values of a row, each with itself too, on average: products of XᵀX."""
        return self.shape[1] * (self.shape[1] + 1) / 2

    def local_paths(self) -> list[Path]:
        """Return the local files and folders of the rows: no output may be written to them."""
        return []

    def watched(self) -> dict[str, FileStamps]:
        """Return the stamps of its files, by array if it consists of several."""
        return {} if self.stamps is None else {"": self.stamps}

    def require_exists(self) -> None:  # noqa: B027  (most need no check)
        """Raise :class:`InputError` if this process cannot find the rows."""

    def require_unchanged(self) -> None:  # noqa: B027  (most have no stamps)
        """Raise :class:`DataCorruptionError` if a file has changed since it was stamped."""

    def place(self, row: int, column: int = 0) -> str:  # noqa: ARG002
        """Name the array, and the chunk of a value if there are chunks, for a message."""
        return self.name

    def span_text(self, start: int, stop: int) -> str:
        """Name some of its rows for a message: ``rows 0–99``, or ``values 0–99 in rows 0–3``."""  # noqa: RUF002
        text = rows_text(start, stop, self.noun)
        if self.rows_holding is None:
            return text
        return f"{text} in {rows_text(*self.rows_holding(start, stop))}"

    def describe(self) -> dict[str, Any]:
        """Return what ``streamreg info`` shows, if known: chunks, chunk size, codecs, checksum."""
        return {}

    def layout_advice(self, block_nbytes: int) -> list[str]:  # noqa: ARG002
        """Return which layout would suit blocks of up to ``block_nbytes`` better, in sentences."""
        return []

    def rechunk_advice(self, rows: int) -> str:
        """Return how to rewrite the rows in chunks of ``rows`` rows, as a sentence or as code."""
        return f"rewrite {self.name} in chunks of at most {count(rows, 'row')}, as local Zarr"

    def mapped(
        self,
        function: Callable[[Array], Array],  # noqa: ARG002
        dtype: np.dtype[Any],  # noqa: ARG002
    ) -> RowSource | None:
        """Return the rows after ``function``, if their library computes it; else ``None``."""
        return None

    def undecoded(self) -> list[str]:
        """Return warnings of CF attributes that may or may not have been applied to the rows."""
        return undecoded_text(self.labels, self.dtype, self.name)

    def delayed_chunks(self, bounds: list[tuple[int, int]]) -> list[list[Any]] | None:  # noqa: ARG002
        """Return the chunks of each span of rows as values of Dask, if ``is_computed``."""
        return None

    def holding(self, start: int, chunks: list[Any]) -> RowSource:  # noqa: ARG002
        """Return a source of these chunks, from row ``start`` on; or itself, if workers open it."""
        return self


class Reader(ABC):
    """Reads rows into buffers that live as long as the reader does."""

    # whether a read rounded an integer beyond 2^53, which float64 does not represent
    rounds: bool = False

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return rows ``start`` to ``stop``; they are valid until the next read."""

    def parts(self, start: int, stop: int) -> list[tuple[int, int, int]] | None:  # noqa: ARG002
        """Return where rows lie if ``is_in_files``: open files, offsets in bytes, numbers of rows.

        The files stay open until the next call. ``None`` if these rows have to be read.
        """
        return None

    def prefetch(self, start: int, stop: int) -> None:  # noqa: B027  (most cannot)
        """Ask the system to fetch these rows into the page cache, if it can."""

    def close(self) -> None:  # noqa: B027  (most have no files)
        """Close files. Memory is freed with the reader."""


class ArrayGroup(ABC):
    """Several arrays that are stored together: X, y and perhaps sample_weight."""

    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    # how X was made of the columns of a table, if it was
    schema: Schema | None = None
    # whether rows with a missing value are left out, whatever the policy of the fit is
    omits_missing: bool = False

    @abstractmethod
    def member(self, name: str, *, optional: bool = False) -> object:
        """Return an array, as a kind of source accepts it; ``None`` if absent and optional."""


@dataclass(frozen=True)
class Kind:
    """A kind of source, as the registry in ``sources/kinds.py`` lists it.

    Both ways to open data raise :class:`InputError` for what cannot be read as rows, and
    :class:`DataCorruptionError` for metadata that cannot be understood.
    """

    # whether an object or path is of this kind; reads metadata at most
    claims: Callable[[object], bool]
    # the data, a name for messages, and what an absent chunk means: "error" or "fill"
    open_rows: Callable[[Any, str, str], RowSource]
    # several arrays that are stored together; ``None`` if the data are one array
    open_group: Callable[[object], ArrayGroup | None] | None = None
    # the group that holds an array, and the name of the array in it, if they are known
    group_of: Callable[[object], tuple[ArrayGroup, str] | None] | None = None
