"""Symmetric arrays as QTQᵀ with T tridiagonal, in place, by LAPACK [1]_.

A T + λ1 is factorised in O(D), where A + λ1 takes O(D³).

References
----------
.. [1] Anderson et al. (1999), LAPACK Users' Guide, 3rd ed., section 2.4.4.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels.routines import at, call, step
from streamreg.kernels.triangle import mirror, transpose

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.kernels.triangle import Numbers

# columns that are permuted at once
_WIDTH = 16
# columns of a block of reflectors, for which LAPACK has work space
_BLOCK = 64


@dataclass(frozen=True, eq=False)
class Tridiagonal:
    """A = QTQᵀ of a symmetric A (D, D); Q is a product of reflectors, in the memory of A."""

    reflectors: Float64  # (D, D) Fortran order, or a part of such an array
    factors: Float64  # (D - 1,) of the reflectors
    diagonal: Float64  # (D,) of T
    beside: Float64  # (D - 1,) of T

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

    def rotate(self, columns: Float64, *, transposed: bool) -> None:
        """Multiply columns (D, K), in Fortran order, by Q or Qᵀ, in place."""
        d, k = columns.shape
        if d < 2 or not k:  # noqa: PLR2004
            return
        work, info = np.empty(_BLOCK * k), ctypes.c_int()
        call(
            "dormtr",
            *(b"L", b"L", b"T" if transposed else b"N", d, k),
            *(at(self.reflectors), step(self.reflectors), at(self.factors)),
            *(at(columns), step(columns), at(work), len(work), ctypes.byref(info)),
        )


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
