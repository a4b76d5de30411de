"""The kinds of sources, and which of them a user's data are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.errors import InputError
from streamreg.sources import (
    anndata_backed,
    cupy_array,
    dask,
    dask_csr,
    hdf5,
    hdf5_paths,
    in_memory,
    labelled,
    scipy_csr,
)
from streamreg.sources.decoded import decoded
from streamreg.sources.dense_rows import DenseRows
from streamreg.sources.frames import rows as frames
from streamreg.sources.hdf5 import Sliceable
from streamreg.sources.tables import source as tables
from streamreg.sources.zarr import source as zarr_source

if TYPE_CHECKING:
    from streamreg.sources.base import ArrayGroup, Kind, RowSource

# The first kind that claims the data opens them. Zarr claims every path that no kind before it
# claims, and the last kind claims all that can be sliced.
KINDS = (
    dask_csr.KIND,
    dask.KIND,
    cupy_array.KIND,
    in_memory.KIND,
    scipy_csr.KIND,
    frames.KIND,
    labelled.KIND,
    anndata_backed.KIND,
    hdf5_paths.KIND,
    tables.KIND,
    zarr_source.KIND,
    hdf5.KIND,
)


def open_source(
    data: object, name: str, *, missing_chunks: str = "error", decode_cf: bool = True
) -> RowSource:
    """Return the rows of ``data``; ``missing_chunks`` and errors as for :class:`Kind`.

    With ``decode_cf``, CF attributes are applied to them: see :class:`Packing`. Sparse rows
    of y are made dense as they are read.
    """
    kind = _kind_of(data)
    if kind is not None:
        rows = kind.open_rows(data, name, missing_chunks)
        if rows.is_sparse and name == "y":
            return DenseRows(rows, 0, rows.shape[1])
        return decoded(rows) if decode_cf and not rows.is_sparse else rows
    what = type(data).__name__
    if isinstance(data, Sliceable):
        raise InputError(f"{name}, a {what}, cannot be read: NumPy has no dtype {data.dtype!r}")
    raise InputError(
        f"{name} is a {what}, which has no rows to read; pass a path of a Zarr "
        "array, a zarr, Dask or NumPy array, an h5py.Dataset, or an object with shape, dtype "
        "and slicing"
    )


def open_group(data: object) -> ArrayGroup | None:
    """Return the arrays that are stored together at ``data``; ``None`` if it is one array."""
    kind = _kind_of(data)
    return None if kind is None or kind.open_group is None else kind.open_group(data)


def group_of(data: object) -> tuple[ArrayGroup, str] | None:
    """Return the group that holds an array, and the name of the array in it, if they are known."""
    kind = _kind_of(data)
    return None if kind is None or kind.group_of is None else kind.group_of(data)


def is_streamable(data: object) -> bool:
    """Whether ``data`` is read in blocks; lists and data frames are not."""
    return _kind_of(data) is not None


def _kind_of(data: object) -> Kind | None:
    return next((kind for kind in KINDS if kind.claims(data)), None)
