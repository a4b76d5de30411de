"""Sparse rows as AnnData stores them in Zarr: a group of data, indices and indptr."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.output.zarr_writer import compressors
from streamreg.signals import uninterrupted

if TYPE_CHECKING:
    import zarr
    from numpy.typing import NDArray

    from streamreg.blocks import Array, Float64, Int64
    from streamreg.output.chunk_writers import ChunkWriters

# values of a chunk: those of a block, because a reader decodes whole chunks
_CHUNK_VALUES = 1 << 18
_DATA, _NARROW = "data", "data.float32"


class GrowingArray:
    """A Zarr array (n,) of a length that is not known before its end, written by ``writers``.

    Chunks have a checksum, and those of zeros are written too, as in
    :func:`streamreg.output.zarr_writer.create_array`.
    """

    def __init__(self, group: zarr.Group, name: str, dtype: Any, writers: ChunkWriters) -> None:  # noqa: ANN401
        self._writers = writers
        self.array = uninterrupted(
            group.create_array,
            name,
            shape=(0,),
            dtype=dtype,
            chunks=(_CHUNK_VALUES,),
            compressors=compressors(),
            config={"write_empty_chunks": True},
        )
        self._buffer = np.empty(_CHUNK_VALUES, dtype)
        self._written = self._filled = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Return the dtype of the values."""
        dtype: np.dtype[Any] = self._buffer.dtype
        return dtype

    def append(self, values: Array) -> None:
        """Add values (n,)."""
        while len(values):
            piece = values[: len(self._buffer) - self._filled]
            values = values[len(piece) :]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            if self._filled == len(self._buffer):
                self._write()

    def close(self) -> None:
        """Write what is left; nothing can be added afterwards."""
        self._write()
        self._writers.wait()
        uninterrupted(self.array.resize, (self._written,))

    def _write(self) -> None:
        stop = self._written + self._filled
        if stop > self.array.shape[0]:
            # twice as long, because each change of the length writes the metadata again
            uninterrupted(self.array.resize, (max(stop, 2 * self._written),))
        if self._filled:
            chunk, values = self._written // _CHUNK_VALUES, self._buffer[: self._filled]
            self._writers.write(self.array, chunk, values)
            self._buffer = np.empty(_CHUNK_VALUES, self.dtype)
        self._written, self._filled = stop, 0

    def moved(self, group: zarr.Group, name: str, dtype: Any) -> GrowingArray:  # noqa: ANN401
        """Return an array of another dtype in this one's place, which gets another name."""
        self._writers.wait()
        folder = Path(group.store.root, group.path)  # type: ignore[attr-defined]
        last = self.array.basename
        (folder / last).rename(folder / name)
        other = GrowingArray(group, last, dtype, self._writers)
        stored: Any = group[name]
        for start in range(0, self._written, _CHUNK_VALUES):
            other.append(np.asarray(stored[start : min(start + _CHUNK_VALUES, self._written)]))
        other.append(self._buffer[: self._filled])
        uninterrupted(group.__delitem__, name)
        return other


class CsrWriter:
    """Writes rows to the group ``name``: ``csr_matrix`` of AnnData's specification 0.1.0.

    Values are float32 if it holds all of them. The first that it does not hold makes those before
    it be written again, as float64.
    """

    def __init__(self, parent: zarr.Group, name: str, writers: ChunkWriters) -> None:
        self._group = uninterrupted(parent.create_group, name)
        self._values = GrowingArray(self._group, _DATA, np.float32, writers)
        self._indices = GrowingArray(self._group, "indices", np.int32, writers)
        self._bounds = GrowingArray(self._group, "indptr", np.int64, writers)
        self._bounds.append(np.zeros(1, np.int64))
        self._n_rows = self._n_values = 0

    def append(
        self,
        values: Float64,
        indices: NDArray[np.int32],
        bounds: Int64,
        is_float32: bool,  # noqa: FBT001  (a part's fields, in their order)
    ) -> None:
        """Add n rows: m values, their columns, and n + 1 bounds from 0 to m."""
        if not is_float32 and self._values.dtype == np.float32:
            self._values = self._values.moved(self._group, _NARROW, np.float64)
        self._values.append(values)
        self._indices.append(indices)
        self._bounds.append(bounds[1:] + self._n_values)
        self._n_rows += len(bounds) - 1
        self._n_values += len(values)

    def close(self, n_columns: int) -> None:
        """Write what is left, and the attributes that make a matrix of the arrays."""
        for array in (self._values, self._indices, self._bounds):
            array.close()
        uninterrupted(
            self._group.update_attributes,
            {
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": [self._n_rows, n_columns],
            },
        )
