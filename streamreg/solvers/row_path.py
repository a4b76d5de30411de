"""Ridge regression for many penalties by the products of rows with rows, for N < D."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal

from streamreg.errors import InputError, Remedy
from streamreg.kernels.tridiagonal import Tridiagonal, permute
from streamreg.solvers.base import EPS
from streamreg.solvers.ridge_path import RidgePath, is_graded, path_width

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Numbers
    from streamreg.solvers.ridge_path import Pivots
    from streamreg.solvers.row_equations import CentredProducts


@dataclass(frozen=True, eq=False)
class RowPath:
    """α(λ) = (ZZᵀ/Σs + λ1)⁻¹√s·y/Σs of many penalties λ, w = Zᵀα.

    ZZᵀ is reduced to tridiagonal form once, in its memory: see :class:`RidgePath`.
    """

    path: RidgePath  # of ZZᵀ + ε√s√sᵀ/Σs in the place of XᵀX
    added: float  # ε

    @classmethod
    def of(cls, centred: CentredProducts, right: Float64, weight_sum: float) -> RowPath:
        """Reduce the products, which are overwritten; ``right`` is √s·y (N, K), without means."""
        products, n = centred.products, len(right)
        sizes, order = products.diagonal(), np.arange(n)
        if is_graded(sizes):
            order = np.argsort(-sizes, kind="stable")
            permute(products, order)
        factor = Tridiagonal.of(products)
        path = RidgePath(factor, order, n, weight_sum, np.empty((n, 0)))
        return cls(path, centred.added).with_right(right)

    def with_right(self, right: Float64) -> RowPath:
        """Return the path of another right side (N, K)."""
        path = self.path
        rotated = np.asfortranarray(right[path.columns] / path.weight_sum)
        width = path_width(path.n_features)
        for first in range(0, rotated.shape[1], width):
            path.factor.rotate(rotated[:, first : first + width], transposed=True)
        own = RidgePath(path.factor, path.columns, path.n_features, path.weight_sum, rotated)
        return RowPath(own, self.added)

    def generalised_errors(self, l2s: Float64) -> tuple[Float64, Float64]:
        """Return GCV(λ), (L, K), and a bound of the rounding of each.

        With z = (T + λ1)⁻¹Qᵀc, the residuals are λΣs·α, and n - df - 1 is λ·t, t the trace of
        (T + λ1)⁻¹ without the eigenvalue of √s. λ cancels, so that no digits are lost where the
        residuals are small:

            GCV(λ) = (RSS/Σs) / (1 - (df + 1)/n)² = Σs‖z‖² / (t/n)²

        Infinite for λ = 0, where both are 0, and where the equations are singular.
        """
        path, n = self.path, self.path.n_features
        n_targets, width = path.right.shape[1], path_width(n)
        errors, rounding = np.full((2, len(l2s), n_targets), np.inf)
        for at, l2 in enumerate(l2s):
            pivots = path.at(l2)
            if not l2 or pivots is None:
                continue
            trace = float(pivots.inverse.sum())
            if self.added:
                trace -= 1 / (self.added / path.weight_sum + l2)
            for first in range(0, n_targets, width):
                targets = slice(first, first + width)
                z = path.coordinates(pivots, targets)
                squares = np.einsum("nk,nk->k", z, z)
                errors[at, targets] = path.weight_sum * squares * (n / trace) ** 2
            sizes = (path.diagonal.max() + l2) * pivots.inverse.max()
            rounding[at] = errors[at] * EPS * np.sqrt(n) * sizes
        return errors, rounding


@dataclass(frozen=True, eq=False)
class PathFactor:
    """ZZᵀ + μΣs·I with a penalty μ for each target."""

    rows: RowPath
    l2: Float64  # (K,) μ
    pivots: dict[float, Pivots]  # of each penalty
    condition: Float64  # (K,)
    null: None = None

    @classmethod
    def of(cls, rows: RowPath, l2: Float64) -> PathFactor:
        """Factorise; raise :class:`InputError` if a penalty is too small for that."""
        path, pivots = rows.path, {}
        for each in np.unique(l2).tolist():
            found = path.at(each)
            if found is None:
                raise InputError(
                    f"the best penalty, {each:.3g}, is too small to solve the equations of the "
                    "rows: extend ",
                    Remedy("l2"),
                )
            pivots[each] = found
        low, high = _extremes(path.diagonal, path.beside)
        return cls(rows, l2, pivots, np.sqrt((high + l2) / np.maximum(low + l2, EPS * high)))

    @property
    def rank(self) -> int:
        """N, because no penalty is 0."""
        return self.rows.path.n_features

    def solve(self, right: Float64) -> Float64:
        """Return α (N, K) for a right side (N, K)."""
        path, alpha = self.rows.with_right(right).path, np.empty_like(right)
        for each, pivots in self.pivots.items():
            for targets in _batches(np.flatnonzero(self.l2 == each), path_width(len(right))):
                z = np.asfortranarray(path.coordinates(pivots, targets))
                alpha[:, targets] = path.weights(z)
        return alpha


def _batches(numbers: Numbers, width: int) -> list[Numbers]:
    return [numbers[first : first + width] for first in range(0, len(numbers), width)]


def _extremes(diagonal: Float64, beside: Float64) -> tuple[float, float]:
    """Return the least and the largest eigenvalue of a positive semidefinite T."""
    last = len(diagonal) - 1
    ends = [
        float(eigvalsh_tridiagonal(diagonal, beside, select="i", select_range=(at, at))[0])
        for at in (0, last)
    ]
    return max(0.0, ends[0]), ends[1]
