"""SciPy's sparse arrays and matrices: those in CSR format are read where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.base import Kind
from streamreg.sources.csr import Csr, CsrSource
from streamreg.sources.in_memory import ArraySource

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource


def is_scipy(data: object) -> bool:
    """Whether ``data`` is a sparse array of SciPy, which is not imported for the check."""
    return type(data).__module__.startswith("scipy.sparse")


def open_rows(data: Any, name: str, _missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of an array in CSR format; other formats are refused."""
    if name != "X":
        raise InputError(f"{name} is sparse, and only X may be; pass {name}.toarray()")
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


KIND = Kind(is_scipy, open_rows)
