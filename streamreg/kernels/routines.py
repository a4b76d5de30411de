"""Calls of SciPy's BLAS and LAPACK with addresses, without the interpreter's lock."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

from scipy.linalg import cython_blas, cython_lapack

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Float64

ONE = ctypes.byref(ctypes.c_double(1.0))


@cache
def _routine(name: str, n_arguments: int) -> Callable[..., None]:
    """Return a routine of SciPy's libraries; ctypes calls it without the lock."""
    known = cython_blas.__pyx_capi__
    capsule = known[name] if name in known else cython_lapack.__pyx_capi__[name]
    api = ctypes.pythonapi
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)
    return prototype(pointer_of(capsule, name_of(capsule)))


def call(name: str, *arguments: Any) -> None:  # noqa: ANN401  (bytes, pointers and integers)
    """Call a routine, which takes integers by reference."""
    by_reference = (
        ctypes.byref(ctypes.c_int(each)) if isinstance(each, int) else each for each in arguments
    )
    _routine(name, len(arguments))(*by_reference)


def at(array: Float64, index: int = 0) -> ctypes.c_void_p:
    """Return the address of an element, counted in memory."""
    return ctypes.c_void_p(array.ctypes.data + index * array.itemsize)


def step(matrix: Float64) -> int:
    """Return the numbers from one column to the next, in Fortran order."""
    return max(1, len(matrix)) if matrix.shape[1] == 1 else matrix.strides[1] // matrix.itemsize
