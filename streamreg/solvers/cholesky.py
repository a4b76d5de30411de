"""Factorise XᵀX in its own memory and solve with it: exactly, or for the least norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from streamreg.kernels import blas
from streamreg.solvers.base import EPS

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Numbers

_INVERSE_ITERATIONS = 5


@dataclass(frozen=True, eq=False)
class Factor:
    """The pivoted Cholesky factor PᵀGP = LLᵀ of a matrix with a diagonal near 1 [1]_.

    If columns depend on others, L is (D, r), and the solution of Gv = g with least ‖v/u‖ is
    u·Q R⁻ᵀ R⁻¹ Qᵀ(u·g), where u·L = QR.

    References
    ----------
    .. [1] Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., section 10.3.
    """

    matrix: Float64  # (D, ≥ r), Fortran order, in the memory of G: L, or Q and R
    pivots: Numbers  # (D,) columns; those from ``rank`` on depend on others, or are zero
    rank: int  # r
    condition: float  # estimate for G, restricted to the first r pivots
    tolerance: float  # pivots below this share of the largest diagonal element count as 0
    units: Float64  # (D, 1) u, in the order of the pivots
    reflectors: Float64 | None  # (r,) of Q; ``None`` if no column depends on others

    @classmethod
    def of(cls, gram: Float64, units: Float64) -> Factor:
        """Factorise G (D, D): the lower triangle in Fortran order, which is overwritten.

        Columns of zeros are left out. ``units`` is u, (D,).
        """
        diagonal = gram.diagonal()
        d, active = len(gram), int(np.count_nonzero(diagonal))
        norm = _one_norm(gram)
        # a smaller pivot is rounding
        tolerance = 32 * max(d, 16) * EPS
        matrix, numbers, found, _ = lapack.dpstrf(
            gram, tol=tolerance * float(np.max(diagonal)), lower=1, overwrite_a=1
        )
        pivots, rank = numbers.astype(np.intp) - 1, int(found) if active else 0
        condition = norm * _inverse_norm(matrix, rank)
        units = units[pivots, None]
        if rank >= active:
            return cls(matrix, pivots, rank, condition, tolerance, units, None)
        trapezoid = matrix[:, :rank]
        for j in range(rank):
            trapezoid[:j, j] = 0.0
        trapezoid *= units
        qr, reflectors, _, _ = lapack.dgeqrf(trapezoid, overwrite_a=1)
        return cls(qr, pivots, rank, condition, tolerance, units, reflectors)

    @property
    def is_full(self) -> bool:
        """Whether the columns are independent."""
        return self.reflectors is None

    def solve(self, right: Float64) -> Float64:
        """Return v, (D, K), with Gv = right; 0 for columns of zeros."""
        if not self.rank:
            return np.zeros_like(right)
        v = np.asfortranarray(right[self.pivots])
        if self.is_full:
            v[self.rank :] = 0.0
            _solve_triangles(self.matrix, v, self.rank, lower=True)
        else:
            v = self._rotate(v * self.units, "T")
            v[self.rank :] = 0.0
            _solve_triangles(self.matrix, v, self.rank, lower=False)
            v = self._rotate(v, "N") * self.units
        out = np.empty_like(v)
        out[self.pivots] = v
        return out

    def _rotate(self, v: Float64, transposed: str) -> Float64:
        """Return Qv or Qᵀv."""
        work = max(1, 64 * v.shape[1])
        rotated, _, _ = lapack.dormqr(
            "L", transposed, self.matrix, self.reflectors, v, lwork=work, overwrite_c=1
        )
        return np.asfortranarray(rotated)


def _one_norm(lower: Float64) -> float:
    """Return the 1-norm of a symmetric matrix, given its lower triangle."""
    sums = np.zeros(len(lower))
    for j in range(len(lower)):
        column = np.abs(lower[j:, j])
        sums[j] += column.sum()
        sums[j + 1 :] += column[1:]
    return float(sums.max())


def _inverse_norm(lower: Float64, rank: int) -> float:
    """Return a lower bound of ‖(LLᵀ)⁻¹‖₂ by power iteration; 1 if L has no columns."""
    v = np.ones((max(rank, 1), 1))
    v[1::2] = -1.0
    for _ in range(_INVERSE_ITERATIONS if rank else 0):
        v /= np.linalg.norm(v)
        _solve_triangles(lower, v, rank, lower=True)
    return float(np.linalg.norm(v)) if rank else 1.0


def _solve_triangles(matrix: Float64, v: Float64, rank: int, *, lower: bool) -> None:
    """Solve with LLᵀ, or with RRᵀ, in place."""
    for transposed in (False, True):
        blas.solve_triangle(matrix, v, size=rank, lower=lower, transposed=transposed)
