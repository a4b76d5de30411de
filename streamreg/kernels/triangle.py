"""A triangular factor of a positive semidefinite matrix, applied to columns in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import lapack

from streamreg.kernels import blas

if TYPE_CHECKING:
    from streamreg.blocks import Float64

    Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]


# columns that are copied at once
_WIDTH = 16


@dataclass(frozen=True, eq=False)
class Triangle:
    """W (r, D) with WᵀW = G⁺, a generalised inverse of G (D, D) of rank r.

    With pivots P, PGPᵀ = LLᵀ and W = L⁻¹P. If columns depend on others, L is (D, r), uL = QR and
    W = R⁻¹Qᵀ·u·P: of all solutions v of Gv = g, WᵀWg then has the least ‖v/u‖.
    """

    matrix: Float64  # (D, ≥ r), Fortran order: L, or Q and R
    pivots: Numbers  # (D,)
    rank: int  # r
    units: Float64  # (D, 1) u, in the order of the pivots
    reflectors: Float64 | None = None  # (r,) of Q; ``None`` if no column depends on others

    @property
    def is_full(self) -> bool:
        """Whether no column depends on others."""
        return self.reflectors is None

    def whiten(self, z: Float64, out: Float64) -> Float64:
        """Return WZ, (r, n), in the memory of ``out``: Z and ``out`` are (D, n), Fortran order."""
        np.take(z.T, self.pivots, axis=1, out=out.T, mode="clip")
        if not self.is_full:
            out *= self.units
            self._rotate(out, "T")
        self._solve(out, transposed=False)
        return out[: self.rank]

    def unwhiten(self, q: Float64) -> Float64:
        """Return WᵀQ, (D, m), of Q (r, m)."""
        v = np.zeros((len(self.pivots), q.shape[1]), order="F")
        v[: self.rank] = q
        self._solve(v, transposed=True)
        if not self.is_full:
            self._rotate(v, "N")
            v *= self.units
        return self._unpivoted(v)

    def coordinates(self, v: Float64) -> Float64:
        """Return the c, (r, m), with Wᵀc = v: of v (D, m) that have such c."""
        c = np.asfortranarray(v[self.pivots])
        if not self.is_full:
            c /= np.where(self.units == 0, 1.0, self.units)
            self._rotate(c, "T")
            return np.asarray(np.triu(self.matrix[: self.rank, : self.rank]).T @ c[: self.rank])
        c[self.rank :] = 0.0
        if self.rank:
            blas.multiply_triangle(self.matrix, c, size=self.rank, transposed=True)
        return c[: self.rank]

    def _solve(self, columns: Float64, *, transposed: bool) -> None:
        """Solve with L or Lᵀ, or with R or Rᵀ, in the leading rows of columns."""
        if not self.rank or not columns.shape[1]:
            return
        # W has R⁻¹ where it has L⁻¹ in the other case
        blas.solve_triangle(
            self.matrix, columns, size=self.rank, lower=self.is_full, transposed=transposed
        )

    def _rotate(self, columns: Float64, transposed: str) -> None:
        """Multiply by Q or Qᵀ, in place."""
        if not self.rank:
            return
        work: Any = max(1, 64 * columns.shape[1])
        rotated, _, _ = lapack.dormqr(
            "L", transposed, self.matrix, self.reflectors, columns, lwork=work, overwrite_c=1
        )
        if rotated is not columns:
            columns[...] = rotated

    def _unpivoted(self, v: Float64) -> Float64:
        out = np.empty_like(v)
        out[self.pivots] = v
        return out


def whiten_both_sides(triangle: Triangle, square: Float64) -> None:
    """Write WSWᵀ, with zeros after rank r, to S (D, D), of which the lower triangle is read."""
    d = len(square)
    mirror(square)
    room = np.empty(d * min(_WIDTH, d))
    for _ in range(2):
        for first in range(0, d, _WIDTH):
            columns = square[:, first : first + _WIDTH]
            out = room[: columns.size].reshape(columns.shape, order="F")
            columns[: triangle.rank] = triangle.whiten(columns, out)
            columns[triangle.rank :] = 0.0
        transpose(square)


def transpose(square: Float64) -> None:
    """Transpose in place, some columns at a time."""
    d, width = len(square), _WIDTH
    for first in range(0, d, width):
        stop = min(first + width, d)
        square[first:stop, first:stop] = square[first:stop, first:stop].T.copy()
        below = square[stop:, first:stop].T.copy()
        square[stop:, first:stop] = square[first:stop, stop:].T
        square[first:stop, stop:] = below


def mirror(square: Float64) -> None:
    """Copy the lower triangle to the upper one, in place."""
    d, width = len(square), _WIDTH
    for first in range(0, d, width):
        stop = min(first + width, d)
        corner = np.tril(square[first:stop, first:stop])
        square[first:stop, first:stop] = corner + np.tril(corner, -1).T
        square[first:stop, stop:] = square[stop:, first:stop].T
