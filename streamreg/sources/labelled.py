"""Labelled arrays of xarray: the rows are those of the array that they hold.

Those over Dask are of ``sources/dask.py``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from streamreg.sources import hdf5, in_memory
from streamreg.sources.base import Kind, RowSource
from streamreg.sources.packages import package_of


def is_labelled(data: object) -> bool:
    """Whether ``data`` is an array of xarray, which is not imported for the check."""
    return package_of(data) == "xarray" and hasattr(data, "dtype")


def open_rows(data: Any, name: str, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of a labelled array: of NumPy, or of a file, lazily."""
    # xarray's own word for rows that it has not read yet
    is_in_memory = getattr(getattr(data, "variable", data), "_in_memory", True)
    kind = in_memory.KIND if is_in_memory else hdf5.KIND
    rows = kind.open_rows(
        np.asarray(data.data) if is_in_memory else LazyRows(data), name, missing_chunks
    )
    rows.labels = dict(data.attrs)
    return rows


KIND = Kind(is_labelled, open_rows)


class LazyRows:
    """Rows that xarray reads from a file, a slice at a time; it keeps none of them."""

    def __init__(self, array: Any) -> None:  # noqa: ANN401
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype = array.dtype
        self.ndim = len(self.shape)
        encoded = array.encoding.get("preferred_chunks") or {}
        # a chunk that is read in parts would be decoded for each part
        heights = [
            encoded.get(name, length) for name, length in zip(array.dims, self.shape, strict=True)
        ]
        self.chunks = tuple(map(int, heights)) if encoded else None

    def __getitem__(self, rows: slice) -> Any:  # noqa: ANN401
        return self._array[rows].values

    def __len__(self) -> int:
        return self.shape[0]
