"""From whatever a user passes to a source of rows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import InputError
from streamreg.sources import cupy_array, dask, hdf5
from streamreg.sources.zarr import source as zarr_source

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource

# asked in this order; the last takes anything that can be sliced
_KINDS = (zarr_source.open_rows, dask.open_rows, cupy_array.open_rows, hdf5.open_rows)


def open_source(data: object, name: str, *, missing_chunks: str = "error") -> RowSource:
    """Return the rows of ``data``.

    Parameters
    ----------
    data
        A path or URL of a Zarr array, a ``zarr.Array``, a ``dask.array.Array``, a NumPy array or
        ``memmap``, a ``cupy.ndarray``, an ``h5py.Dataset``, or any object with ``shape``,
        ``dtype`` and slicing.
    name
        What messages call it where it has no name of its own.
    missing_chunks
        ``"error"`` or ``"fill"``: what an absent Zarr chunk means.

    Raises
    ------
    InputError
        ``data`` is none of these.
    DataCorruptionError
        It is a Zarr array whose metadata cannot be understood.
    """
    for open_rows in _KINDS:
        source = open_rows(data, name, missing_chunks=missing_chunks)
        if source is not None:
            return source
    raise InputError(
        f"{name} is a {type(data).__name__}, which has no rows to read; pass a path of a Zarr "
        "array, a zarr, Dask or NumPy array, an h5py.Dataset, or an object with shape, dtype "
        "and slicing"
    )


def is_streamable(data: object) -> bool:
    """Whether ``data`` is read as it is; lists, data frames and sparse matrices are not."""
    if isinstance(data, str | os.PathLike | np.ndarray):
        return True
    package = type(data).__module__.partition(".")[0]
    if package in {"zarr", "dask", "h5py"}:
        return True
    # a pandas.Series has shape, dtype and slices too, but of labels
    if package in {"pandas", "polars", "scipy"} or not isinstance(data, hdf5.Sliceable):
        return False
    try:
        np.dtype(data.dtype)
    except TypeError:
        return False  # of a library with element types of its own
    return True
