"""Chunks of HDF5 datasets that this package decodes: those of gzip, shuffle and fletcher32.

HDF5 does not compare the size of a decoded chunk with that of the dataset's chunks: if it is
smaller, the missing values are whatever the memory held before. So chunks are read as they are
stored, and decoded here; other threads can read meanwhile, because only the read takes the lock.
"""

from __future__ import annotations

import math
from itertools import compress, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs import Fletcher32, Shuffle

from streamreg.blocks import is_read_in_place
from streamreg.errors import DataCorruptionError
from streamreg.formatting import count
from streamreg.sources.chunk_reader import RowBuffer
from streamreg.sources.zarr.codecs import DamagedChunkError, inflate

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource

# numbers of HDF5's own filters
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_ORDER = (_SHUFFLE, _DEFLATE, _FLETCHER32)
# any of them, in the order in which they are written
_DECODABLE = {
    tuple(compress(_ORDER, chosen)) for chosen in product((False, True), repeat=len(_ORDER))
}


def decodable_filters(dataset: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:  # noqa: ANN401
    """Return the filters of a dataset in the order of writing; empty if HDF5 must read it."""
    import h5py  # noqa: PLC0415  (imported already, for the dataset)

    if dataset.chunks is None or dataset.is_virtual or not is_read_in_place(dtype):
        return ()
    # other stored types, such as integers of 12 bits, are converted by HDF5
    if dataset.id.get_type() != h5py.h5t.py_create(dtype):
        return ()
    properties = dataset.id.get_create_plist()
    filters = tuple(properties.get_filter(at)[0] for at in range(properties.get_nfilters()))
    return filters if filters in _DECODABLE else ()


class Hdf5Chunks:
    """Reads chunks of a dataset and decodes them, for one thread."""

    def __init__(
        self,
        dataset: Any,  # noqa: ANN401
        source: RowSource,
        filters: tuple[int, ...],
        lock: AbstractContextManager[Any],
    ) -> None:
        self._dataset = dataset
        # names rows in messages
        self._source = source
        self._filters = filters
        self._lock = lock
        self._chunk = RowBuffer(dataset.chunks[1:], dataset.dtype)
        # a chunk before its bytes are put back in order
        self._shuffled = RowBuffer((), np.dtype(np.uint8))

    def fill(self, start: int, out: Array) -> None:
        """Read rows from ``start``, the first of a chunk, on: as many as ``out`` has."""
        height, *widths = self._dataset.chunks
        for first in range(0, len(out), height):
            rows = out[first : first + height]
            columns = [range(0, n, width) for n, width in zip(out.shape[1:], widths, strict=True)]
            for lefts in product(*columns):
                spans = zip(lefts, widths, strict=True)
                part = rows[(slice(None), *(slice(left, left + width) for left, width in spans))]
                self._read((start + first, *lefts), part)

    def _read(self, at: tuple[int, ...], part: Array) -> None:
        """Fill the part of the rows that the chunk at ``at``, its first value, holds."""
        shape = self._dataset.chunks
        try:
            with self._lock:
                mask, encoded = self._dataset.id.read_direct_chunk(at)
        except (OSError, ValueError, RuntimeError):
            # an absent chunk, or one that cannot be read: HDF5 fills it, or raises its own error
            self._read_by_hdf5(at, part)
            return
        is_whole = part.shape == shape and part.flags.c_contiguous
        chunk = part if is_whole else self._chunk.rows(shape[0])
        if part.shape != shape and len(encoded) == chunk.nbytes:
            # HDF5 may leave chunks at the edge without filters
            self._read_by_hdf5(at, part)
            return
        try:
            self._decode(memoryview(encoded), mask, chunk.reshape(-1).view(np.uint8))
        except DamagedChunkError as damage:
            rows = self._source.span_text(at[0], at[0] + len(part))
            raise DataCorruptionError(
                f"the chunk at {at} of {self._source.name} ({rows}) is damaged: {damage}. "
                "Restore it from a copy, or rewrite it"
            ) from damage
        if not is_whole:
            part[...] = chunk[tuple(slice(n) for n in part.shape)]

    def _read_by_hdf5(self, at: tuple[int, ...], part: Array) -> None:
        region = tuple(slice(i, i + n) for i, n in zip(at, part.shape, strict=True))
        with self._lock:
            part[...] = self._dataset[region]

    def _decode(self, encoded: memoryview, mask: int, out: Array) -> None:
        """Undo the filters that ``mask`` does not skip, the last one first."""
        applied = {each for at, each in enumerate(self._filters) if not mask >> at & 1}
        values: Any = _without_fletcher32(encoded) if _FLETCHER32 in applied else encoded
        if _DEFLATE in applied:
            target = self._shuffled.rows(len(out)) if _SHUFFLE in applied else out
            inflate(memoryview(values), target.data, "zlib")
            values = target.data
        elif len(values) != len(out):
            raise DamagedChunkError(
                f"it has {count(len(values), 'byte')} where the chunk has {len(out):,}"
            )
        if _SHUFFLE in applied:
            Shuffle(self._dataset.dtype.itemsize).decode(values, out)
        elif _DEFLATE not in applied:
            out[:] = np.frombuffer(values, np.uint8)


def decoding_nbytes(dataset: Any, filters: tuple[int, ...]) -> int:  # noqa: ANN401
    """Bytes that one thread holds while it decodes a chunk, beside the rows."""
    nbytes: int = math.prod(dataset.chunks) * dataset.dtype.itemsize
    is_whole = dataset.chunks[1:] == dataset.shape[1:] and not dataset.shape[0] % dataset.chunks[0]
    buffers = (not is_whole) + (_SHUFFLE in filters)
    return nbytes * 9 // 8 + 1024 + buffers * nbytes


def _without_fletcher32(values: Any) -> Any:  # noqa: ANN401
    try:
        return memoryview(Fletcher32().decode(values))
    except (RuntimeError, ValueError, IndexError) as error:
        raise DamagedChunkError(f"its fletcher32 checksum differs ({error})") from error
