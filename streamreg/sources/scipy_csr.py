"""SciPy's sparse arrays and matrices: those in CSR format are read where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import SparseRows
from streamreg.errors import InputError
from streamreg.sources.base import Kind
from streamreg.sources.csr import Csr, CsrSource, index_dtype, value_dtype
from streamreg.sources.in_memory import ArraySource

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource


def is_scipy(data: object) -> bool:
    """Whether ``data`` is a sparse array of SciPy, which is not imported for the check.

    Views of an AnnData object have classes of its own, derived from SciPy's.
    """
    return any(each.__module__.startswith("scipy.sparse") for each in type(data).__mro__)


def open_rows(data: Any, name: str, _missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of an array in CSR format; other formats are refused."""
    if name not in {"X", "y"}:
        raise InputError(f"{name} is sparse, and only X and y may be; pass {name}.toarray()")
    if getattr(data, "format", None) != "csr":
        raise InputError(
            f"{name} is sparse in {getattr(data, 'format', 'another')} format "
            f"({type(data).__name__}), whose rows are not stored one after the other; pass "
            f"{name}.tocsr()"
        )
    if len(data.shape) != 2:  # noqa: PLR2004
        raise InputError(f"{name} is sparse and has shape {data.shape}; it must be (N, D)")
    stored = (("data", data.data), ("indices", data.indices), ("indptr", data.indptr))
    arrays = Csr(*(ArraySource(np.asarray(array), f"{name}.{what}") for what, array in stored))
    n_rows, n_columns = map(int, data.shape)
    return CsrSource(arrays, n_columns, n_rows, name)


def as_sparse_rows(data: Any, source: RowSource, start: int, stop: int, what: str) -> SparseRows:  # noqa: ANN401
    """Return computed rows of ``source`` as kernels read them.

    Raises :class:`InputError` if they are not in CSR format, or not of the shape and dtype that the
    source declares.
    """
    if not is_scipy(data) or data.format != "csr":
        found = f"{data.format} format" if is_scipy(data) else type(data).__name__
        raise InputError(f"{what}: the array declares rows in CSR format but returned {found}")
    n_columns = source.shape[1]
    declared = stop - start, n_columns
    if data.shape != declared:
        raise InputError(f"{what}: the array returned shape {data.shape} but declares {declared}")
    if not np.can_cast(data.dtype, source.dtype, "safe"):
        raise InputError(
            f"{what}: the array returned {data.dtype} but declares {source.dtype}; "
            f"call .astype({str(data.dtype)!r}) on it"
        )
    bounds = np.asarray(data.indptr).astype(np.int64)
    n_values = min(len(data.data), len(data.indices))
    if (
        len(bounds) != stop - start + 1
        or bounds[0] != 0
        or (bounds[1:] < bounds[:-1]).any()
        or bounds[-1] > n_values
    ):
        raise InputError(
            f"{what}: indptr does not rise from 0 to at most {n_values:,}, the number of values"
        )
    used = slice(0, int(bounds[-1]))
    with np.errstate(over="ignore", under="ignore"):
        values = np.ascontiguousarray(data.data[used], value_dtype(source.dtype))
    return SparseRows(
        n_columns=n_columns,
        values=values,
        indices=np.ascontiguousarray(data.indices[used], index_dtype(data.indices.dtype)),
        bounds=bounds,
        name=source.name,
        start=start,
    )


KIND = Kind(is_scipy, open_rows)
