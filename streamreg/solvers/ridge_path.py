"""Ridge regression for many penalties, from the moments of one set of rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import eigvalsh_tridiagonal, lapack

from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.kernels import blas
from streamreg.kernels.tridiagonal import (
    MOST_FACTORS,
    Tridiagonal,
    permute,
    solved_sums,
    sums_nbytes,
    tridiagonal_nbytes,
)
from streamreg.solvers.base import EPS
from streamreg.solvers.many_targets import width_at_once
from streamreg.solvers.standardization import is_constant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Numbers

# columns of one product, as many as fit this memory
_COLUMNS_NBYTES, _LEAST_COLUMNS = 4 * MIB, 16
# arrays (D, columns) that are alive at once
PATH_ARRAYS_ALIVE = 4
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
    right: Float64  # (r, K) Qᵀc, Fortran order, or rows of such an array

    @classmethod
    def of(cls, moments: GramResult) -> RidgePath:
        """Reduce XᵀX, which is overwritten; constant columns get weights of 0."""
        path = cls.reduced(moments)
        right = np.asfortranarray(moments.cross[path.columns])
        right /= moments.s
        width = path_width(path.n_features)
        for first in range(0, right.shape[1], width):
            path.factor.rotate(right[:, first : first + width], transposed=True)
        return replace(path, right=right)

    def explicit(self) -> RidgePath:
        """Return the path with Q itself, which many targets are multiplied by."""
        return replace(self, factor=self.factor.explicit())

    def in_place(self, cross: Float64) -> RidgePath:
        """Return the path of targets whose XᵀY (D, K), in Fortran order, becomes Qᵀc.

        :meth:`of` leaves XᵀY as it is; this takes no memory but that of some columns.
        """
        r, width = len(self.columns), width_at_once(*cross.shape)
        order = self._order
        is_ordered = bool((order == np.arange(len(order))).all())
        for first in range(0, cross.shape[1], width):
            some = cross[:, first : first + width]
            if not is_ordered:
                some[...] = some[order]
            some /= self.weight_sum
            self.factor.rotate(some[:r], transposed=True)
        return replace(self, right=cross[:r])

    @property
    def _order(self) -> Numbers:
        """The columns, then those that are constant, (D,)."""
        rest = np.setdiff1d(np.arange(self.n_features), self.columns)
        return np.concatenate([self.columns, rest])

    @classmethod
    def reduced(cls, moments: GramResult) -> RidgePath:
        """Reduce XᵀX, which is overwritten, without targets."""
        variances = moments.gram.diagonal() / moments.s
        columns = np.flatnonzero(~is_constant(np.sqrt(variances), moments.mean))
        known = variances[columns]
        if is_graded(known) or len(columns) < len(variances):
            columns = columns[np.argsort(-known, kind="stable")]
            rest = np.setdiff1d(np.arange(len(variances)), columns)
            permute(moments.gram, np.concatenate([columns, rest]))
        r = len(columns)
        factor = Tridiagonal.of(moments.gram[:r, :r])
        return cls(factor, columns, len(variances), moments.s, np.empty((r, 0), order="F"))

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

    def condition(self, l2: float) -> float:
        """Return the root of κ₂ of A + λ1, of columns in their own units."""
        last = len(self.columns) - 1
        if last < 1:
            return 1.0
        ends = [
            float(eigvalsh_tridiagonal(self.diagonal, self.beside, "i", (at, at))[0])
            for at in (0, last)
        ]
        least = ends[0] + l2
        return float(np.sqrt((ends[1] + l2) / least)) if least > 0 else float("inf")

    def coordinates(self, pivots: Pivots, targets: slice | Numbers) -> Float64:
        """Return z = (T + λ1)⁻¹Qᵀc of some targets, (r, n)."""
        right = self.right[:, targets]
        if len(right) < 2:  # noqa: PLR2004
            return np.asarray(right / pivots.delta[:, None])
        z, _ = lapack.dpttrs(pivots.delta, pivots.below, right)
        return np.asarray(z)

    def sums(self, pivots: list[Pivots]) -> tuple[Float64, Float64]:
        """Return z·Qᵀc and ‖z‖² of all targets for some penalties, (n, K) each."""
        delta = np.array([each.delta for each in pivots])
        if not len(self.right):
            zeros = np.zeros((len(pivots), self.right.shape[1]))
            return zeros, zeros
        if len(self.right) == 1:
            z = self.right / delta
            return z * self.right, z**2
        return solved_sums(self.right, delta, np.array([each.below for each in pivots]))

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
    nbytes = vectors + 8 * PATH_ARRAYS_ALIVE * d * width + tridiagonal_nbytes(d, width)
    # factors of all penalties, with the diagonals of their inverses
    return nbytes + sums_nbytes(d) + 24 * d * n_l2s


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
        cross /= fold.s
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
    errors, rounding = np.full((2, len(l2s), path.right.shape[1]), np.inf)
    found: list[tuple[int, Pivots, float]] = []
    for at, l2 in enumerate(l2s):
        pivots = path.at(l2)
        if pivots is None:
            continue
        left = 1 - (pivots.degrees_of_freedom + fit_intercept) / moments.n
        if left > 0:
            found.append((at, pivots, left))
    for first in range(0, len(found), MOST_FACTORS):
        some = found[first : first + MOST_FACTORS]
        fitted, size = path.sums([pivots for _, pivots, _ in some])
        for number, (at, pivots, left) in enumerate(some):
            squares = moments.y_variance - fitted[number] - pivots.l2 * size[number]
            errors[at] = squares / left**2
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
