"""Sparse matrices of AnnData objects that are backed by a file: ``adata.X``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamreg.sources import hdf5
from streamreg.sources.base import Kind
from streamreg.sources.zarr import source as zarr_source

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource


def claims(data: object) -> bool:
    """Whether ``data`` is a sparse data set of anndata, which is not imported for the check."""
    return type(data).__module__.partition(".")[0] == "anndata" and hasattr(data, "group")


def open_rows(data: Any, name: str, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of the group that holds the matrix."""
    group = data.group
    kind = zarr_source.KIND if zarr_source.claims(group) else hdf5.KIND
    return kind.open_rows(group, name, missing_chunks)


KIND = Kind(claims, open_rows)
