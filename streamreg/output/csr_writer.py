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

# values of a chunk: twice those of a block, because a reader decodes whole chunks
_CHUNK_VALUES = 1 << 18
_DATA, _WIDE = "data", "data.float64"


class GrowingArray:
    """A Zarr array (n,) of a length that is not known before its end; about two chunks in memory.

    Chunks have a checksum, and those of zeros are written too, as in
    :func:`streamreg.output.zarr_writer.create_array`.
    """

    def __init__(self, group: zarr.Group, name: str, dtype: Any) -> None:  # noqa: ANN401
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
        uninterrupted(self.array.resize, (self._written,))

    def _write(self) -> None:
        stop = self._written + self._filled
        if stop > self.array.shape[0]:
            # twice as long, because each change of the length writes the metadata again
            uninterrupted(self.array.resize, (max(stop, 2 * self._written),))
        if self._filled:
            rows = slice(self._written, stop)
            uninterrupted(self.array.__setitem__, rows, self._buffer[: self._filled])
        self._written, self._filled = stop, 0

    def copied_to(self, other: GrowingArray) -> None:
        """Add all values to another array."""
        for start in range(0, self._written, _CHUNK_VALUES):
            other.append(np.asarray(self.array[start : start + _CHUNK_VALUES]))
        other.append(self._buffer[: self._filled])


class CsrWriter:
    """Writes rows to the group ``name``: ``csr_matrix`` of AnnData's specification 0.1.0.

    Values are float32 if it holds all of them. The first that it does not hold makes those before
    it be written again, as float64.
    """

    def __init__(self, parent: zarr.Group, name: str) -> None:
        self._folder = Path(parent.store.root, parent.path, name)  # type: ignore[attr-defined]
        self._group = uninterrupted(parent.create_group, name)
        self._values = GrowingArray(self._group, _DATA, np.float32)
        self._indices = GrowingArray(self._group, "indices", np.int32)
        self._bounds = GrowingArray(self._group, "indptr", np.int64)
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
            self._widen()
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

    def _widen(self) -> None:
        """Write the values so far as float64."""
        wide = GrowingArray(self._group, _WIDE, np.float64)
        self._values.copied_to(wide)
        del self._group[_DATA]
        (self._folder / _WIDE).rename(self._folder / _DATA)
        wide.array = self._group[_DATA]  # type: ignore[assignment]
        self._values = wide
