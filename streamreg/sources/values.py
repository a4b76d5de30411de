"""What of the values of a block float64 can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import EXACT_INTEGERS, namespace, on_host

if TYPE_CHECKING:
    from streamreg.blocks import Array


def is_wide(dtype: np.dtype[Any]) -> bool:
    """Return whether it is a float of more than 64 bits."""
    return dtype.kind == "f" and dtype.itemsize > 8  # noqa: PLR2004


def narrow(values: Array) -> Array:
    """Return float64 of wider floats: what float64 cannot hold must be looked for as inf."""
    if not is_wide(values.dtype):
        return values
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(np.float64)


def finite_rows(values: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which rows have neither NaN nor inf, (n,)."""
    if values.dtype.kind != "f":
        return np.ones(len(values), bool)
    finite = namespace(values).isfinite(values).all(axis=1)
    return np.asarray(on_host(finite))


def taken(values: Array, keep: np.ndarray[Any, np.dtype[np.bool_]]) -> Array:
    """Return the rows that stay, wherever they lie; ``keep`` (n,) lies on the host."""
    # of numbers a GPU need not tell how many they are
    xp = namespace(values)
    rows: Array = values[xp.asarray(np.flatnonzero(keep))]
    return rows


def has_inexact(values: Array) -> bool:
    """Return whether an integer is there that float64 cannot hold."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize < 8 or not values.size:  # noqa: PLR2004
        return False
    return bool(values.max() > EXACT_INTEGERS or values.min() < -EXACT_INTEGERS)
