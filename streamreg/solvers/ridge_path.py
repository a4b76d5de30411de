"""Ridge regression for many penalties, from the moments of one set of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import lapack

from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.kernels import blas
from streamreg.kernels.tridiagonal import Tridiagonal, permute, tridiagonal_nbytes
from streamreg.solvers.base import EPS
from streamreg.solvers.standardization import is_constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Numbers

# columns of one product, as many as fit this memory
_COLUMNS_NBYTES, _LEAST_COLUMNS = 4 * MIB, 16
# arrays (D, columns) that are alive at once
_ARRAYS_ALIVE = 4
# columns are brought in order if their variances differ by a larger factor
_SIMILAR_VARIANCES = 16.0
# the relative rounding of A, for each column, at which equations are singular: as for Cholesky
_ROUNDING = 32 * EPS


# Operations of a reduction to tridiagonal form, for D³: a Cholesky factor counts 2/3. Measured at
# D = 2,000 on one thread: twice as long as the factor.
REDUCTION_FLOPS = 4 / 3


class Pivots(NamedTuple):
    """T + λ1 = L diag(δ) Lᵀ, and the diagonal of its inverse."""

    l2: float  # λ
    delta: Float64  # (r,)
    below: Float64  # (r - 1,) of L, below its diagonal of ones
    inverse: Float64  # (r,)

    @property
    def degrees_of_freedom(self) -> float:
        """The trace of A(A + λ1)⁻¹, which is r - λ tr (T + λ1)⁻¹."""
        return len(self.inverse) - self.l2 * float(self.inverse.sum())


def _inverse_diagonal(delta: Float64, below: Float64) -> Float64:
    """Return the diagonal of X = (L diag(δ) Lᵀ)⁻¹.

    X_rr = 1/δ_r and X_ii = 1/δ_i + l_i² X_{i+1,i+1}: all terms are positive, so nothing cancels.
    """
    last, diagonal = 0.0, []
    squares = np.append(below**2, 0.0)[: len(delta)]
    # floats of Python, which are faster than NumPy's
    for reciprocal, square in zip((1 / delta)[::-1].tolist(), squares[::-1].tolist(), strict=True):
        last = reciprocal + square * last
        diagonal.append(last)
    return np.array(diagonal[::-1])


@dataclass(frozen=True, eq=False)
class RidgePath:
    """The weights w(λ) = (A + λ1)⁻¹c of many penalties λ, with A = XᵀX/Σs and c = Xᵀy/Σs.

    A = QTQᵀ is reduced to tridiagonal form once, 4/3 D³ operations in the memory of XᵀX [1]_. Then
    z = (T + λ1)⁻¹Qᵀc takes O(D) for each penalty and target, and w = Qz O(D²). No column is
    scaled, because λ is in the user's units. Columns are ordered by variance instead, which
    loses no digits of small ones.

    References
    ----------
    .. [1] Eldén (1977), BIT 17, 134-145.
    """

    factor: Tridiagonal  # of the columns that vary, times Σs
    columns: Numbers  # (r,) these columns, in the order of the factor
    n_features: int  # D
    weight_sum: float  # Σs
    right: Float64  # (r, K) Qᵀc, Fortran order

    @classmethod
    def of(cls, moments: GramResult) -> RidgePath:
        """Reduce XᵀX, which is overwritten; constant columns get weights of 0."""
        variances = moments.gram.diagonal() / moments.s
        columns = np.flatnonzero(~is_constant(np.sqrt(variances), moments.mean))
        known = variances[columns]
        if is_graded(known) or len(columns) < len(variances):
            columns = columns[np.argsort(-known, kind="stable")]
            rest = np.setdiff1d(np.arange(len(variances)), columns)
            permute(moments.gram, np.concatenate([columns, rest]))
        r = len(columns)
        factor = Tridiagonal.of(moments.gram[:r, :r])
        right = np.asfortranarray(moments.cross[columns])
        width = path_width(len(variances))
        for first in range(0, right.shape[1], width):
            factor.rotate(right[:, first : first + width], transposed=True)
        return cls(factor, columns, len(variances), moments.s, right)

    @property
    def diagonal(self) -> Float64:
        """The diagonal of T, (r,)."""
        return self.factor.diagonal / self.weight_sum

    @property
    def beside(self) -> Float64:
        """The elements of T beside its diagonal, (r - 1,)."""
        return self.factor.beside / self.weight_sum

    def at(self, l2: float) -> Pivots | None:
        """Return the factor of T + λ1; ``None`` if it is singular, to rounding."""
        diagonal = self.diagonal + l2
        pivots, below, info = diagonal, np.empty(0), 0
        if len(diagonal) > 1:
            pivots, below, info = lapack.dpttrf(diagonal, self.beside)
        if info or (pivots <= 0).any():
            return None
        found = Pivots(l2, pivots, below, _inverse_diagonal(pivots, below))
        # how much a relative change of A by rounding could change the weights
        change = _ROUNDING * max(len(diagonal), 16) * diagonal * found.inverse
        return None if (change > 1).any() else found

    def coordinates(self, pivots: Pivots, targets: slice | Numbers) -> Float64:
        """Return z = (T + λ1)⁻¹Qᵀc of some targets, (r, n)."""
        right = self.right[:, targets]
        if len(right) < 2:  # noqa: PLR2004
            return np.asarray(right / pivots.delta[:, None])
        z, _ = lapack.dpttrs(pivots.delta, pivots.below, right)
        return np.asarray(z)

    def weights(self, z: Float64) -> Float64:
        """Return w (D, n) of z (r, n), which is overwritten."""
        self.factor.rotate(z, transposed=False)
        w = np.zeros((self.n_features, z.shape[1]), order="F")
        w[self.columns] = z
        return w


def is_graded(sizes: Float64) -> bool:
    """Whether diagonal elements of A differ by so much that A must be brought in order."""
    return bool(len(sizes) and sizes.max() > _SIMILAR_VARIANCES * sizes.min())


def require_plain_units(*, is_plain: bool) -> None:
    """Raise :class:`InputError` for squares outside float64."""
    if not is_plain:
        raise InputError(
            "squares of X or y leave the range of float64, in which penalties are compared; "
            "store these columns in other units"
        )


def path_width(n_features: int) -> int:
    """Return how many columns are multiplied at once."""
    return max(_LEAST_COLUMNS, _COLUMNS_NBYTES // (8 * n_features))


def path_nbytes(n_features: int, n_targets: int, n_l2s: int) -> int:
    """Bytes of a path and of what :func:`fold_errors` takes, beside XᵀX."""
    d, k, width = n_features, n_targets, min(path_width(n_features), n_targets * n_l2s)
    # c and Qᵀc of the training rows, c of the fold
    vectors = 8 * (3 * d * k + 16 * d)
    return vectors + 8 * _ARRAYS_ALIVE * d * width + tridiagonal_nbytes(d, width)


def fold_errors(
    path: RidgePath, training: GramResult, fold: GramResult, l2s: Float64
) -> tuple[Float64, Float64]:
    """Return the mean squared errors of a fold, (L, K), of weights of the training rows.

    With y - ŷ = (y - ȳ) - (x - x̄)·w + e and e = ȳ - ȳₜ - (x̄ - x̄ₜ)·w, where t marks means of the
    training rows, and sums over the fold,

        MSE = Σ s (y - ȳ)²/Σs - 2 w·c + wᵀXᵀXw/Σs + e²

    Infinite where a penalty leaves the equations singular. Also returns a bound of the rounding
    of each error, (L, K): u (σ_y + Σ |w_j| σ_j)², about.
    """
    n_l2s, n_targets = len(l2s), path.right.shape[1]
    errors, rounding = np.full((2, n_l2s, n_targets), np.inf)
    gap = (fold.origin - training.origin) + (fold.offset - training.offset)
    y_gap = (fold.y_origin - training.y_origin) + (fold.y_offset - training.y_offset)
    spread = np.sqrt(fold.gram.diagonal() / fold.s)
    for penalties, targets in _batches(n_l2s, n_targets, path_width(path.n_features)):
        found = [(at, path.at(l2s[at])) for at in penalties]
        solved = [(at, pivots) for at, pivots in found if pivots is not None]
        if not solved:
            continue
        z = np.concatenate([path.coordinates(pivots, targets).T for _, pivots in solved]).T
        w = path.weights(z)
        moved = np.empty_like(w, order="F")
        blas.multiply_symmetric(fold.gram, w, moved)
        shape = len(solved), -1
        square = np.einsum("dm,dm->m", w, moved).reshape(shape) / fold.s
        cross = np.einsum("lkd,kd->lk", w.T.reshape(*shape, len(w)), fold.cross.T[targets])
        shift = y_gap[targets] - (gap @ w).reshape(shape)
        variance = fold.y_variance[targets]
        rows = [at for at, _ in solved]
        errors[rows, targets] = variance - 2 * cross + square + shift**2
        size = np.sqrt(variance) + (spread @ np.abs(w, out=w)).reshape(shape)
        rounding[rows, targets] = EPS * size**2
    return errors, rounding


def generalised_errors(
    path: RidgePath, moments: GramResult, l2s: Float64, *, fit_intercept: bool
) -> tuple[Float64, Float64]:
    """Return GCV(λ), (L, K), and a bound of the rounding of each [1]_.

        GCV(λ) = (RSS/Σs) / (1 - (df + 1)/n)²        df = tr A(A + λ1)⁻¹

    of n rows; without an intercept df stands in the place of df + 1. With z = (T + λ1)⁻¹Qᵀc,
    RSS/Σs = σ_y² - z·Qᵀc - λ‖z‖².

    References
    ----------
    .. [1] Golub, Heath & Wahba (1979), Technometrics 21(2), 215-223.
    """
    n_targets, width = path.right.shape[1], path_width(path.n_features)
    errors, rounding = np.full((2, len(l2s), n_targets), np.inf)
    for at, l2 in enumerate(l2s):
        pivots = path.at(l2)
        if pivots is None:
            continue
        left = 1 - (pivots.degrees_of_freedom + fit_intercept) / moments.n
        if left <= 0:
            continue
        for first in range(0, n_targets, width):
            targets = slice(first, first + width)
            z = path.coordinates(pivots, targets)
            fitted = np.einsum("dk,dk->k", z, path.right[:, targets])
            size = l2 * np.einsum("dk,dk->k", z, z)
            errors[at, targets] = (moments.y_variance[targets] - fitted - size) / left**2
        rounding[at] = EPS * np.sqrt(path.n_features) * moments.y_variance / left**2
    return errors, rounding


def _batches(n_l2s: int, n_targets: int, width: int) -> Iterator[tuple[range, slice]]:
    """Yield penalties and targets, up to ``width`` pairs at once."""
    at_once = max(1, width // n_targets)
    for first in range(0, n_l2s, at_once):
        for target in range(0, n_targets, width):
            yield (
                range(first, min(first + at_once, n_l2s)),
                slice(target, min(target + width, n_targets)),
            )
