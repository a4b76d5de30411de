"""Arrays of other libraries that can be sliced: HDF5 datasets, and any that look like NumPy's."""

from __future__ import annotations

import math
import os
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from streamreg.blocks import is_read_in_place
from streamreg.errors import DataCorruptionError, InputError, StreamregError
from streamreg.formatting import MIB, count
from streamreg.sources.anndata import LAYERS, open_rows_of_group
from streamreg.sources.base import Kind, Reader, RowGrid, RowSource
from streamreg.sources.checks import as_rows
from streamreg.sources.chunk_reader import ChunkReader, heaps_nbytes, joined_nbytes
from streamreg.sources.hdf5_chunks import Hdf5Chunks, decodable_filters, decoding_nbytes
from streamreg.sources.hdf5_storage import netcdf_fill, require_stored
from streamreg.sources.packing import attributes_of
from streamreg.sources.zarr.metadata import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array

# height of the grid's chunks if an array has no chunks, so that any number of rows can be read
_ANY_ROWS = 1 << 20
# several chunk rows are read at once up to this size, because HDF5's own chunks have some KiB
_SMALL_NBYTES = 2 * MIB
# One array of another library is read at a time, because the arrays of one file share a library
# that may not be thread safe: netCDF4's HDF5 crashes, and h5py has such a lock itself.
_READING = RLock()


@runtime_checkable
class Sliceable(Protocol):
    """An array, by its attributes."""

    shape: tuple[int, ...]
    # may be a type that NumPy does not know
    dtype: Any

    def __getitem__(self, key: slice, /) -> Any: ...  # noqa: ANN401  (for np.asarray)


def claims(data: object) -> bool:
    """Whether ``data`` has shape, slices and an element type that NumPy knows."""
    package = type(data).__module__.partition(".")[0]
    if package == "h5py":
        return True
    # a pandas.Series has shape, dtype and slices too, but slices by its labels
    if package in {"pandas", "polars", "scipy", "cudf"} or not isinstance(data, Sliceable):
        return False
    try:
        np.dtype(data.dtype)
    except TypeError:
        return False
    return True


def open_rows(data: Sliceable, name: str, missing_chunks: str) -> RowSource:
    """Return the rows of an array that can be sliced; a closed HDF5 file is refused."""
    if hasattr(data, "keys"):
        rows = _open_group(data, name, missing_chunks)
        if rows is not None:
            return rows
        held: Any = data
        names = ", ".join(sorted(held)) or "nothing"
        raise InputError(f"{name} is an HDF5 {type(data).__name__}; pass what it holds: {names}")
    try:
        return SliceableSource(data, name, missing_chunks)
    # a closed HDF5 file has no shape; other libraries raise other errors
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise InputError(f"{name}, a {type(data).__name__}, cannot be read: {error}") from error


KIND = Kind(claims, open_rows)


def _open_group(group: Any, name: str, missing_chunks: str) -> RowSource | None:  # noqa: ANN401
    """Return the rows of a matrix or column of AnnData; ``None`` if a group is neither."""
    # a closed file has no attributes
    if not group or not hasattr(group, "attrs"):
        return None
    label = f"{name} ({printable(str(group.file.filename) + group.name)})"
    parent = group.parent
    if parent.name == f"/{LAYERS}":
        parent = parent.parent
    return open_rows_of_group(
        group,
        label,
        name,
        lambda array, _, missing=missing_chunks: SliceableSource(array, name, missing),
        (parent,),
    )


class SliceableSource(RowSource):
    """Any array with ``shape``, ``dtype`` and slices; its chunks, if any, are read whole."""

    def __init__(self, array: Sliceable, name: str, missing_chunks: str = "error") -> None:
        self.array: Any = array
        # h5py's views, such as dataset.astype("f8"), and variables of h5netcdf hold a dataset
        dataset: Any = getattr(array, "_dset", getattr(array, "_h5ds", array))
        self.dataset = dataset
        self.missing_chunks = missing_chunks
        self.is_hdf5 = hasattr(dataset, "read_direct")
        # the path of the HDF5 file; empty for other arrays
        self.file = str(dataset.file.filename) if self.is_hdf5 else ""
        self.name = f"{name} ({printable(self.file + dataset.name)})" if self.file else name
        self.storage = str(getattr(dataset, "name", self.name))
        if self.is_hdf5:
            self.storage = f"{missing_chunks} {self.storage}"
        if self.array.shape is None:
            raise TypeError("it is h5py.Empty and has no rows")
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.attributes = self._attributes()
        chunks = getattr(dataset, "chunks", None)
        self.chunks: tuple[int, ...] | None = (
            chunks if chunks and isinstance(chunks[0], int) else None
        )
        rows = _ANY_ROWS
        if self.chunks is not None:
            rows = max(1, self.chunks[0])
            rows *= max(1, _SMALL_NBYTES // max(1, rows * self.row_nbytes))
        n_rows = self.shape[0] if self.shape else 0
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=rows, divisible=self.chunks is None)
        self.is_in_files = self.offset() is not None
        # of chunks that are decoded here; empty if the library decodes them, if any
        self.filters: tuple[int, ...] = ()
        if self.is_hdf5 and dataset is array:
            self.filters = decodable_filters(dataset, self.dtype)

    def _attributes(self) -> dict[str, Any]:
        if hasattr(self.dataset, "getncattr"):
            return _attributes_of_netcdf4(self.dataset)
        known = attributes_of(getattr(self.dataset, "attrs", None) or {})
        if self.is_hdf5 and "_FillValue" not in known:
            fill = netcdf_fill(self.dataset)
            known |= {} if fill is None else {"_FillValue": fill}
        return known

    def open(self) -> Reader:
        if self.is_hdf5 and self.missing_chunks != "fill":
            _ = self._is_stored  # raises if rows are absent
        return _SliceReader(self)

    @cached_property
    def _is_stored(self) -> bool:
        with _READING:
            # a closed file is left to the read that follows
            if self.dataset:
                require_stored(self.dataset, self)
        return True

    def offset(self) -> int | None:
        """Return the offset of contiguous rows in their file; ``None`` if HDF5 must read them.

        Only for files opened read-only: for others, values may not be written to disk yet.
        """
        if self.array is not self.dataset or not self.is_hdf5:
            return None
        if self.chunks is not None or len(self.shape) != 2:  # noqa: PLR2004
            return None
        if self.array.external or self.array.is_virtual or self.array.file.mode != "r":
            return None
        import h5py  # noqa: PLC0415  (imported already, for the array)

        # other stored types, such as integers of 12 bits, are converted by HDF5
        is_stored = is_read_in_place(self.dtype) and (
            self.array.id.get_type() == h5py.h5t.py_create(self.dtype)
        )
        is_plain_file = self.array.file.driver == "sec2"
        return self.array.id.get_offset() if is_plain_file and is_stored else None

    def local_paths(self) -> list[Path]:
        return [file for file in [Path(self.file)] if file.is_file()]

    def reader_nbytes(self, block_rows: int) -> int:
        rows, joined = block_rows, 0
        if self.chunks is not None:
            rows = min(self.grid.chunk_rows, self.grid.n_rows)
            joined = joined_nbytes(self, block_rows)
        buffers = rows * self.row_nbytes + joined
        if self.array is not self.dataset or not self.is_hdf5:
            # what the library returns, and what it computes that from
            return buffers + 2 * rows * self.row_nbytes
        if self.filters:
            return buffers + decoding_nbytes(self.dataset, self.filters)
        chunk, cache = self._hdf5_chunk()
        # A chunk too large for the cache is decoded on the heap of each thread, which may retain
        # it. A chunk without filters is read straight into its place.
        is_decoded = chunk > cache and self.array.id.get_create_plist().get_nfilters()
        return buffers + (2 * chunk if is_decoded else 0)

    @property
    def shared_nbytes(self) -> int:
        if self.chunks is None:
            return 0
        chunk, cache = self._hdf5_chunk() if self.is_hdf5 else (1, 0)
        if chunk > cache or self.filters:
            return heaps_nbytes(self)
        # HDF5's cache of chunks, its records of them (an eighth), and chunks in decoding
        cached = min(cache, math.prod(self.shape) * self.dtype.itemsize)
        return cached + cached // 8 + 2 * chunk + heaps_nbytes(self)

    def _hdf5_chunk(self) -> tuple[int, int]:
        """Return the bytes of a chunk, 0 if there are none, and of HDF5's cache for chunks."""
        chunk = math.prod(self.chunks or (0,)) * self.dtype.itemsize
        return chunk, int(self.dataset.id.get_access_plist().get_chunk_cache()[1])

    def fill(self, start: int, out: Array, chunks: Hdf5Chunks | None = None) -> None:
        """Read rows from ``start`` on, as many as ``out`` has; refuse other shapes and dtypes.

        ``chunks`` decodes them, or the library does.
        """
        stop = start + len(out)
        what = f"{self.span_text(start, stop)} of {self.name}"
        try:
            # locked until the values are copied, because a library may read as late as that
            with _READING, _stored_values(self.array):
                shape = tuple(self.array.shape)
                if chunks is None and self.array is self.dataset and self.is_hdf5:
                    self.array.read_direct(out, slice(start, stop), slice(0, len(out)))
                elif chunks is None:
                    values = self.array[start:stop]
                    if shape == self.shape:
                        out[...] = as_rows(values, len(out), self, what)
            if chunks is not None and shape == self.shape:
                chunks.fill(start, out)
        except (StreamregError, MemoryError):
            self._require_whole_file(what)
            raise
        # h5py raises OSError for what HDF5 cannot read, other libraries raise anything
        except Exception as error:
            raise DataCorruptionError(
                f"{what} cannot be read: {type(error).__name__}: {error}"
            ) from error
        self._require_whole_file(what)
        if shape != self.shape:
            raise DataCorruptionError(
                f"{self.name} changed during the fit: its shape was {self.shape} and is "
                f"{shape}. Start again when nothing writes to it"
            )

    def _require_whole_file(self, what: str) -> None:
        """Raise :class:`DataCorruptionError` if the file was shortened since HDF5 opened it.

        HDF5 then reads zeros. A file that is written to may be shorter, because HDF5 writes late.
        """
        if not self.file or self.dataset.file.mode != "r" or self.dataset.file.driver != "sec2":
            return
        file = self.dataset.file.id
        present, expected = os.fstat(file.get_vfd_handle()).st_size, file.get_filesize()
        if present < expected:
            raise DataCorruptionError(
                f"{what} may be missing: the file has {count(present, 'byte')} where HDF5 found "
                f"{expected:,}; it was truncated during the fit. Restore it from a copy"
            )


def _attributes_of_netcdf4(variable: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the CF attributes of a ``netCDF4.Variable``, and what it gives to unwritten values."""
    known = attributes_of({name: variable.getncattr(name) for name in variable.ncattrs()})
    # any byte may be a value
    if "_FillValue" not in known and np.dtype(variable.dtype).itemsize > 1:
        fill = variable.get_fill_value()
        known |= {} if fill is None else {"_FillValue": fill}
    return known


@contextmanager
def _stored_values(array: Any) -> Iterator[None]:  # noqa: ANN401
    """Let a ``netCDF4.Variable``, which decodes by itself, return its stored values."""
    if not hasattr(array, "set_auto_maskandscale"):
        yield
        return
    mask, scale = array.mask, array.scale
    array.set_auto_maskandscale(False)
    try:
        yield
    finally:
        array.set_auto_mask(mask)
        array.set_auto_scale(scale)


class _SliceReader(ChunkReader):
    """Reads chunk rows whole; without chunks, only the rows of each block."""

    _source: SliceableSource

    def __init__(self, source: SliceableSource) -> None:
        super().__init__(source)
        # the descriptor of HDF5's file, if kernels read it
        self._file: int | None = None
        self._chunks: Hdf5Chunks | None = None
        if source.filters:
            self._chunks = Hdf5Chunks(source.dataset, source, source.filters, _READING)

    def read(self, start: int, stop: int) -> Array:
        if not self._source.grid.divisible:
            return super().read(start, stop)
        rows = self._buffer.rows(stop - start)
        self._source.fill(start, rows, self._chunks)
        return rows

    def parts(self, start: int, stop: int) -> list[tuple[int, int, int]] | None:
        # errors are left to the read that follows
        with suppress(OSError, ValueError, RuntimeError), _READING:
            if self._file is None:
                # from the open file, because another file may have its name now
                self._file = os.dup(self._source.array.file.id.get_vfd_handle())
            offset = self._source.offset()
            if offset is not None:
                first = offset + start * self._source.row_nbytes
                return [(self._file, first, stop - start)]
        return None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def load(self, chunk: int, out: Array) -> None:
        start, stop = self._source.grid.rows(chunk)
        self._source.fill(start, out[: stop - start], self._chunks)
