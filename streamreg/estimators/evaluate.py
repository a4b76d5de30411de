"""Measures of how well a fitted model predicts rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.errors import InputError
from streamreg.estimators.linear_estimator import LinearEstimator

if TYPE_CHECKING:
    from streamreg.estimators.linear_estimator import Rows
    from streamreg.predict.scores import Evaluation


def evaluate(
    model: LinearEstimator, X: Rows, y: Rows = None, sample_weight: Rows = None
) -> Evaluation:
    """Return R², RMSE and the correlation of y and ŷ for each target, from one streamed pass.

        R² = 1 - Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ (yᵢ - ȳ)²
        RMSE = √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ)
        r = Σ sᵢ (yᵢ - ȳ)(ŷᵢ - p) / √(Σ sᵢ (yᵢ - ȳ)² · Σ sᵢ (ŷᵢ - p)²)     p the mean of ŷ

    s are the weights, 1 without them. Memory limit, threads and policies are those of the model.

    Parameters
    ----------
    model
        A fitted model.
    X, y, sample_weight
        As for ``LinearRegression.fit``.

    Returns
    -------
    Evaluation
        ``r2``, ``rmse`` and ``pearson_r``, each (K,), ``n_rows`` and ``rows_omitted``.

    Raises
    ------
    InputError, MemoryLimitError, DataCorruptionError
        As by ``LinearRegression.score``.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import LinearRegression, evaluate
    >>> X = np.arange(12.0).reshape(6, 2) ** 2
    >>> y = X @ [[1.0, 2.0], [0.0, 1.0]] + [[0.0], [1.0]] * 3
    >>> evaluate(LinearRegression().fit(X, y), X, y).r2.round(3)
    array([1., 1.])
    """
    if not isinstance(model, LinearEstimator):
        raise InputError(
            f"evaluate takes a model of streamreg, not {type(model).__name__}: fit or load one"
        )
    return model._evaluate(X, y, sample_weight)  # noqa: SLF001  (a function for each model)
