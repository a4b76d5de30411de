"""AnnData's groups, in Zarr and in HDF5: sparse rows, ``csr_matrix`` 0.1.0, and columns of ``obs``.

AnnData itself is not needed. Both libraries' groups are read by the same code, because both have
``attrs``, names and arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError, InputError, StreamregError
from streamreg.sources.anndata_columns import CATEGORICAL, NULLABLE, open_column
from streamreg.sources.csr import Csr, CsrSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from streamreg.sources.base import RowSource

    OpenArray = Callable[..., RowSource]

_CSR, _CSC = "csr_matrix", "csc_matrix"
_MEMBERS = ("data", "indices", "indptr")
# the group of matrices whose columns are those of the group that holds it
LAYERS = "layers"


def encoding_of(group: Any) -> str:  # noqa: ANN401  (a group of Zarr or HDF5)
    """Return what AnnData stored as this group; empty if it is not one of its own."""
    found = group.attrs.get("encoding-type", "")
    return found.decode() if isinstance(found, bytes) else str(found)


def is_matrix(group: Any) -> bool:  # noqa: ANN401
    """Whether a group is one sparse matrix, rather than several arrays."""
    return encoding_of(group) in {_CSR, _CSC}


def open_rows_of_group(
    group: Any,  # noqa: ANN401  (a group of Zarr or HDF5)
    name: str,
    role: str,
    open_array: OpenArray,
    parents: Iterable[Any],
) -> RowSource | None:
    """Return the rows of a matrix in CSR format, or of a column; ``None`` for another group.

    ``role`` is X, y, sample_weight or groups. ``parents`` are the groups that hold it, the nearest
    first, with the names of the columns.

    Raises
    ------
    InputError
        The group is a matrix of another format, or a column of texts.
    DataCorruptionError
        An array is absent, or does not agree with the others.
    """
    encoding = encoding_of(group)
    if encoding == _CSC:
        raise InputError(
            f"{name} is a sparse matrix in CSC format, which stores columns and not rows; write it "
            "again in CSR format, as adata.X = adata.X.tocsr() of an anndata.AnnData does"
        )
    if encoding in {CATEGORICAL, *NULLABLE}:
        return open_column(group, encoding, name, role, open_array)
    absent = [member for member in _MEMBERS if member not in group]
    if encoding != _CSR:
        if not encoding and not absent:
            raise InputError(
                f"{name} holds {', '.join(_MEMBERS)} but its attributes do not say of what: for a "
                'sparse matrix in CSR format set encoding-type to "csr_matrix", and shape to [N, D]'
            )
        return None
    if absent:
        raise DataCorruptionError(
            f"{name} is a sparse matrix without {' and '.join(absent)}; restore it from a copy"
        )
    arrays = Csr(*(open_array(group[member], f"{name}/{member}") for member in _MEMBERS))
    n_rows, n_columns = _shape(group, name)
    rows = CsrSource(arrays, n_columns, n_rows, name)
    rows.feature_names = _feature_names(parents, n_columns)
    return rows


def _shape(group: Any, name: str) -> tuple[int, int]:  # noqa: ANN401
    """Return (N, D), as the attribute says."""
    stored = group.attrs.get("shape")
    try:
        n_rows, n_columns = (int(length) for length in stored)
        is_shape = min(n_rows, n_columns) >= 0
    except (TypeError, ValueError):
        is_shape = False
    if not is_shape:
        raise DataCorruptionError(
            f"the attribute shape of {name} is {stored!r}, which is not that of a matrix; restore "
            "it from a copy"
        )
    return n_rows, n_columns


def _feature_names(parents: Iterable[Any], n_columns: int) -> tuple[str, ...] | None:
    """Return the names of the columns, if they are stored beside the matrix: ``var/_index``."""
    try:
        for parent in parents:
            if "var" in parent:
                var = parent["var"]
                index = var[str(var.attrs.get("_index", "_index"))]
                values = index.asstr()[:] if hasattr(index, "asstr") else index[:]
                names = tuple(map(str, np.asarray(values).tolist()))
                return names if len(names) == n_columns else None
    except StreamregError:
        raise
    # names are not needed, and may be stored in other ways
    except Exception:  # noqa: BLE001
        return None
    return None
