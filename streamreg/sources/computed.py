"""What other libraries computed, or handed out, as rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import is_on_device, namespace
from streamreg.errors import InputError

if TYPE_CHECKING:
    from streamreg.blocks import Array


def as_rows(
    values: Any,  # noqa: ANN401  (whatever another library made)
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    what: str,
    *,
    on_device: bool = False,
) -> Array:
    """Return what a library computed as rows of NumPy or CuPy, if they are what they should be.

    Raises
    ------
    InputError
        They are not, and would be broadcast, cut, rounded or unmasked without a word.
    """
    if isinstance(values, np.ma.MaskedArray) and values.mask is not np.ma.nomask:
        raise InputError(f"{what}: masked arrays are not read; fill them with NaN")
    require_dense(values, what)
    if is_on_device(values) != on_device:
        came, claimed = ("CuPy", "NumPy") if is_on_device(values) else ("NumPy", "CuPy")
        raise InputError(
            f"{what}: {came} rows came where the array claims to be {claimed}'s; tell Dask what "
            f"they are, as in map_blocks(..., meta={came.lower()}.empty((0, 0)))"
        )
    rows: Array = values if on_device else np.asarray(values)
    if rows.shape != shape:
        raise InputError(f"{what}: shape {rows.shape} came where the array claims {shape}")
    if not np.can_cast(rows.dtype, dtype, "safe"):
        raise InputError(
            f"{what}: {rows.dtype} came where the array claims {dtype}; "
            f"call .astype({str(rows.dtype)!r}) on it"
        )
    return rows.astype(dtype, copy=False)


def require_dense(data: object, name: str) -> None:
    """Refuse a sparse matrix, whose zeros NumPy would not see.

    Raises
    ------
    InputError
        It is one, of SciPy or of the library sparse.
    """
    if type(data).__module__.startswith(("scipy.sparse", "sparse.", "cupyx.scipy.sparse")):
        raise InputError(
            f"{name} is sparse ({type(data).__name__}), which is not supported: make it dense "
            "a block at a time, in a Zarr or Dask array, or fit it with scikit-learn"
        )


def joined_there(parts: list[Array]) -> Array:
    """Return rows of one array after those of another, as new rows where there are several."""
    if len(parts) == 1:
        return parts[0]
    joined: Array = namespace(parts[0]).concatenate(parts)
    return joined
