"""Arrays that can be sliced: NumPy, HDF5 datasets and whatever looks like them."""

from __future__ import annotations

import math
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from streamreg.errors import DataCorruptionError, InputError, Message, Remedy
from streamreg.formatting import MIB, rows_text
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.checks import as_rows
from streamreg.sources.chunk_reader import (
    ChunkReader,
    RowBuffer,
    heaps_nbytes,
    joined_nbytes,
)
from streamreg.sources.in_memory import ArraySource
from streamreg.sources.memmap import memmap_rows
from streamreg.sources.zarr.metadata import printable

if TYPE_CHECKING:
    from streamreg.blocks import Array

# rows of an array that knows no chunks are read in pieces; any number of them will do
_ANY_ROWS = 1 << 20
# chunk rows below are read several at once: HDF5's own guess at chunks is some KiB
_SMALL_NBYTES = 2 * MIB
# of all arrays of other libraries one is read at a time: those of one file share a library that
# may know nothing of threads (netCDF4's HDF5 crashes), and h5py has such a lock anyhow
_READING = RLock()


@runtime_checkable
class Sliceable(Protocol):
    """An array by its looks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""

    @property
    def dtype(self) -> Any:  # noqa: ANN401  (whatever np.dtype understands)
        """Its element type."""

    def __getitem__(self, key: slice, /) -> Any:  # noqa: ANN401  (whatever np.asarray understands)
        """Return some rows."""


@runtime_checkable
class _Chunked(Protocol):
    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Lengths of the pieces on disk."""


@runtime_checkable
class _ReadsInto(Protocol):
    def read_direct(self, dest: Array, source_sel: slice, dest_sel: slice) -> None:
        """Fill a part of ``dest``, as h5py does."""


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of an array in memory, mapped, or sliceable; ``None`` for anything else."""
    del missing_chunks  # these have none
    if isinstance(data, np.ma.MaskedArray) and data.mask is not np.ma.nomask:
        raise InputError(
            Message(
                f"{name} is a masked array, whose masked values would be read as numbers; pass "
                f"{name}.filled(np.nan) and ",
                Remedy("nan_policy", "omit"),
                " to leave such rows out",
            )
        )
    if isinstance(data, np.ndarray):
        return memmap_rows(data, name) or ArraySource(data, name)
    try:
        return SliceableSource(data, name) if isinstance(data, Sliceable) else None
    # a closed HDF5 file has no shape, and other libraries' element types are not NumPy's
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{name}, a {type(data).__name__}, cannot be read: {error}") from error


class SliceableSource(RowSource):
    """Anything with ``shape``, ``dtype`` and slices.

    Chunks, as HDF5 has them, are read whole, since a part of one costs as much; small ones
    several at once.
    """

    def __init__(self, array: Sliceable, name: str) -> None:
        self.array = array
        self.name = _label(array, name)
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        chunks = array.chunks if isinstance(array, _Chunked) else None
        self.chunks = chunks if chunks and isinstance(chunks[0], int) else None
        rows = _ANY_ROWS
        if self.chunks is not None:
            rows = max(1, self.chunks[0])
            rows *= max(1, _SMALL_NBYTES // max(1, rows * self.row_nbytes))
        n_rows = self.shape[0] if self.shape else 0
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=rows, divisible=self.chunks is None)

    def open(self) -> Reader:
        return _PieceReader(self) if self.chunks is None else _BandReader(self)

    @property
    def storage(self) -> str:
        return str(getattr(self.array, "name", self.name))  # of HDF5 its place in the file

    def inputs(self) -> list[Path]:
        return [file for file in [Path(_file_of(self.array))] if file.is_file()]

    def reader_nbytes(self, block_rows: int) -> int:
        rows, joined = block_rows, 0
        if self.chunks is not None:
            rows = min(self.grid.chunk_rows, self.grid.n_rows)
            joined = joined_nbytes(self, block_rows)
        kept = rows * self.row_nbytes + joined
        if isinstance(self.array, _ReadsInto):
            return kept + _decoded_nbytes(self.array)
        # what the library gives us, and what it made that from
        return kept + 2 * rows * self.row_nbytes

    @property
    def shared_nbytes(self) -> int:
        if self.chunks is None:
            return 0
        cached = _cached_nbytes(self.array) if isinstance(self.array, _ReadsInto) else 0
        return cached + heaps_nbytes(self)

    def fill(self, start: int, out: Array) -> None:
        """Read rows from ``start`` on, as many as ``out`` has.

        Raises
        ------
        DataCorruptionError
            The library cannot read them, or the array was resized.
        InputError
            They are not what ``shape`` and ``dtype`` say.
        """
        stop = start + len(out)
        rows = f"{rows_text(start, stop)} of {self.name}"
        # until they are copied: what is handed out may be read only then
        with _READING:
            values = self._rows(start, stop, out, rows)
            if values is not out:
                out[...] = as_rows(values, out.shape, out.dtype, rows)

    def _rows(self, start: int, stop: int, out: Array, what: str) -> Any:  # noqa: ANN401
        """Return ``out``, filled, or what the library hands out instead."""
        try:
            shape = tuple(self.array.shape)
            if isinstance(self.array, _ReadsInto):
                self.array.read_direct(out, slice(start, stop), slice(0, len(out)))
                values: Any = out
            else:
                values = self.array[start:stop]
        except MemoryError:
            raise
        # h5py raises OSError for what HDF5 cannot read, other libraries what they like
        except Exception as error:
            raise DataCorruptionError(
                f"{what} cannot be read: {type(error).__name__}: {error}"
            ) from error
        if shape != self.shape:
            raise DataCorruptionError(
                f"{self.name} changed during the fit: its shape was {self.shape} and is {shape}. "
                "Start again when nothing writes to it"
            )
        return values


class _PieceReader(Reader):
    """Reads just the rows that are asked for."""

    def __init__(self, source: SliceableSource) -> None:
        self._source = source
        self._room = RowBuffer(source.shape[1:], source.dtype)

    def read(self, start: int, stop: int) -> Array:
        rows = self._room.rows(stop - start)
        self._source.fill(start, rows)
        return rows


class _BandReader(ChunkReader):
    """Reads chunk rows whole."""

    def __init__(self, source: SliceableSource) -> None:
        super().__init__(source)
        self._source = source
        self._room = RowBuffer(source.shape[1:], source.dtype)

    def load(self, chunk: int) -> Array:
        start, stop = self._source.grid.rows(chunk)
        rows = self._room.rows(stop - start)
        self._source.fill(start, rows)
        return rows


def _file_of(array: Sliceable) -> str:
    """Return the file of an HDF5 dataset; of others an empty text."""
    dataset: Any = array
    return str(dataset.file.filename) if type(array).__module__.startswith("h5py.") else ""


def _label(array: Sliceable, name: str) -> str:
    """Return the file and path of an HDF5 dataset, else ``name``."""
    dataset: Any = array
    file = _file_of(array)
    return f"{name} ({printable(file + dataset.name)})" if file else name


def _cached_nbytes(array: object) -> int:
    """Bytes of chunks that HDF5 keeps of a dataset, once for all threads, or is decoding."""
    dataset: Any = array
    chunk, cache = _hdf5_chunk(dataset)
    if chunk > cache:
        return 0
    kept: int = min(cache, math.prod(dataset.shape) * dataset.dtype.itemsize)
    return kept + kept // 8 + 2 * chunk  # an eighth: what it notes of each chunk


def _decoded_nbytes(array: object) -> int:
    """Bytes of chunks too large to be kept, which each thread's heap may hold on to."""
    dataset: Any = array
    chunk, cache = _hdf5_chunk(dataset)
    # read straight to its place unless it must be decoded
    is_decoded = chunk > cache and dataset.id.get_create_plist().get_nfilters()
    return 2 * chunk if is_decoded else 0


def _hdf5_chunk(dataset: Any) -> tuple[int, int]:  # noqa: ANN401
    """Return the bytes of a chunk, 0 where there are none, and of the cache for chunks."""
    chunk = math.prod(dataset.chunks) * dataset.dtype.itemsize if dataset.chunks else 0
    return int(chunk), int(dataset.id.get_access_plist().get_chunk_cache()[1])
