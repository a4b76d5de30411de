"""Rank-k updates and triangular solves in place, without the interpreter's lock.

SciPy's own wrapper of ``dsyrk`` holds the lock, so that two threads are no faster than one
(measured: 44 and 43 Gflop/s; through ctypes 88). NumPy releases it, but cannot add to a matrix in
place: it needs a second D² array and mirrors the triangle.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from streamreg.kernels.routines import ONE, at, call, step

if TYPE_CHECKING:
    from streamreg.blocks import Float64


def add_gram_panel(rows: Float64, gram: Float64, start: int, stop: int) -> None:
    """Add some columns of the lower triangle of rowsᵀrows to those of ``gram``, in place.

    ``rows`` is (n, D) in C order, ``gram`` (D, D) in Fortran order.
    """
    n, d = rows.shape
    width = stop - start
    # in Fortran order the rows are the columns of a (D, n) matrix
    panel, corner = at(rows, start), at(gram, start * d + start)
    call("dsyrk", b"L", b"N", width, n, ONE, panel, d, ONE, corner, d)
    if stop < d:
        right, below = at(rows, stop), at(gram, start * d + stop)
        call("dgemm", b"N", b"T", d - stop, width, n, ONE, right, d, panel, d, ONE, below, d)


def add_row_products(rows: Float64, products: Float64, start: int, stop: int) -> None:
    """Add some columns of the lower triangle of rows·rowsᵀ to those of ``products``, in place.

    ``rows`` is (N, n) in C order, ``products`` (N, N) in Fortran order.
    """
    count, n = rows.shape
    width = stop - start
    # in Fortran order the rows are the columns of an (n, N) matrix
    panel, corner = at(rows, start * n), at(products, start * count + start)
    call("dsyrk", b"L", b"T", width, n, ONE, panel, n, ONE, corner, count)
    if stop < count:
        left, below = at(rows, stop * n), at(products, start * count + stop)
        height = count - stop
        call("dgemm", b"T", b"N", height, width, n, ONE, left, n, panel, n, ONE, below, count)


def solve_triangle(
    triangle: Float64, right: Float64, *, size: int, lower: bool, transposed: bool
) -> None:
    """Solve T·x = right in place, T the leading ``size`` rows and columns of ``triangle``.

    Both are in Fortran order: ``triangle`` (D, ≥ size), or a part of such an array, of which only
    the lower or upper part is read; and ``right`` (≥ size, K): its leading ``size`` rows become x.
    """
    part, form, k = b"L" if lower else b"U", b"T" if transposed else b"N", right.shape[1]
    left, ahead = at(triangle), step(triangle)
    call("dtrsm", b"L", part, form, b"N", size, k, ONE, left, ahead, at(right), step(right))


def multiply_triangle(lower: Float64, right: Float64, *, size: int, transposed: bool) -> None:
    """Write L·right, or Lᵀ·right, to ``right``: as :func:`solve_triangle`."""
    form, k = b"T" if transposed else b"N", right.shape[1]
    left, ahead = at(lower), step(lower)
    call("dtrmm", b"L", b"L", form, b"N", size, k, ONE, left, ahead, at(right), step(right))


def multiply_symmetric(lower: Float64, right: Float64, out: Float64) -> None:
    """Write S·right to ``out``, both (D, K); of S (D, D) the lower triangle is read."""
    d, k = right.shape
    left, ahead, zero = at(lower), step(lower), ctypes.byref(ctypes.c_double(0.0))
    columns = at(right), step(right), zero, at(out), step(out)
    call("dsymm", b"L", b"L", d, k, ONE, left, ahead, *columns)


def multiply(left: Float64, right: Float64, out: Float64, *, transposed: bool) -> None:
    """Write L·right, or Lᵀ·right, to ``out``: L (D, D), and (D, K), all in Fortran order."""
    d, k = right.shape
    form, zero = b"T" if transposed else b"N", ctypes.byref(ctypes.c_double(0.0))
    columns = at(right), step(right), zero, at(out), step(out)
    call("dgemm", form, b"N", d, k, d, ONE, at(left), step(left), *columns)


def add_product(left: Float64, right: Float64, out: Float64) -> None:
    """Add left·right to ``out``, in place: (m, k), (k, n) and (m, n).

    Each may be a part of a larger array, in C or Fortran order.
    """
    if not 0 < out.strides[0] <= out.itemsize:
        left, right, out = right.T, left.T, out.T
    (m, n), k = out.shape, right.shape[0]
    (form, ahead), (right_form, right_ahead) = _operand(left), _operand(right)
    out_ahead = max(m, out.strides[1] // out.itemsize)
    first, second, sums = at(left), at(right), at(out)
    call(
        "dgemm",
        form,
        right_form,
        m,
        n,
        k,
        ONE,
        first,
        ahead,
        second,
        right_ahead,
        ONE,
        sums,
        out_ahead,
    )


def _operand(matrix: Float64) -> tuple[bytes, int]:
    """Return how BLAS reads a matrix: as it is or transposed, and the numbers between columns."""
    (rows, columns), (down, along) = matrix.shape, matrix.strides
    if down == matrix.itemsize and (columns == 1 or along >= rows * matrix.itemsize):
        return b"N", max(rows, along // matrix.itemsize if columns > 1 else 1)
    return b"T", max(columns, down // matrix.itemsize if rows > 1 else 1)
