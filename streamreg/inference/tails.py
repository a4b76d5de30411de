"""Tail probabilities of the t, normal and F distributions, and quantiles.

They call ``scipy.special``, because importing ``scipy.stats`` takes half a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from streamreg.blocks import Float64

# beyond this t the series of ``_log_t_tail`` has 16 digits after this many terms
_FAR, _TERMS = 30.0, 16


def two_sided(t: Float64, df: float | None) -> Float64:
    """Return P(abs(T) > abs(t)) of Student's t; of the normal distribution if ``df`` is None."""
    if df is None:
        return np.asarray(2 * special.ndtr(-np.abs(t)))
    with np.errstate(over="ignore"):
        squared = t * t
    return _upper_tail(squared, 1.0, df)


def log10_two_sided(t: Float64, df: float | None) -> Float64:
    """Return log₁₀ of :func:`two_sided`, also where that is below 1e-308."""
    if df is None:
        return np.asarray((special.log_ndtr(-np.abs(t)) + np.log(2)) / np.log(10))
    with np.errstate(divide="ignore"):
        near = np.log10(two_sided(t, df))
    return np.where(np.abs(t) > _FAR, _log_t_tail(t, df) / np.log(10), near)


def f_tail(f: Float64, df_model: float, df: float) -> Float64:
    """Return P(F > f) of the F distribution."""
    with np.errstate(over="ignore"):
        x = df_model * f
    return _upper_tail(x, df_model, df)


def quantile(share: float, df: float | None) -> float:
    """Return the quantile of Student's t; of the normal distribution if ``df`` is None."""
    return float(special.ndtri(share) if df is None else special.stdtrit(df, share))


def _upper_tail(x: Float64, df_model: float, df: float) -> Float64:
    """Return P(F > x/df_model): an incomplete beta function, of the smaller argument."""
    a, b = df_model / 2, df / 2
    # of an exact fit x is inf, and the tail 0
    with np.errstate(invalid="ignore"):
        near = special.betaincc(a, b, np.minimum(x / (df + x), 0.5))
    return np.asarray(np.where(x < df, near, special.betainc(b, a, df / (df + x))))


def _log_t_tail(t: Float64, df: float) -> Float64:
    """Return the logarithm of the two-sided tail of t, for large t.

    With x = df/(df + t²) and a = df/2 it is the incomplete beta function I_x(a, 1/2) [1]_,

        x^a (1 - x)^(-1/2) / (a B(a, 1/2)) · Σ_n (1/2)_n / (a + 1)_n · (-df/t²)^n

    References
    ----------
    .. [1] NIST Digital Library of Mathematical Functions, 8.17.8 and 15.8.1.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        squared, a = np.where(np.abs(t) > _FAR, t * t, np.inf), df / 2
        series, term = np.ones_like(squared), np.ones_like(squared)
        for n in range(_TERMS):
            term = term * -((n + 0.5) / (a + 1 + n) * df / squared)
            series = series + term
        beyond = np.log1p(df / squared)  # -log(1 - x)
        front = -a * np.log1p(squared / df) + 0.5 * beyond - np.log(a) - special.betaln(a, 0.5)
        return np.asarray(front + np.log(series))
