"""Solve with a triangular factor of XᵀX: exactly, or for the least norm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from streamreg.kernels import blas
from streamreg.kernels.triangle import Triangle, transpose
from streamreg.solvers.base import EPS

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Mask, Numbers

_POWER_ITERATIONS = 8
# Columns that depend on others are corrected one by one if they are few, and D is small, because a
# pass takes some 20 arrays of D numbers for each.
_MOST_DEPENDENCES, _MOST_FEATURES = 8, 1024
# columns of the inverse that are computed at once: as many as fit this memory
_MOST_COLUMNS, _LEAST_COLUMNS, _COLUMNS_NBYTES = 64, 16, 4 << 20


@dataclass(frozen=True, eq=False)
class Factor:
    """The pivoted factor PᵀGP = LLᵀ of a matrix with a diagonal near 1 [1]_.

    If columns depend on others, L is (D, r), and of all solutions of Gv = g the one with least
    ‖v/u‖ is taken: see :class:`Triangle`.

    References
    ----------
    .. [1] Higham (2002), Accuracy and Stability of Numerical Algorithms, 2nd ed., section 10.3.
    """

    matrix: Float64  # (D, ≥ r), Fortran order, in the memory of G: L, or Q and R
    pivots: Numbers  # (D,) columns; those from ``rank`` on depend on others, or are zero
    rank: int  # r
    norm: float  # estimate of ‖√G‖₂, restricted to the first r pivots
    condition: float  # estimate for √G, likewise
    inverse: Float64  # (D,) diagonal of the inverse of G at these pivots; else 0
    # (D, 1) a random combination of the dependences between columns: Gz is 0, to rounding; or None
    null: Float64 | None
    # (D, m) dependences, one for each of m columns that depend on others, if they are few
    dependences: Float64 | None
    units: Float64  # (D, 1) u, in the order of the pivots
    reflectors: Float64 | None  # (r,) of Q; ``None`` if no column depends on others

    @classmethod
    def of_gram(cls, gram: Float64, units: Float64) -> Factor:
        """Factorise G (D, D): the lower triangle in Fortran order, which is overwritten.

        Columns of zeros are left out. ``units`` is u, (D,).
        """
        diagonal = gram.diagonal()
        d, varies = len(gram), diagonal != 0
        # a smaller pivot is rounding
        tolerance = 32 * max(d, 16) * EPS * float(np.max(diagonal))
        matrix, numbers, found, _ = lapack.dpstrf(gram, tol=tolerance, lower=1, overwrite_a=1)
        rank = int(found) if varies.any() else 0
        return cls._of_triangle(matrix, numbers.astype(np.intp) - 1, rank, varies, units)

    @classmethod
    def of_root(cls, root: Float64, right: Float64, units: Float64) -> tuple[Factor, Float64]:
        """Factorise RᵀR, of R (D, D) in Fortran order, which is overwritten.

        Returns the solution of min ‖Rv - right‖ too, (D, K): without forming RᵀR.
        """
        d, varies = len(root), np.asarray(root.any(axis=0))
        work = 2 * d + (d + 1) * _MOST_COLUMNS
        matrix, numbers, reflectors, _, _ = lapack.dgeqp3(root, lwork=work, overwrite_a=1)
        rotated, _, _ = lapack.dormqr(
            "L",
            "T",
            matrix,
            reflectors,
            np.asfortranarray(right),
            lwork=64 * max(1, right.shape[1]),
        )
        sizes = np.abs(matrix.diagonal())
        # a smaller pivot is rounding
        rank = int(np.count_nonzero(sizes > 4 * max(d, 16) * EPS * sizes.max(initial=0.0)))
        transpose(matrix)
        factor = cls._of_triangle(matrix, numbers.astype(np.intp) - 1, rank, varies, units)
        return factor, factor.solve_root(rotated)

    @classmethod
    def _of_triangle(
        cls, matrix: Float64, pivots: Numbers, rank: int, varies: Mask, units: Float64
    ) -> Factor:
        units = units[pivots, None]
        inverse, null, reflectors = np.zeros(len(pivots)), None, None
        dependences = None
        inverse[pivots[:rank]] = _inverse_diagonal(matrix, rank)
        norm, condition = _norm_and_condition(matrix, rank, inverse[pivots[:rank]])
        # LAPACK leaves the columns after the first r in any order, columns of zeros among them
        dependent = np.flatnonzero(varies[pivots[rank:]])
        if len(dependent):
            values = np.zeros((len(pivots) - rank, 1))
            values[dependent, 0] = np.random.default_rng(0).choice([-1.0, 1.0], len(dependent))
            null = _null_vectors(matrix, pivots, rank, values)
            if len(dependent) <= most_dependences(len(pivots)):
                values = np.eye(len(values))[:, dependent]
                dependences = _null_vectors(matrix, pivots, rank, values)
            trapezoid = matrix[:, :rank]
            for j in range(rank):
                trapezoid[:j, j] = 0.0
            trapezoid *= units
            matrix, reflectors, _, _ = lapack.dgeqrf(trapezoid, overwrite_a=1)
        return cls(
            matrix, pivots, rank, norm, condition, inverse, null, dependences, units, reflectors
        )

    @property
    def is_full(self) -> bool:
        """Whether the columns are independent."""
        return self.reflectors is None

    def solve(self, right: Float64) -> Float64:
        """Return v, (D, K), with Gv = right; 0 for columns of zeros."""
        if not self.rank:
            return np.zeros_like(right)
        right = np.asfortranarray(right)
        triangle = self.triangle
        return triangle.unwhiten(triangle.whiten(right, np.empty_like(right)))

    def solve_root(self, right: Float64) -> Float64:
        """Return v with LᵀPᵀv = right: of least ‖v/u‖, if columns depend on others."""
        return self.triangle.unwhiten(right[: self.rank])

    @property
    def triangle(self) -> Triangle:
        """W with WᵀW = G⁺."""
        return Triangle(self.matrix, self.pivots, self.rank, self.units, self.reflectors)


def most_dependences(n_features: int) -> int:
    """Return how many columns that depend on others are corrected one by one."""
    return _MOST_DEPENDENCES if n_features <= _MOST_FEATURES else 0


def _inverse_diagonal(lower: Float64, rank: int) -> Float64:
    """Return the diagonal of (LLᵀ)⁻¹: ‖L⁻¹e_j‖², some columns at a time."""
    diagonal = np.empty(rank)
    width = max(_LEAST_COLUMNS, min(_MOST_COLUMNS, _COLUMNS_NBYTES // (8 * max(rank, 1))))
    room = np.empty(rank * min(width, rank))
    for first in range(0, rank, width):
        count, size = min(width, rank - first), rank - first
        columns = room[: size * count].reshape((size, count), order="F")
        columns.fill(0.0)
        np.fill_diagonal(columns, 1.0)
        part = lower[first:rank, first:rank]
        blas.solve_triangle(part, columns, size=size, lower=True, transposed=False)
        diagonal[first : first + count] = np.einsum("ij,ij->j", columns, columns)
    return diagonal


def _norm_and_condition(lower: Float64, rank: int, inverse: Float64) -> tuple[float, float]:
    """Return ‖L‖₂ and ‖L‖₂ ‖L⁻¹‖₂, by power iterations, which come close from below.

    Without columns both are 1.
    """
    if not rank:
        return 1.0, 1.0
    v = np.ones((rank, 1), order="F")
    # not a vector that a balanced design makes an eigenvector
    v[:, 0] += np.random.default_rng(0).uniform(-0.5, 0.5, rank)
    for _ in range(_POWER_ITERATIONS):
        v /= np.linalg.norm(v)
        for transposed in (True, False):
            blas.multiply_triangle(lower, v, size=rank, transposed=transposed)
    largest = np.linalg.norm(v)
    # the largest element of the inverse is at least 1/D of its norm
    v = np.zeros((rank, 1), order="F")
    v[np.argmax(inverse)] = 1.0
    for _ in range(_POWER_ITERATIONS):
        v /= np.linalg.norm(v)
        _solve_triangles(lower, v, rank)
    return float(np.sqrt(largest)), float(np.sqrt(largest * np.linalg.norm(v)))


def _null_vectors(lower: Float64, pivots: Numbers, rank: int, values: Float64) -> Float64:
    """Return Z (D, m) with PᵀLLᵀPZ = 0 and these values (D - r, m) after the first r pivots."""
    z = np.zeros((len(pivots), values.shape[1]), order="F")
    z[rank:] = values
    # not -lower.T @ z, which copies
    z[:rank] = -(lower[rank:, :rank].T @ values)
    blas.solve_triangle(lower, z, size=rank, lower=True, transposed=True)
    out = np.empty_like(z)
    out[pivots] = z
    return out


def _solve_triangles(lower: Float64, v: Float64, rank: int) -> None:
    """Solve with LLᵀ, in place."""
    for transposed in (False, True):
        blas.solve_triangle(lower, v, size=rank, lower=True, transposed=transposed)
