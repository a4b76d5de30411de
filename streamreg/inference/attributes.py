"""What an estimator shows of standard errors, by statsmodels' names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg import validate
from streamreg.formatting import target_names
from streamreg.inference.summary import Summary, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd  # type: ignore[import-untyped]

    from streamreg.blocks import Float64
    from streamreg.inference.result import Inference

# broom's names, in its order
_TIDY = ("estimate", "std.error", "statistic", "p.value", "conf.low", "conf.high")
_INTERCEPT = "(Intercept)"
_LEVEL = 0.05


class _Figure:
    """A fitted attribute that exists after a fit with ``cov_type`` only."""

    def __init__(self, get: Callable[[Inference], Any]) -> None:
        self._get = get

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, model: InferenceAttributes | None, _owner: type) -> Any:  # noqa: ANN401
        if model is None:
            return self
        inference = model._known_inference(self._name)  # noqa: SLF001  (its own class)
        return model._shaped(self._get(inference))  # noqa: SLF001


class InferenceAttributes:
    """Standard errors and what follows from them.

    Arrays are (P,), the intercept first, and numbers are floats; of y (N, K) they are (K, P) and
    (K,). Without ``cov_type`` there are none of these attributes.
    """

    _inference: Inference | None
    _has_one_target: bool
    _target_names: tuple[str, ...] | None
    solver_: str

    bse_ = _Figure(lambda i: i.bse)
    tvalues_ = _Figure(lambda i: i.tvalues)
    pvalues_ = _Figure(lambda i: i.pvalues)
    rsquared_ = _Figure(lambda i: i.rsquared)
    rsquared_adj_ = _Figure(lambda i: i.rsquared_adj)
    fvalue_ = _Figure(lambda i: i.fvalue)
    f_pvalue_ = _Figure(lambda i: i.f_pvalue)
    llf_ = _Figure(lambda i: i.llf)
    aic_ = _Figure(lambda i: i.aic)
    bic_ = _Figure(lambda i: i.bic)
    scale_ = _Figure(lambda i: i.scale)
    nobs_ = _Figure(lambda i: i.nobs)
    df_resid_ = _Figure(lambda i: i.df_resid)
    df_model_ = _Figure(lambda i: i.df_model)

    def conf_int(self, alpha: float = _LEVEL) -> Float64:
        """Return the bounds of the 1 - alpha confidence intervals, (P, 2), or (K, P, 2)."""
        intervals: Float64 = self._shaped(
            self._known_inference("conf_int").conf_int(_share("alpha", alpha))
        )
        return intervals

    def cov_params(self) -> Float64:
        """Return the covariance of the coefficients, (P, P), or (K, P, P).

        It is kept for at most 1,000 coefficients; of more, ``AttributeError``.
        """
        inference = self._known_inference("cov_params")
        each = [inference.cov_params(k) for k in range(inference.n_targets)]
        if any(covariance is None for covariance in each):
            if inference.is_partial:
                raise AttributeError(
                    "the covariance is not kept with inference_for: it takes a fit without it, by "
                    'solver="qr" or "closed_form"'
                )
            p = len(inference.terms)
            raise AttributeError(
                f"the covariance of {p:,} coefficients, {p:,}² × 8 bytes, is not kept"  # noqa: RUF001
            )
        whole: Float64 = self._shaped(np.stack(each))  # type: ignore[arg-type]
        return whole

    def summary(self, alpha: float = _LEVEL) -> Summary:
        """Return the table of coefficients with errors, t, P and intervals.

        Print it; a notebook shows it as HTML. ``to_dict()`` gives its numbers.
        """
        inference = self._known_inference("summary")
        return Summary(inference, self.solver_, self._target_names, _share("alpha", alpha))

    def tidy(self, alpha: float = _LEVEL) -> pd.DataFrame:
        """Return the coefficients as a frame of pandas, with the names of R's broom.

        ``term``, ``estimate``, ``std.error``, ``statistic``, ``p.value``, ``conf.low`` and
        ``conf.high``; of several targets ``response`` too. ``ImportError`` without pandas.
        """
        inference = self._known_inference("tidy")
        names = target_names(self._target_names, inference.n_targets)
        frames = []
        for k, name in enumerate(names):
            # without log₁₀ p
            columns = np.delete(rows_of(inference, k, _share("alpha", alpha)), 4, axis=1)
            frame = _frame(columns, _TIDY)
            frame.insert(0, "term", _named(inference, _INTERCEPT))
            if not self._has_one_target:
                frame.insert(0, "response", name)
            frames.append(frame)
        return _pandas().concat(frames, ignore_index=True)

    # what the package maketables looks for
    @property
    def __maketables_coef_table__(self) -> pd.DataFrame:
        inference = self._known_inference("__maketables_coef_table__")
        if not self._has_one_target:
            raise AttributeError("a table of maketables has one target")
        rows, wide = rows_of(inference, 0, _LEVEL), inference.conf_int(0.1)[0]
        columns = np.column_stack([rows[:, [0, 1, 2, 3, 5, 6]], wide])
        frame = _frame(columns, ("b", "se", "t", "p", "ci95l", "ci95u", "ci90l", "ci90u"))
        frame.index = _pandas().Index(_named(inference, "Intercept"), name="Coefficient")
        return frame

    def __maketables_stat__(self, key: str) -> Any:  # noqa: ANN401
        i = self._known_inference("__maketables_stat__")
        known: dict[str, Any] = {
            "N": i.nobs,
            "r2": float(i.rsquared[0]),
            "adj_r2": float(i.rsquared_adj[0]),
            "fvalue": float(i.fvalue[0]),
            "f_pvalue": float(i.f_pvalue[0]),
            "ll": float(i.llf[0]),
            "aic": float(i.aic[0]),
            "bic": float(i.bic[0]),
            "df_model": i.df_model,
            "df_resid": i.df_resid,
            "rmse": float(i.deviation[0]),
            "se_type": i.cov_type,
        }
        return known.get(key)

    @property
    def __maketables_depvar__(self) -> str:
        return self._target_names[0] if self._target_names else "y"

    @property
    def __maketables_vcov_info__(self) -> dict[str, Any]:
        return {"vcov_type": self._known_inference("__maketables_vcov_info__").cov_type}

    def _known_inference(self, name: str) -> Inference:
        inference = getattr(self, "_inference", None)
        if inference is None:
            raise AttributeError(
                f"{type(self).__name__} has no {name!r}: it exists after a fit with a cov_type; "
                'pass cov_type="nonrobust", or "HC1" for errors of unequal variance'
            )
        known: Inference = inference
        return known

    def _shaped(self, values: Any) -> Any:  # noqa: ANN401
        """Return figures of K targets without their first axis, if y was (N,)."""
        if np.ndim(values) == 0:
            return values
        if not self._has_one_target:
            return values
        return float(values[0]) if np.ndim(values) == 1 else values[0]


def _named(inference: Inference, intercept: str) -> list[str]:
    """Return the names of the terms, with that of the intercept."""
    names = list(inference.terms)
    return [intercept, *names[1:]] if inference.has_intercept else names


def _share(name: str, value: float) -> float:
    return validate.number(name, value, lambda share: 0 < share < 1, "a number between 0 and 1")


def _pandas() -> Any:  # noqa: ANN401
    try:
        import pandas as pd  # noqa: PLC0415  (not a dependency)
    except ImportError as error:
        raise ImportError(
            "tidy() returns a frame of pandas, which is not installed: pip install pandas; or use "
            "summary().to_dict()"
        ) from error
    return pd


def _frame(columns: Float64, names: tuple[str, ...]) -> pd.DataFrame:
    frame: pd.DataFrame = _pandas().DataFrame(columns, columns=list(names))
    return frame
