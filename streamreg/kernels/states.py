"""The sums that the kernels add to. Shapes: D features, K targets, M columns of coefficients.

Means are stored about an origin, the first row of a state: rows a billion deviations from zero then
cost no digits, and the sums of a constant column are exactly zero.
"""

from __future__ import annotations

import math
import mmap
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.blocks import Float64


# NumPy or CuPy, and a number of theirs
Namespace = Any
Number = Any

# larger arrays of a state are mapped: at D = 100,000 a fit on two threads took 8 MiB less
_MAPPED_NBYTES = 1 << 18


class MomentsState(NamedTuple):
    """Means, and sums about the means, of the rows so far."""

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    origin: Float64  # (D,)    o, the first row
    mean: Float64  # (D,)    x̄ - o
    m2: Float64  # (D,)    Σ sᵢ (xᵢ - x̄)²
    low: Float64  # (D,)    min xᵢ, as stored
    high: Float64  # (D,)    max xᵢ, as stored
    y_origin: Float64  # (K,)    oy, the first y
    y_mean: Float64  # (K,)    ȳ - oy
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    y_low: Float64  # (K,)    min yᵢ, as stored
    y_high: Float64  # (K,)    max yᵢ, as stored
    cross: Float64  # (K, D)  Σ sᵢ (yᵢ - ȳ)(xᵢ - x̄)ᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> MomentsState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        state = cls(*_zeros((), (), d, d, d, d, d, k, k, k, k, k, (k, d)))
        for low, high in ((state.low, state.high), (state.y_low, state.y_high)):
            low.fill(np.inf)
            high.fill(-np.inf)
        return state


class ProductState(NamedTuple):
    """Sums over uᵢ = xᵢᵀV + b, its first K columns less yᵢ: residuals r, then directions."""

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    sums: Float64  # (M,)    Σ sᵢ uᵢ
    rr: Float64  # (K,)    Σ sᵢ rᵢ²
    products: Float64  # (M, D)  Σ sᵢ uᵢ xᵢᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int, n_columns: int) -> ProductState:
        """Return the state of no rows."""
        return cls(*_zeros((), (), n_columns, n_targets, (n_columns, n_features)))


class SparseProductState(NamedTuple):
    """The sums of :class:`ProductState` over sparse rows, beside the coefficients.

    Coefficients of a column and its sums share cache lines, because a loop reads both.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    sums: Float64  # (M,)    Σ sᵢ uᵢ
    rr: Float64  # (K,)    Σ sᵢ rᵢ²
    columns: Float64  # (D, 2M)  V, then Σ sᵢ uᵢ xᵢ

    @classmethod
    def zero(cls, coefficients: Float64, n_targets: int) -> SparseProductState:
        """Return the state of no rows, for coefficients V (D, M)."""
        d, m = map(int, coefficients.shape)
        state = cls(*_zeros((), (), m, n_targets, (d, 2 * m)))
        # a column at a time, because the inner loop of NumPy would be over the few columns
        for at in range(m):
            state.columns[:, at] = coefficients[:, at]
        return state

    @property
    def products(self) -> Float64:
        """Σ sᵢ uᵢ xᵢ, (D, M), as a view."""
        return self.columns[:, len(self.sums) :]


# of columns of X: the place of each in z, or -1
Places = np.ndarray[tuple[int], np.dtype[np.int32]]


class TriangleState(NamedTuple):
    """Second moments of k columns z: the lower triangle, packed by rows."""

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    triangle: Float64  # (k·(k + 1)/2,)  Σ sᵢ zᵢzᵢᵀ; element (i, j) at i·(i + 1)/2 + j

    @classmethod
    def zero(cls, n_columns: int) -> TriangleState:
        """Return the state of no rows."""
        return cls(*_zeros((), (), n_columns * (n_columns + 1) // 2))


# fields of a column of SparseMomentsState, before K pairs of Σ sᵢ yᵢ zᵢ and Σ sᵢ yᵢ
ORIGIN, WEIGHT, SUM, SQUARES, LOW, HIGH, CROSS = range(7)


class SparseMomentsState(NamedTuple):
    """Sums of the stored values of each column, from which the moments of all rows follow.

    With z the stored value less the column's origin o, its first stored value, and y less its
    origin, a column has o, Σ sᵢ, Σ sᵢ zᵢ, Σ sᵢ zᵢ², the least and the largest value as stored,
    and K pairs of Σ sᵢ yᵢ zᵢ and Σ sᵢ yᵢ: with K = 1 it is one cache line of 64 bytes. All are 0 in
    a column without stored values.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ of all rows
    check: Float64  # ()      NaN once a value is NaN or inf, else 0
    columns: Float64  # (D, 6 + 2K)
    y_origin: Float64  # (K,)    the first y
    y_mean: Float64  # (K,)    ȳ less it
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    y_low: Float64  # (K,)    min yᵢ, as stored
    y_high: Float64  # (K,)    max yᵢ, as stored

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> SparseMomentsState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        state = cls(*_zeros((), (), (), (d, CROSS + 2 * k), k, k, k, k, k))
        state.y_low.fill(np.inf)
        state.y_high.fill(-np.inf)
        return state


class SparseGramState(NamedTuple):
    """Sums of products of stored values, less an origin in columns that every row stores.

    Only the lower triangle of ``gram``, in Fortran order, is valid.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    updates: Float64  # ()      additions to a sum, each of which rounds: at most one a row
    origin: Float64  # (D,)    o, the first value of columns that every row stores; else zeros
    sums: Float64  # (D,)    Σ sᵢ (xᵢ - o)
    varies: Float64  # (D,)    1 where a value differs from the origin, else 0
    gram: Float64  # (D, D)  Σ sᵢ (xᵢ - o)(xᵢ - o)ᵀ
    y_origin: Float64  # (K,)    oy, the first y, or zeros
    y_mean: Float64  # (K,)    ȳ - oy, or zeros
    y_varies: Float64  # (K,)    1 where a value differs from the origin, else 0
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    cross: Float64  # (D, K)  Σ sᵢ (xᵢ - o)(yᵢ - oy)ᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> SparseGramState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        return cls._make([*_zeros((), (), (), d, d, d), _square(d), *_zeros(k, k, k, k, (d, k))])

    def move_origin(self, columns: Iterable[int], by: Float64, moved: Float64, s: Float64) -> None:
        """Subtract ``by`` (D,) from the origin of some columns, in ``gram``.

        ``moved`` (D,) is Σ sᵢ (xᵢ - o) of the rows whose products are changed, of weight ``s``; it
        is changed too.
        """
        for j in columns:
            self.gram[j:, j] += by[j] * moved[j:]
            self.gram[j, : j + 1] += by[j] * moved[: j + 1]
            self.gram[j, j] += s * by[j] * by[j]
            moved[j] += s * by[j]


class ResidualState(NamedTuple):
    """Sums over rᵢ = xᵢᵀV + b, its first K columns less yᵢ: a high part and a low part each."""

    n: Float64  # ()         rows
    s: Float64  # (2,)       Σ sᵢ
    sums: Float64  # (M, 2)     Σ sᵢ rᵢ
    rr: Float64  # (M, 2)     Σ sᵢ rᵢ²
    products: Float64  # (M, 2, D)  Σ sᵢ rᵢ xᵢᵀ

    @classmethod
    def zero(cls, n_features: int, n_columns: int) -> ResidualState:
        """Return the state of no rows."""
        m = n_columns
        return cls(*_zeros((), 2, (m, 2), (m, 2), (m, 2, n_features)))


class GramState(NamedTuple):
    """Second moments about the mean, or about zero where the fit has no intercept.

    Only the lower triangle of ``gram``, in Fortran order, is valid.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    updates: Float64  # ()      additions to ``gram``, each of which rounds
    origin: Float64  # (D,)    o, the first row; zeros where nothing is centred
    mean: Float64  # (D,)    x̄ - o; zeros where nothing is centred
    varies: Float64  # (D,)    1 where a value differs from the origin, else 0
    gram: Float64  # (D, D)  Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ
    y_origin: Float64  # (K,)    oy, the first y, or zeros
    y_mean: Float64  # (K,)    ȳ - oy, or zeros
    y_varies: Float64  # (K,)    1 where a value differs from the origin, else 0
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    cross: Float64  # (D, K)  Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ, in Fortran order: a target is contiguous

    @classmethod
    def zero(cls, n_features: int, n_targets: int, *, has_square: bool = True) -> GramState:
        """Return the state of no rows; without ``has_square`` XᵀX is (0, 0)."""
        d, k = n_features, n_targets
        *y_sums, cross = _zeros(k, k, k, k, (k, d))
        square = _square(d if has_square else 0)
        return cls._make([*_zeros((), (), (), d, d, d), square, *y_sums, cross.T])


class FoldsState(NamedTuple):
    """The second moments of each of F folds of the rows: the fields of :class:`GramState`."""

    n: Float64  # (F,)
    s: Float64  # (F,)
    updates: Float64  # (F,)
    origin: Float64  # (F, D)
    mean: Float64  # (F, D)
    varies: Float64  # (F, D)
    gram: Float64  # (D, D, F)   in Fortran order
    y_origin: Float64  # (F, K)
    y_mean: Float64  # (F, K)
    y_varies: Float64  # (F, K)
    y_m2: Float64  # (F, K)
    cross: Float64  # (D, K, F)   in Fortran order

    @classmethod
    def zero(
        cls, n_folds: int, n_features: int, n_targets: int, *, has_square: bool = True
    ) -> FoldsState:
        """Return the state of no rows; without ``has_square`` XᵀX is (0, 0, F)."""
        f, d, k = n_folds, n_features, n_targets
        sums = _zeros(f, f, f, (f, d), (f, d), (f, d))
        *y_sums, cross = _zeros((f, k), (f, k), (f, k), (f, k), (f, k, d))
        square = _square(d if has_square else 0, f)
        return cls._make([*sums, square, *y_sums, cross.T])

    def fold(self, number: int) -> GramState:
        """Return the sums of one fold, as views."""
        lines = self._replace(gram=self.gram.T, cross=self.cross.T)
        state = GramState(*(each[number, ...] for each in lines))
        return state._replace(gram=state.gram.T, cross=state.cross.T)


class RootState(NamedTuple):
    """The triangular factor R of rows √sᵢ·[1, xᵢ - o, yᵢ - oy], P = 1 + D + K columns.

    Where nothing is centred, o is zeros, and so is the first column.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    updates: Float64  # ()      updates of R, each of which rounds
    origin: Float64  # (D,)    o, the first row, or zeros
    varies: Float64  # (D,)    1 where a value differs from the origin, else 0
    y_origin: Float64  # (K,)    oy, the first y, or zeros
    root: Float64  # (P, P)  R, upper triangular, in Fortran order

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> RootState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        return cls._make([*_zeros((), (), (), d, d, k), _square(1 + d + k)])


class MeatState(NamedTuple):
    """Sums over columns q of the rows, M of them, with weights ω that depend on residuals.

    Only the lower triangle of ``meat``, in Fortran order, is valid.
    """

    n: Float64  # ()      rows
    total: Float64  # ()      Σ ωᵢ
    sums: Float64  # (M,)    Σ ωᵢ qᵢ
    meat: Float64  # (M, M)  Σ ωᵢ qᵢqᵢᵀ
    n_exact: Float64  # ()      rows that the fit passes through: their residuals are rounding
    exact: Float64  # (1 + M,) Σ cᵢ [1, qᵢ] of these rows, with random cᵢ
    first_exact: Float64  # ()      the number of the first one, or inf

    @classmethod
    def zero(cls, n_columns: int) -> MeatState:
        """Return the state of no rows."""
        n, total, sums, n_exact, exact = _zeros((), (), n_columns, (), 1 + n_columns)
        return cls(n, total, sums, _square(n_columns), n_exact, exact, np.full((), np.inf))


class GroupSumsState(NamedTuple):
    """Sums of sᵢ rᵢ [1, zᵢ] of each of G groups."""

    n: Float64  # ()          rows
    rows: Float64  # (G,)        rows of each group
    sums: Float64  # (G, 1 + D)

    @classmethod
    def zero(cls, n_groups: int, n_features: int) -> GroupSumsState:
        """Return the state of no rows."""
        return cls(*_zeros((), n_groups, (n_groups, 1 + n_features)))


class SortedGroupsState(NamedTuple):
    """Sums of sᵢ rᵢ [1, zᵢ] of groups whose rows are consecutive.

    The first and the last group may continue in other states; those between them are complete, and
    multiplied: M columns, of which only the lower triangle, in Fortran order, is valid.
    """

    n: Float64  # ()         rows
    n_groups: Float64  # ()         groups, of which the first and the last are not multiplied yet
    first: Float64  # (1,)       the bits of the first group's number, an integer
    last: Float64  # (1,)       the bits of the last group's number
    first_sums: Float64  # (1 + D,)
    last_sums: Float64  # (1 + D,)   zeros if there is one group
    meat: Float64  # (M, M)

    @classmethod
    def zero(cls, n_features: int, n_columns: int) -> SortedGroupsState:
        """Return the state of no rows."""
        d = 1 + n_features
        return cls._make([*_zeros((), (), 1, 1, d, d), _square(n_columns)])


def _zeros(*shapes: int | tuple[int, ...]) -> list[Float64]:
    return [
        _mapped(shape) if _nbytes(shape) >= _MAPPED_NBYTES else np.zeros(shape) for shape in shapes
    ]


def _nbytes(shape: int | tuple[int, ...]) -> int:
    return 8 * (shape if isinstance(shape, int) else math.prod(shape))


def _square(n_features: int, count: int | None = None) -> Float64:
    """Return zeros (D, D), in Fortran order; with ``count``, (D, D, count)."""
    d = n_features
    shape = (d, d) if count is None else (count, d, d)
    if _nbytes(shape) < mmap.PAGESIZE:
        return np.zeros(shape).T
    return _mapped(shape).T


def _mapped(shape: int | tuple[int, ...]) -> Float64:
    """Return zeros whose memory the system gets back when freed.

    The heaps of threads keep freed memory: with six states of 30 MiB alive they held up to nine
    (measured with glibc 2.36 and four threads).
    """
    nbytes = _nbytes(shape)
    try:
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        sizes = (shape,) if isinstance(shape, int) else shape
        product = " × ".join(f"{size:,}" for size in sizes)  # noqa: RUF001
        raise MemoryError(f"{product} × 8 bytes: {error}") from error  # noqa: RUF001
    if nbytes >= 1 << 22 and sys.platform == "linux":
        pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does
    return np.frombuffer(pages).reshape(shape)


def move_means(
    xp: Namespace, state: MomentsState | GramState, mean: Float64, y_mean: Float64, total: Number
) -> tuple[Number, Float64, Float64]:
    """Move the means of a state, given those of b more rows of weight ``total``.

    Returns nₐ n_b / n, δ = x̄_b - x̄ₐ and the δ of y: Chan, Golub & LeVeque (1983).
    """
    share = total / (state.s + total)
    delta, y_delta = mean - state.mean, y_mean - state.y_mean
    xp.add(state.mean, share * delta, out=state.mean)
    xp.add(state.y_mean, share * y_delta, out=state.y_mean)
    return state.s * share, delta, y_delta


def count(
    xp: Namespace,
    state: MomentsState
    | ProductState
    | SparseProductState
    | SparseGramState
    | GramState
    | RootState
    | TriangleState,
    n: int,
    weight: Float64 | None,
) -> None:
    """Add n rows, and their weights, to the counts of a state."""
    state.n[...] += n
    xp.add(state.s, n if weight is None else weight.sum(), out=state.s)
