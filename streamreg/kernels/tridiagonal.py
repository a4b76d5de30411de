"""Symmetric arrays as QTQᵀ with T tridiagonal, in place, by LAPACK [1]_.

A T + λ1 is factorised in O(D), where A + λ1 takes O(D³).

References
----------
.. [1] Anderson et al. (1999), LAPACK Users' Guide, 3rd ed., section 2.4.4.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from streamreg.kernels.blas import multiply
from streamreg.kernels.library import load_library
from streamreg.kernels.routines import at, call, step
from streamreg.kernels.triangle import mirror, transpose

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.kernels.triangle import Numbers

# columns that are permuted at once
_WIDTH = 16
# columns of a block of reflectors, for which LAPACK has work space
_BLOCK = 64
# right sides that the compiled loop solves for at once, as in tridiagonal.c
_GROUP = 16
# factors that :func:`solved_sums` is given at once
MOST_FACTORS = 16


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """A = QTQᵀ of a symmetric A (D, D); Q is a product of reflectors, in the memory of A."""

    reflectors: Float64  # (D, D) Fortran order, or a part of such an array: or Q itself
    factors: Float64  # (D - 1,) of the reflectors
    diagonal: Float64  # (D,) of T
    beside: Float64  # (D - 1,) of T
    is_explicit: bool = False  # whether Q stands where the reflectors were

    @classmethod
    def of(cls, square: Float64) -> Tridiagonal:
        """Reduce A, of which the lower triangle in Fortran order is read and overwritten.

        If diagonal elements differ by orders of magnitude, T keeps the digits of the small ones
        only if the large ones are first: see :func:`permute`. Measured with columns 1e6 apart:
        13 digits of their weights, and 6 in another order.
        """
        d = len(square)
        diagonal, beside, factors = np.empty(d), np.empty(max(d - 1, 1)), np.empty(max(d - 1, 1))
        work, info = np.empty(_BLOCK * max(d, 1)), ctypes.c_int()
        call(
            "dsytrd",
            *(b"L", d, at(square), step(square)),
            *(at(diagonal), at(beside), at(factors)),
            *(at(work), len(work), ctypes.byref(info)),
        )
        return cls(square, factors[: d - 1], diagonal, beside[: d - 1])

    def explicit(self) -> Tridiagonal:
        """Multiply the reflectors, in place: products with Q then are faster, if they are many."""
        d = len(self.reflectors)
        if d < 2:  # noqa: PLR2004
            return self
        work, info = np.empty(_BLOCK * d), ctypes.c_int()
        call(
            "dorgtr",
            *(b"L", d, at(self.reflectors), step(self.reflectors), at(self.factors)),
            *(at(work), len(work), ctypes.byref(info)),
        )
        return replace(self, is_explicit=True)

    def rotate(self, columns: Float64, *, transposed: bool) -> None:
        """Multiply columns (D, K), in Fortran order, by Q or Qᵀ, in place."""
        d, k = columns.shape
        if d < 2 or not k:  # noqa: PLR2004
            return
        if self.is_explicit:
            multiply(self.reflectors, columns.copy(order="F"), columns, transposed=transposed)
            return
        work, info = np.empty(_BLOCK * k), ctypes.c_int()
        call(
            "dormtr",
            *(b"L", b"L", b"T" if transposed else b"N", d, k),
            *(at(self.reflectors), step(self.reflectors), at(self.factors)),
            *(at(columns), step(columns), at(work), len(work), ctypes.byref(info)),
        )


def solved_sums(right: Float64, delta: Float64, below: Float64) -> tuple[Float64, Float64]:
    """Return q·z and ‖z‖² with L diag(δ) Lᵀz = q, (n, m) each, for n factors and m right sides.

    ``right`` is (r, m) in Fortran order, or rows of such an array; ``delta`` (n, r) and ``below``
    (n, r - 1) are the factors. Sixteen right sides are solved for at once.
    """
    (r, m), n = right.shape, len(delta)
    library = load_library()
    if library is None:
        return _solved_sums(right, delta, below)
    inverse, padded = 1 / delta, np.zeros((n, r))
    padded[:, : r - 1] = below
    products, squares = np.empty((2, n, m))
    room = np.empty(2 * r * _GROUP)
    loop = library.functions.tridiagonal_sums
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    loop.restype = None
    loop.argtypes = [pointer, *[integer] * 3, pointer, pointer, integer, *[pointer] * 3]
    factors = inverse.ctypes.data, padded.ctypes.data, n
    sums = products.ctypes.data, squares.ctypes.data, room.ctypes.data
    loop(right.ctypes.data, step(right), r, m, *factors, *sums)
    return products, squares


def _solved_sums(right: Float64, delta: Float64, below: Float64) -> tuple[Float64, Float64]:
    """Do as :func:`solved_sums`, without compiled loops."""
    products, squares = np.empty((2, len(delta), right.shape[1]))
    for number, (pivots, beside) in enumerate(zip(delta, below, strict=True)):
        z, _ = lapack.dpttrs(pivots, beside, right)
        products[number] = np.einsum("dk,dk->k", z, right)
        squares[number] = np.einsum("dk,dk->k", z, z)
    return products, squares


def sums_nbytes(n_features: int) -> int:
    """Bytes that :func:`solved_sums` takes beside its sums, for at most 16 factors."""
    return 8 * n_features * (2 * _GROUP + 4 * MOST_FACTORS)


def tridiagonal_nbytes(n_features: int, width: int) -> int:
    """Bytes that reducing A, and rotating ``width`` columns at once, take beside A."""
    return 8 * (max(_BLOCK, 2 * _WIDTH) * n_features + 3 * n_features + _BLOCK * width)


def permute(square: Float64, order: Numbers) -> None:
    """Permute rows and columns of a symmetric A (D, D), in place; the lower triangle is read."""
    mirror(square)
    for _ in range(2):
        for first in range(0, len(square), _WIDTH):
            columns = square[:, first : first + _WIDTH]
            columns[...] = columns[order]
        transpose(square)
