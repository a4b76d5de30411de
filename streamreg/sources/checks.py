"""Checks of the rows that sources return, and of their shapes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import EXACT_INTEGERS, SparseRows, is_cupy, namespace, on_host
from streamreg.errors import InputError, Part, Remedy
from streamreg.formatting import count, rows_text

if TYPE_CHECKING:
    from streamreg.blocks import Array, Int64
    from streamreg.sources.base import RowSource


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Return whether it is a float of more than 64 bits."""
    return dtype.kind == "f" and dtype.itemsize > 8  # noqa: PLR2004


def block_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of what :func:`narrow` returns, in the byte order of this machine."""
    return np.dtype(np.float64) if is_wide(dtype) else dtype.newbyteorder("=")


def narrow(values: Array) -> Array:
    """Return wider floats as float64; values beyond float64 become inf, which checks then find."""
    if not is_wide(values.dtype):
        return values
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float64)


def finite_rows(values: Array | SparseRows) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a mask (n,) of the rows that have neither NaN nor inf."""
    if isinstance(values, SparseRows):
        return values.finite_rows()
    if values.dtype.kind != "f":
        return np.ones(len(values), bool)
    return np.asarray(on_host(namespace(values).isfinite(values).all(axis=1)))


def taken(values: Any, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> Any:  # noqa: ANN401
    """Return the rows that a mask ``keep`` (n,) selects; the mask is on the host, rows anywhere."""
    if isinstance(values, SparseRows):
        return values.taken(keep)
    # indices, not the mask: the host need not wait for the device to count the selected rows
    rows: Array = values[namespace(values).asarray(np.flatnonzero(keep))]
    return rows


def group_numbers(values: Array) -> Int64:
    """Return an integer for each row, equal where values are: integers, or the bits of floats."""
    if values.dtype.kind != "f":
        return np.asarray(values).astype(np.int64)
    # 0 is added because -0 has other bits
    bits: Any = (np.asarray(values).astype(np.float64) + 0.0).view(np.int64)
    return np.asarray(bits)


def has_inexact(values: Array) -> bool:
    """Return whether there is an integer that float64 cannot hold."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:  # noqa: PLR2004
        return False
    return bool(values.max() > EXACT_INTEGERS or values.min() < -EXACT_INTEGERS)


def not_finite(
    source: RowSource,
    values: Array | SparseRows,
    counted: np.ndarray[Any, np.dtype[np.bool_]],
    start: int,
    names: tuple[str, ...] | None,
) -> InputError | None:
    """Return the error that names the first NaN or inf of rows from ``start`` on, if there is any.

    ``counted`` (n,) says which of the rows count, ``names`` what the columns are called.
    """
    found = _first_not_finite(values, counted)
    if found is None:
        return None
    row, column, value, n_bad = found
    what = "NaN" if np.isnan(value) else "inf"
    if is_wide(source.dtype):
        what += f" as float64, from {source.dtype}"
    if what == "NaN" and source.missing_text:
        what += f" (a missing value: {source.missing_text})"
    label = f"column {source.first_column + column}" + (f" ({names[column]!r})" if names else "")
    place = source.place(start + row, column)
    where = "" if place == source.name else f": {place}"
    stored: list[Part] = []
    if source.missing_text:
        stored = [
            ", or read the numbers as they are stored with ",
            Remedy("decode_cf", value=False),
        ]
    return InputError(
        f"{source.name} has {what} in row {start + row:,}, {label}{where}. Input contains "
        f"{count(n_bad, 'such value')} in {rows_text(start, start + len(values))}. "
        "Replace what is not finite, or leave such rows out with ",
        Remedy("nan_policy", "omit"),
        *stored,
    )


def _first_not_finite(
    values: Array | SparseRows, counted: np.ndarray[Any, np.dtype[np.bool_]]
) -> tuple[int, int, float, int] | None:
    """Return the first NaN or inf of rows that count: row, column and value; and how many."""
    if isinstance(values, SparseRows):
        return values.first_not_finite(counted)
    bad = ~np.isfinite(values) & counted[:, None]
    if not bad.any():
        return None
    row, column = (int(at) for at in np.argwhere(bad)[0])
    return row, column, float(values[row, column]), int(bad.sum())


def require_rows(source: RowSource, max_dimensions: int, allowed: str) -> None:
    """Raise :class:`InputError` for a shape or dtype that no regression can use."""
    shape, dtype, name = source.shape, source.dtype, source.name
    if dtype.kind == "c":
        raise InputError(
            f"Complex data not supported: {name} has dtype {dtype}; fit its .real and .imag parts"
        )
    if dtype.kind not in "biuf":
        raise InputError(
            f"{name} has dtype {dtype}, which is not a real number; store it as integers or floats"
        )
    if not 1 <= len(shape) <= max_dimensions:
        raise InputError(
            f"{name} has shape {shape}, {count(len(shape), 'dimension')}; it must be {allowed}. "
            "Reshape your data"
        )
    if max(shape) > sys.maxsize:
        raise InputError(
            f"{name} claims shape {shape}, more than any array can have; correct its metadata"
        )
    for length, what in zip(shape, ("sample", "feature"), strict=False):
        if length == 0:
            raise InputError(
                f"Found array with 0 {what}(s) (shape={shape}) while a minimum of 1 is required: "
                f"{name}"
            )


def as_rows(values: Any, n_rows: int, source: RowSource, what: str) -> Array:  # noqa: ANN401
    """Return the values that a library computed, as an array of NumPy or CuPy.

    Raises :class:`InputError` if their shape, dtype or device is not what the source claims, or
    they are masked or sparse: NumPy would broadcast, round or unmask them silently.
    """
    shape, dtype = (n_rows, *source.shape[1:]), source.dtype
    if isinstance(values, np.ma.MaskedArray) and values.mask is not np.ma.nomask:
        raise InputError(f"{what}: masked arrays are not read; fill them with NaN")
    require_dense(values, what)
    if is_cupy(values) != source.is_cupy:
        came, claimed = ("CuPy", "NumPy") if is_cupy(values) else ("NumPy", "CuPy")
        raise InputError(
            f"{what}: the array returned rows of {came} but declares {claimed}; declare them to "
            f"Dask, as in map_blocks(..., meta={came.lower()}.empty((0, 0)))"
        )
    rows: Array = values if source.is_cupy else np.asarray(values)
    if rows.shape != shape:
        raise InputError(f"{what}: the array returned shape {rows.shape} but declares {shape}")
    if not np.can_cast(rows.dtype, dtype, "safe"):
        raise InputError(
            f"{what}: the array returned {rows.dtype} but declares {dtype}; "
            f"call .astype({str(rows.dtype)!r}) on it"
        )
    return rows.astype(dtype, copy=False)


def require_dense(data: object, name: str) -> None:
    """Raise :class:`InputError` for a sparse matrix, whose zeros NumPy would not see."""
    if type(data).__module__.startswith(("scipy.sparse", "sparse.", "cupyx.scipy.sparse")):
        raise InputError(
            f"{name} is sparse ({type(data).__name__}), which is not supported: sparse rows are "
            "read from scipy.sparse.csr_array, from an AnnData group in Zarr or HDF5, or from a "
            "Dask array that declares them, by meta=scipy.sparse.csr_array((0, 0)); or make it "
            "dense a block at a time, in a Zarr or Dask array"
        )


def concatenated(parts: list[Array]) -> Array:
    """Concatenate rows; a single array is returned unchanged."""
    whole: Array = parts[0] if len(parts) == 1 else namespace(parts[0]).concatenate(parts)
    return whole
