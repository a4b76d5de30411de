"""Rank-k updates and triangular solves in place, without the interpreter's lock.

SciPy's own wrapper of ``dsyrk`` holds the lock, so that two threads are no faster than one
(measured: 44 and 43 Gflop/s; called as here 88). NumPy lets go of it, but cannot add to a matrix
in place: it needs a second D² array and mirrors the triangle.
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
def _routine(name: str) -> Callable[..., None]:
    """Return a BLAS routine of the library that SciPy carries; ctypes calls it without the lock."""
    capsule = cython_blas.__pyx_capi__[name]
    api = ctypes.pythonapi
    name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", api))
    pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", api)
    )
    n_arguments = {"dsyrk": 10, "dgemm": 13, "dtrsm": 11}[name]
    prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * n_arguments)
    return prototype(pointer_of(capsule, name_of(capsule)))


def _int(value: int) -> Any:  # noqa: ANN401  (a ctypes reference)
    return ctypes.byref(ctypes.c_int(value))


def add_gram_panel(rows: Float64, gram: Float64, start: int, stop: int) -> None:
    """Add to columns ``start`` to ``stop`` of the lower triangle of ``gram`` those of rowsᵀrows.

    Parameters
    ----------
    rows
        (n, D), C order.
    gram
        (D, D), Fortran order; written in place.
    """
    n, d = rows.shape
    width = stop - start
    a, c = rows.ctypes.data, gram.ctypes.data
    item = rows.itemsize
    # seen in Fortran order the rows are the columns of a (D, n) matrix
    panel = ctypes.c_void_p(a + start * item)
    _routine("dsyrk")(
        b"L", b"N", _int(width), _int(n), _ONE, panel, _int(d),
        _ONE, ctypes.c_void_p(c + (start * d + start) * item), _int(d),
    )  # fmt: skip
    if stop < d:
        _routine("dgemm")(
            b"N", b"T", _int(d - stop), _int(width), _int(n),
            _ONE, ctypes.c_void_p(a + stop * item), _int(d), panel, _int(d),
            _ONE, ctypes.c_void_p(c + (start * d + stop) * item), _int(d),
        )  # fmt: skip


def solve_triangle(
    triangle: Float64, right: Float64, *, size: int, lower: bool, transposed: bool
) -> None:
    """Solve T·x = right in place, T the leading ``size`` rows and columns of ``triangle``.

    Parameters
    ----------
    triangle
        (D, ≥ size), Fortran order; only the lower or upper part is read.
    right
        (≥ size, K), Fortran order; its leading ``size`` rows become x.
    """
    _routine("dtrsm")(
        b"L", b"L" if lower else b"U", b"T" if transposed else b"N", b"N",
        _int(size), _int(right.shape[1]), _ONE,
        ctypes.c_void_p(triangle.ctypes.data), _int(triangle.shape[0]),
        ctypes.c_void_p(right.ctypes.data), _int(right.shape[0]),
    )  # fmt: skip
