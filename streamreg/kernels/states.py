"""The sums that the kernels add to. Shapes: D features, K targets, M columns of coefficients."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from streamreg.blocks import Float64


class MomentsState(NamedTuple):
    """Means, and sums about the means, of the rows so far."""

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    mean: Float64  # (D,)    x̄
    m2: Float64  # (D,)    Σ sᵢ (xᵢ - x̄)²
    low: Float64  # (D,)    min xᵢ
    high: Float64  # (D,)    max xᵢ
    y_mean: Float64  # (K,)    ȳ
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²
    y_high: Float64  # (K,)    max |yᵢ|
    cross: Float64  # (K, D)  Σ sᵢ (yᵢ - ȳ)(xᵢ - x̄)ᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> MomentsState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        return cls(
            n=np.zeros(()), s=np.zeros(()), mean=np.zeros(d), m2=np.zeros(d),
            low=np.full(d, np.inf), high=np.full(d, -np.inf),
            y_mean=np.zeros(k), y_m2=np.zeros(k), y_high=np.zeros(k), cross=np.zeros((k, d)),
        )  # fmt: skip


class ProductState(NamedTuple):
    """Sums over uᵢ = (xᵢ - c)ᵀV + b, its first K columns less yᵢ: residuals r, then directions u."""

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    sums: Float64  # (M,)    Σ sᵢ uᵢ
    rr: Float64  # (K,)    Σ sᵢ rᵢ²
    ru: Float64  # (K,)    Σ sᵢ rᵢ uᵢ    of each target's direction
    uu: Float64  # (K,)    Σ sᵢ uᵢ²
    products: Float64  # (M, D)  Σ sᵢ uᵢ (xᵢ - c)ᵀ

    @classmethod
    def zero(cls, n_features: int, n_targets: int, n_columns: int) -> ProductState:
        """Return the state of no rows."""
        k = n_targets
        return cls(
            n=np.zeros(()), s=np.zeros(()), sums=np.zeros(n_columns),
            rr=np.zeros(k), ru=np.zeros(k), uu=np.zeros(k),
            products=np.zeros((n_columns, n_features)),
        )  # fmt: skip


class GramState(NamedTuple):
    """Second moments about the mean, or about zero where the fit has no intercept.

    Of ``gram`` the lower triangle, seen as Fortran order, is kept.
    """

    n: Float64  # ()      rows
    s: Float64  # ()      Σ sᵢ
    mean: Float64  # (D,)    x̄, or zeros
    y_mean: Float64  # (K,)    ȳ, or zeros
    gram: Float64  # (D, D)  Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ
    cross: Float64  # (D, K)  Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ
    y_m2: Float64  # (K,)    Σ sᵢ (yᵢ - ȳ)²

    @classmethod
    def zero(cls, n_features: int, n_targets: int) -> GramState:
        """Return the state of no rows."""
        d, k = n_features, n_targets
        return cls(
            n=np.zeros(()), s=np.zeros(()), mean=np.zeros(d), y_mean=np.zeros(k),
            gram=np.zeros((d, d), order="F"), cross=np.zeros((d, k)), y_m2=np.zeros(k),
        )  # fmt: skip
