"""The coefficients of one target, with their errors if the fit computed them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.formatting import column_names
from streamreg.inference.summary import rows_of

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64
    from streamreg.model import Model

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The intercept first, then the columns in their order: P terms. Unknown figures are NaN."""

    terms: tuple[str, ...]  # (P,)
    values: Float64  # (P,)
    bse: Float64  # (P,) standard errors
    tvalues: Float64  # (P,)
    pvalues: Float64  # (P,)
    log10_pvalues: Float64  # (P,)
    low: Float64  # (P,) the bounds of the confidence intervals
    high: Float64  # (P,)
    digits: Float64  # (P,) digits that are right
    statistic: str  # "t", or "z" if tests use the normal distribution

    @classmethod
    def of(cls, model: Model, target: int, alpha: float) -> Coefficients:
        """Collect the figures of a target, with 1 - ``alpha`` confidence intervals."""
        names = column_names(model.feature_names, model.n_features)
        weights = np.concatenate(
            [model.intercept[[target]], model.weights_of(target, target + 1)[0]]
        )
        figures = np.full((len(weights), 7), np.nan)
        figures[:, 0] = weights
        inference = model.inference
        if inference is not None:
            # an intercept that was not fitted has no errors
            figures[0 if inference.has_intercept else 1 :] = rows_of(inference, target, alpha)
        values, bse, tvalues, pvalues, log10_pvalues, low, high = figures.T
        return cls(
            terms=("intercept", *map(_printable, names)),
            values=values,
            bse=bse,
            tvalues=tvalues,
            pvalues=pvalues,
            log10_pvalues=log10_pvalues,
            low=low,
            high=high,
            digits=np.concatenate([[np.nan], _digits(model, target)]),
            statistic="t" if inference is None or inference.use_t else "z",
        )

    @property
    def have_errors(self) -> bool:
        """Whether any standard error is known."""
        return bool(np.isfinite(self.bse).any())

    @property
    def have_digits(self) -> bool:
        """Whether any number of right digits is known."""
        return bool(np.isfinite(self.digits).any())

    def largest(self, most: int) -> Array:
        """Return the ``most`` largest columns, the largest first: by |t| if errors are known."""
        sizes = np.abs(self.tvalues if self.have_errors else self.values)[1:]
        order = np.argsort(-np.where(np.isnan(sizes), -1.0, sizes), kind="stable")
        return 1 + order[:most]


def _printable(name: str) -> str:
    """Return a name with a sign in place of what no page can hold: controls, halves of letters."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", name)


def _digits(model: Model, target: int) -> Float64:
    """Return the right digits of a target's coefficients, (D,), NaN where they are unknown."""
    unknown = np.full(model.n_features, np.nan)
    try:
        # a file has None for NaN, or anything
        digits = np.array(model.details.get("digits"), dtype=np.float64)
    except (TypeError, ValueError):
        return unknown
    shape = (model.n_features,) if model.one_target else model.coefficients.shape
    return np.atleast_2d(digits)[target] if digits.shape == shape else unknown
