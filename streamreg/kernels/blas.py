"""Rank-k updates and triangular solves in place, without the interpreter's lock.

SciPy's own wrapper of ``dsyrk`` holds the lock, so that two threads are no faster than one
(measured: 44 and 43 Gflop/s; through ctypes 88). NumPy releases it, but cannot add to a matrix in
place: it needs a second D² array and mirrors the triangle.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

from scipy.linalg import cython_blas

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Float64

_ONE = ctypes.byref(ctypes.c_double(1.0))


@cache
def _routine(name: str, n_arguments: int) -> Callable[..., None]:
    """Return a BLAS routine of SciPy's library; ctypes calls it without the lock."""
    capsule = cython_blas.__pyx_capi__[name]
    api = ctypes.pythonapi
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)
    return prototype(pointer_of(capsule, name_of(capsule)))


def _call(name: str, *arguments: Any) -> None:  # noqa: ANN401  (bytes, pointers and integers)
    """Call a BLAS routine, which takes integers by reference."""
    by_reference = (
        ctypes.byref(ctypes.c_int(each)) if isinstance(each, int) else each for each in arguments
    )
    _routine(name, len(arguments))(*by_reference)


def _at(array: Float64, index: int = 0) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data + index * array.itemsize)


def add_gram_panel(rows: Float64, gram: Float64, start: int, stop: int) -> None:
    """Add some columns of the lower triangle of rowsᵀrows to those of ``gram``, in place.

    ``rows`` is (n, D) in C order, ``gram`` (D, D) in Fortran order.
    """
    n, d = rows.shape
    width = stop - start
    # in Fortran order the rows are the columns of a (D, n) matrix
    panel, corner = _at(rows, start), _at(gram, start * d + start)
    _call("dsyrk", b"L", b"N", width, n, _ONE, panel, d, _ONE, corner, d)
    if stop < d:
        right, below = _at(rows, stop), _at(gram, start * d + stop)
        _call("dgemm", b"N", b"T", d - stop, width, n, _ONE, right, d, panel, d, _ONE, below, d)


def solve_triangle(
    triangle: Float64, right: Float64, *, size: int, lower: bool, transposed: bool
) -> None:
    """Solve T·x = right in place, T the leading ``size`` rows and columns of ``triangle``.

    Both are in Fortran order: ``triangle`` (D, ≥ size), of which only the lower or upper part is
    read, and ``right`` (≥ size, K), whose leading ``size`` rows become x.
    """
    part, form = b"L" if lower else b"U", b"T" if transposed else b"N"
    (d, _), (n_rows, k) = triangle.shape, right.shape
    _call("dtrsm", b"L", part, form, b"N", size, k, _ONE, _at(triangle), d, _at(right), n_rows)
