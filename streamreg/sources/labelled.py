"""Labelled arrays of xarray: the rows are those of the array that they hold."""

from __future__ import annotations

from typing import Any

import numpy as np


def is_labelled(data: object) -> bool:
    """Whether ``data`` is an ``xarray.DataArray``; xarray need not be installed."""
    kind = type(data)
    return kind.__module__.partition(".")[0] == "xarray" and kind.__name__ == "DataArray"


def unlabelled(data: Any) -> object:  # noqa: ANN401  (xarray publishes types, and may be absent)
    """Return the array that a ``DataArray`` holds: of Dask, of NumPy, or of a file, lazily."""
    if data.chunks is not None:
        held: object = data.data
        return held
    # xarray's own word for rows that it has not read yet
    if getattr(data.variable, "_in_memory", True):
        return np.asarray(data.data)
    return LazyRows(data)


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
