"""Structs of the compiled loops, and addresses of the numbers that they read and write."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Float64


def struct(name: str, fields: str) -> type[ctypes.Structure]:
    """Return a struct of C: ``*`` marks a pointer, all others are integers of 64 bits."""
    types = [
        (field.strip("*"), ctypes.c_void_p if field[0] == "*" else ctypes.c_int64)
        for field in fields.split()
    ]
    return type(name, (ctypes.Structure,), {"_fields_": types})


def address(array: Float64 | None) -> int | None:
    """Return the address of numbers, as the loops expect them."""
    if array is None:
        return None
    if array.dtype != np.float64 or not array.flags.c_contiguous:
        raise TypeError(f"loops read float64 in C order, not {array.dtype} of {array.strides}")
    return array.ctypes.data


def point_at(sums: ctypes.Structure, state: Any, names: str) -> None:  # noqa: ANN401
    """Set pointers of a struct to the fields of a state that have the same names."""
    for name in names.split():
        setattr(sums, name, address(getattr(state, name)))
