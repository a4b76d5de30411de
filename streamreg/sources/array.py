"""Arrays that can be sliced: NumPy, ``np.memmap``, HDF5 datasets and whatever looks like them."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.sources.base import Reader, RowGrid, RowSource

if TYPE_CHECKING:
    from streamreg.blocks import Array

# rows of a file that knows no chunks are read in pieces; any number of them will do
_ANY_ROWS = 1 << 20


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


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of an array in memory, mapped, or sliceable; ``None`` for anything else."""
    del missing_chunks  # these have none
    if isinstance(data, np.ndarray):
        mapped = _mapped_file(data)
        return ArraySource(data, name) if mapped is None else MappedSource(data, name, *mapped)
    if isinstance(data, Sliceable):
        return SliceableSource(data, name)
    return None


class ArraySource(RowSource):
    """A NumPy array in memory: its blocks are views, nothing is copied."""

    def __init__(self, array: Array, name: str) -> None:
        self.array = array
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        n_rows = array.shape[0] if array.ndim else 0
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=max(1, n_rows), divisible=True)

    def open(self) -> Reader:
        return _ViewReader(self.array)

    def reader_nbytes(self, block_rows: int) -> int:
        del block_rows  # views
        return 0


class _ViewReader(Reader):
    def __init__(self, array: Array) -> None:
        self._array = array

    def read(self, start: int, stop: int) -> Array:
        return self._array[start:stop]


class MappedSource(RowSource):
    """A memory-mapped file, read with ``pread``: mapped pages would count as this process's own."""

    def __init__(self, array: Array, name: str, path: Path, offset: int) -> None:
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        self.path = path
        self.offset = offset
        self.grid = RowGrid(n_rows=array.shape[0], chunk_rows=max(1, len(array)), divisible=True)

    def open(self) -> Reader:
        return _FileReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        return block_rows * self.row_nbytes


class _FileReader(Reader):
    def __init__(self, source: MappedSource) -> None:
        self._source = source
        self._file = os.open(source.path, os.O_RDONLY | os.O_CLOEXEC)
        self._rows = np.empty((0, *source.shape[1:]), source.dtype)

    def read(self, start: int, stop: int) -> Array:
        if len(self._rows) < stop - start:
            self._rows = np.empty((stop - start, *self._source.shape[1:]), self._source.dtype)
        rows = self._rows[: stop - start]
        target = memoryview(rows.reshape(-1).view(np.uint8))
        offset = self._source.offset + start * self._source.row_nbytes
        done = 0
        while done < len(target):
            count = os.preadv(self._file, [target[done:]], offset + done)
            if count == 0:
                raise DataCorruptionError(
                    f"{self._source.path} ends before row {stop - 1:,} of {self._source.name}; "
                    "it was shortened after it was mapped"
                )
            done += count
        return rows

    def close(self) -> None:
        os.close(self._file)


class SliceableSource(RowSource):
    """Anything with ``shape``, ``dtype`` and slices; HDF5 chunks are read whole."""

    def __init__(self, array: Sliceable, name: str) -> None:
        self.array = array
        self.name = name
        self.shape = tuple(array.shape)
        self.dtype = np.dtype(array.dtype)
        n_rows = self.shape[0] if self.shape else 0
        chunks = getattr(array, "chunks", None)
        chunked = isinstance(chunks, tuple) and bool(chunks) and isinstance(chunks[0], int)
        self.grid = RowGrid(
            n_rows=n_rows,
            chunk_rows=max(1, chunks[0]) if chunked and chunks else _ANY_ROWS,
            divisible=not chunked,
        )

    def open(self) -> Reader:
        return _SliceReader(self)

    def reader_nbytes(self, block_rows: int) -> int:
        # the slice, and what the library holds to make it
        return 2 * block_rows * self.row_nbytes

    def place(self, row: int, column: int = 0) -> str:
        del row, column
        return self.name


class _SliceReader(Reader):
    def __init__(self, source: SliceableSource) -> None:
        self._source = source

    def read(self, start: int, stop: int) -> Array:
        try:
            rows = np.asarray(self._source.array[start:stop])
        # h5py raises OSError for what HDF5 cannot read, other libraries what they like
        except Exception as error:
            raise DataCorruptionError(
                f"rows {start:,}–{stop - 1:,} of {self._source.name} cannot be read: "  # noqa: RUF001
                f"{type(error).__name__}: {error}"
            ) from error
        if rows.shape != (stop - start, *self._source.shape[1:]):
            raise DataCorruptionError(
                f"rows {start:,}–{stop - 1:,} of {self._source.name} came with shape "  # noqa: RUF001
                f"{rows.shape}, not {(stop - start, *self._source.shape[1:])}"
            )
        return rows


def _mapped_file(array: Array) -> tuple[Path, int] | None:
    """Return the file and offset of an array's bytes; ``None`` unless it is mapped, whole rows."""
    if not array.flags.c_contiguous or array.size == 0:
        return None
    base: object = array
    mapped: np.memmap[Any, Any] | None = None
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, mmap.mmap):
            mapped = base
        base = base.base
    # copy-on-write maps may differ from their file
    if mapped is None or mapped.mode == "c" or mapped.filename is None:
        return None
    shift = array.__array_interface__["data"][0] - mapped.__array_interface__["data"][0]
    return Path(mapped.filename), mapped.offset + shift
