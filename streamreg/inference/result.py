"""Standard errors of a fit, and all figures that follow from them without data."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.formatting import count
from streamreg.inference import tails

if TYPE_CHECKING:
    from streamreg.blocks import Float64

    Exponents = np.ndarray[tuple[int], np.dtype[np.int32]]
    Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]

NONROBUST, CLUSTER = "nonrobust", "cluster"
COV_TYPES = (NONROBUST, "HC0", "HC1", "HC2", "HC3", CLUSTER)
# those of which chosen standard errors need no D² array
CHOSEN_TYPES = (NONROBUST, "HC0", "HC1")
CONSTANT = "const"
# a covariance of more terms is not kept: 8 MB
MOST_KEPT_TERMS = 1000


@dataclass(frozen=True, eq=False)
class Inference:
    """Standard errors of K targets, and what follows from them, by statsmodels' definitions.

    P terms: the intercept first, if the fit has one, then the columns. Coefficients that the data
    do not determine have NaN standard errors, and so have those that rows of leverage 1 determine,
    by HC2 and HC3. Weights s are precisions: with r the residuals,

        scale = Σ sᵢ rᵢ² / df_resid        df_resid = nobs - rank

    and R² is about the mean if the columns span a constant, else about 0.
    """

    cov_type: str  # of COV_TYPES
    terms: tuple[str, ...]  # (P,) "const", then the names of columns, or x0, x1, …
    params: Float64  # (K, P)
    bse: Float64  # (K, P) standard errors
    nobs: int  # rows with positive weight
    rank: int | None  # of the columns and the intercept; None: not known
    has_intercept: bool
    # whether tss is about the mean: an intercept, or columns that span one; None: not known
    is_centred: bool | None
    rss: Float64  # (K,) Σ sᵢ rᵢ², of y/2^e
    tss: Float64  # (K,) Σ sᵢ (yᵢ - ȳ)², or Σ sᵢ yᵢ², of y/2^e
    # (K,) e, because squares of y may leave float64's range
    y_exponents: Exponents
    log_weight_sum: float = 0.0  # Σ log sᵢ
    is_weighted: bool = False  # whether rows have weights
    n_groups: int | None = None  # G of "cluster"
    # (K,) F of the robust types: all coefficients but the intercept are 0, by their covariance
    wald: Float64 | None = None
    # (P, P) of the estimates, divided by ``scale`` for "nonrobust"; None if it is not kept, because
    # there are more than ``MOST_KEPT_TERMS`` terms
    covariance: Float64 | None = None
    is_partial: bool = False  # whether standard errors of chosen terms only were computed
    # (P,) whether the data determine the coefficients; None: not known
    is_determined: Mask | None = None

    @property
    def n_targets(self) -> int:
        """K."""
        return len(self.params)

    @property
    def df_model(self) -> float:
        """Degrees of freedom of the model: the rank, without that of a constant; NaN: not known."""
        if self.rank is None or self.is_centred is None:
            return np.nan
        return self.rank - self.is_centred

    @property
    def df_resid(self) -> float:
        """Degrees of freedom of the residuals: rows less rank; NaN if that is not known."""
        return np.nan if self.rank is None else self.nobs - self.rank

    @property
    def df_t(self) -> float | None:
        """Degrees of freedom of t: ``df_resid``, of "cluster" G - 1; None: the normal is used."""
        if self.cov_type == NONROBUST:
            return self.df_resid
        return None if self.n_groups is None else self.n_groups - 1

    @property
    def use_t(self) -> bool:
        """Whether tests and intervals use Student's t, not the normal distribution."""
        return self.df_t is not None

    @property
    def scale(self) -> Float64:
        """The variance of residuals, (K,); NaN without degrees of freedom."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self._unit_scale, 2 * self.y_exponents)

    @property
    def deviation(self) -> Float64:
        """The standard deviation of residuals, (K,), also where ``scale`` leaves the range."""
        return np.ldexp(np.sqrt(self._unit_scale), self.y_exponents)

    @property
    def tvalues(self) -> Float64:
        """Coefficients divided by their standard errors, (K, P)."""
        return _ratio(self.params, self.bse)

    @property
    def pvalues(self) -> Float64:
        """P values of two-sided tests that a coefficient is 0, (K, P)."""
        return tails.two_sided(self.tvalues, self._df)

    @property
    def log10_pvalues(self) -> Float64:
        """log₁₀ of the P values, (K, P), also where those are 0 in float64."""
        return tails.log10_two_sided(self.tvalues, self._df)

    def conf_int(self, alpha: float = 0.05) -> Float64:
        """Return the bounds of the 1 - alpha confidence intervals, (K, P, 2)."""
        half = tails.quantile(1 - alpha / 2, self._df) * self.bse
        return np.stack([self.params - half, self.params + half], axis=-1)

    @property
    def rsquared(self) -> Float64:
        """R², (K,)."""
        return 1 - _ratio(self.rss, self.tss)

    @property
    def rsquared_adj(self) -> Float64:
        """R² adjusted for the degrees of freedom, (K,)."""
        centred = np.nan if self.is_centred is None else self.is_centred
        share = (self.nobs - centred) / self._freedom
        return np.asarray(1 - share * (1 - self.rsquared))

    @property
    def fvalue(self) -> Float64:
        """F of the test that all coefficients but the constant are 0, (K,)."""
        if self.cov_type != NONROBUST:
            return np.full(self.n_targets, np.nan) if self.wald is None else self.wald
        explained = _ratio(self.tss - self.rss, self.df_model or np.nan)
        return _ratio(explained, self._unit_scale)

    @property
    def f_pvalue(self) -> Float64:
        """The P value of F, (K,)."""
        df = self.df_t if self.n_groups is not None else self.df_resid
        return tails.f_tail(self.fvalue, self.df_model or np.nan, df or np.nan)

    @property
    def llf(self) -> Float64:
        """The log-likelihood of normal errors, (K,)."""
        n = self.nobs
        with np.errstate(divide="ignore"):
            log_variance = np.log(self.rss / n) + 2 * self.y_exponents * np.log(2)
        return np.asarray(-n / 2 * (np.log(2 * np.pi) + log_variance + 1) + self.log_weight_sum / 2)

    @property
    def aic(self) -> Float64:
        """Akaike's information criterion, (K,)."""
        return np.asarray(2 * self._rank - 2 * self.llf)

    @property
    def bic(self) -> Float64:
        """The Bayesian information criterion, (K,)."""
        return np.asarray(np.log(self.nobs) * self._rank - 2 * self.llf)

    def cov_params(self, target: int = 0) -> Float64 | None:
        """Return the covariance of the coefficients of a target, (P, P), if it was kept."""
        if self.covariance is None:
            return None
        if self.cov_type != NONROBUST:
            return self.covariance
        with np.errstate(over="ignore", under="ignore"):
            scaled: Float64 = self.covariance * self._unit_scale[target]
            return np.asarray(np.ldexp(scaled, 2 * self.y_exponents[target]))

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as lists and numbers: what :meth:`from_dict` reads, and the rest."""
        stored = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return (
            stored
            | {name: _plain(getattr(self, name)) for name in _DERIVED}
            | {"conf_int": self.conf_int().tolist()}
        )

    @classmethod
    def from_dict(cls, known: Any) -> Inference:  # noqa: ANN401  (what a file holds)
        """Return the figures that :meth:`to_dict` wrote, perhaps by way of JSON.

        Raises
        ------
        KeyError, TypeError, ValueError
            It is something else.
        """
        if not isinstance(known, dict):
            raise TypeError(f"inference is {type(known).__name__}, not a dictionary")
        terms, params = known["terms"], known["params"]
        if not isinstance(terms, list) or not all(type(term) is str for term in terms):
            raise TypeError("its terms are not a list of texts")
        if not isinstance(params, list) or not params or not terms:
            raise TypeError("it has no coefficients")
        k, p = len(params), len(terms)
        if known["cov_type"] not in COV_TYPES:
            raise ValueError(f"its cov_type is {known['cov_type']!r}")
        groups, covariance, wald = known["n_groups"], known["covariance"], known["wald"]
        centred = known["is_centred"]
        if (groups is None) != (known["cov_type"] != CLUSTER):
            raise ValueError("groups belong to the type 'cluster'")
        return cls(
            cov_type=known["cov_type"],
            terms=tuple(terms),
            params=_array(params, (k, p), "params"),
            bse=_array(known["bse"], (k, p), "bse", least=0.0),
            nobs=_count(known["nobs"], "nobs"),
            rank=None if known["rank"] is None else _count(known["rank"], "rank"),
            has_intercept=_flag(known["has_intercept"], "has_intercept"),
            is_centred=None if centred is None else _flag(centred, "is_centred"),
            rss=_array(known["rss"], (k,), "rss", least=0.0),
            tss=_array(known["tss"], (k,), "tss", least=0.0),
            y_exponents=_exponents(known["y_exponents"], k),
            log_weight_sum=float(_array(known["log_weight_sum"], (), "log_weight_sum")),
            is_weighted=_flag(known["is_weighted"], "is_weighted"),
            n_groups=None if groups is None else _count(groups, "n_groups"),
            wald=None if wald is None else _array(wald, (k,), "wald"),
            covariance=None if covariance is None else _array(covariance, (p, p), "covariance"),
            is_partial=_flag(known["is_partial"], "is_partial"),
            is_determined=_flags(known["is_determined"], p, "is_determined"),
        )

    @property
    def _unit_scale(self) -> Float64:
        """The variance of residuals of y/2^e, (K,)."""
        return _ratio(self.rss, self._freedom)

    @property
    def _rank(self) -> float:
        """The rank; NaN if it is not known."""
        return np.nan if self.rank is None else self.rank

    @property
    def _freedom(self) -> float:
        """Degrees of freedom of the residuals; NaN if there are none."""
        return self.df_resid if self.df_resid > 0 else np.nan

    @property
    def _df(self) -> float | None:
        """Degrees of freedom of t; NaN if there are none, and then so are all P values."""
        return None if self.df_t is None else (self.df_t if self.df_t > 0 else np.nan)


_DERIVED = (
    "df_model",
    "df_resid",
    "use_t",
    "df_t",
    "scale",
    "tvalues",
    "pvalues",
    "log10_pvalues",
    "rsquared",
    "rsquared_adj",
    "fvalue",
    "f_pvalue",
    "llf",
    "aic",
    "bic",
)


def _ratio(a: Float64, b: Float64 | float) -> Float64:
    """Return a/b; inf or NaN where b is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.asarray(a) / np.asarray(b))


def _plain(value: object) -> object:
    """Return arrays and tuples as lists."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value


def _array(values: object, shape: tuple[int, ...], name: str, least: float = -np.inf) -> Float64:
    """Return numbers of a file, in which ``None`` means NaN."""
    array = np.asarray(values, dtype=object)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, not {shape}")
    # checked before astype, which would convert "1.5" and True to numbers
    if {*map(type, array.flat)} - {float, int, type(None)}:
        raise TypeError(f"{name} holds something else than numbers")
    array = array.astype(np.float64)
    if np.isinf(array).any() or (array < least).any():
        raise ValueError(f"{name} holds inf, or numbers below {least}")
    return array


def _count(value: object, name: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(f"{name} is {value!r}, not a count")
    return value


def _exponents(values: object, k: int) -> Exponents:
    most = 2048  # beyond that of any float64
    if not isinstance(values, list) or len(values) != k or {*map(type, values)} != {int}:
        raise TypeError(f"y_exponents is {values!r}, not {count(k, 'integer')}")
    if max(map(abs, values)) > most:
        raise ValueError(f"y_exponents is {values!r}, beyond those of float64")
    return np.array(values, dtype=np.int32)


def _flag(value: object, name: str) -> bool:
    if type(value) is not bool:
        raise TypeError(f"{name} is {value!r}, not true or false")
    return value


def _flags(values: object, p: int, name: str) -> Mask | None:
    if values is None:
        return None
    if not isinstance(values, list) or len(values) != p:
        raise TypeError(f"{name} is not a list of {count(p, 'flag')}")
    return np.array([_flag(value, name) for value in values], dtype=np.bool_)
