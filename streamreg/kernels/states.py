"""The sums that the kernels add to. Shapes: D features, K targets, M columns of coefficients.

Means are kept about an origin, the first row that a state met: rows that lie a billion deviations
from zero then cost no digits, and a column that never changes is exactly zero.
"""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Float64


class MomentsState(NamedTuple):
    """Means, and sums about the means, of the rows so far."""

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    origin: Float64  # (D,)    o, the first row
    mean: Float64  # (D,)    x̄ - o
    m2: Float64  # (D,)    Σ sᵢ (xᵢ - x̄)²
    low: Float64  # (D,)    min xᵢ, as stored
    high: Float64  # (D,)    max xᵢ, as stored
    y_origin: Float64  # (K,)    the first y
    y_mean: Float64  # (K,)    ȳ less it
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    y_low: Float64  # (K,)    min yᵢ, as stored
    y_high: Float64  # (K,)    max yᵢ, as stored
    cross: Float64  # (K, D)  Σ sᵢ (yᵢ - ȳ)(xᵢ - x̄)ᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> MomentsState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        return cls(
            n=np.zeros(()), s=np.zeros(()), origin=np.zeros(d), mean=np.zeros(d), m2=np.zeros(d),
            low=np.full(d, np.inf), high=np.full(d, -np.inf),
            y_origin=np.zeros(k), y_mean=np.zeros(k), y_m2=np.zeros(k),
            y_low=np.full(k, np.inf), y_high=np.full(k, -np.inf), cross=np.zeros((k, d)),
        )  # fmt: skip


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
        return cls(
            n=np.zeros(()), s=np.zeros(()), sums=np.zeros(n_columns), rr=np.zeros(n_targets),
            products=np.zeros((n_columns, n_features)),
        )  # fmt: skip


class GramState(NamedTuple):
    """Second moments about the mean, or about zero where the fit has no intercept.

    Of ``gram`` the lower triangle, seen as Fortran order, is kept.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    origin: Float64  # (D,)    o, the first row; zeros where nothing is centred
    mean: Float64  # (D,)    x̄ - o; zeros where nothing is centred
    varies: Float64  # (D,)    1 where a value differs from the origin, else 0
    gram: Float64  # (D, D)  Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ
    y_origin: Float64  # (K,)    the first y, or zeros
    y_mean: Float64  # (K,)    ȳ less it, or zeros
    y_varies: Float64  # (K,)    1 where a value differs from the origin, else 0
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    cross: Float64  # (D, K)  Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> GramState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        return cls(
            n=np.zeros(()), s=np.zeros(()),
            origin=np.zeros(d), mean=np.zeros(d), varies=np.zeros(d),
            gram=_square(d),
            y_origin=np.zeros(k), y_mean=np.zeros(k), y_varies=np.zeros(k), y_m2=np.zeros(k),
            cross=np.zeros((d, k)),
        )  # fmt: skip


def _square(n_features: int) -> Float64:
    """Return zeros (D, D), in Fortran order, that go back to the system when they are freed.

    Threads' heaps keep what is freed: of states of 30 MiB, six alive, they held up to nine
    (measured with glibc 2.36 and four threads).
    """
    nbytes = 8 * n_features**2
    if nbytes < mmap.PAGESIZE:
        return np.zeros((n_features, n_features), order="F")
    try:
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        d = n_features
        raise MemoryError(f"{d:,} × {d:,} × 8 bytes of XᵀX: {error}") from error  # noqa: RUF001
    if nbytes >= 1 << 22 and sys.platform == "linux":
        pages.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does
    return np.frombuffer(pages).reshape((n_features, n_features), order="F")
