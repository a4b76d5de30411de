"""A fitted estimator from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.estimators.linear_regression import LinearRegression
from streamreg.model import Model

if TYPE_CHECKING:
    from streamreg.estimators.linear_estimator import Path


def load(path: Path) -> LinearRegression:
    """Return a fitted ``LinearRegression``, with default parameters, from a file of ``save``.

    Raises
    ------
    InputError
        There is no such file, or it is not a model; nothing in it is ever run. Or it refers to
        weights in a Zarr array (``coef_out``) that is absent or belongs to another fit.
    MemoryLimitError
        The system refuses memory for the weights.
    """
    estimator = LinearRegression()
    estimator._set_fitted(Model.load(path))  # noqa: SLF001  (a second constructor)
    return estimator
