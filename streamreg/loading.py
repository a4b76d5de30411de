"""Fitted estimators from the files that ``save`` writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.estimator import LinearRegression
from streamreg.model import Model

if TYPE_CHECKING:
    import os


def load(path: str | os.PathLike[str]) -> LinearRegression:
    """Return a fitted ``LinearRegression``, with default parameters, from a file of ``save``.

    Raises
    ------
    InputError
        There is no such file, or it is not a model; nothing in it is ever run.
    """
    estimator = LinearRegression()
    estimator._keep(Model.load(path))  # noqa: SLF001  (a second constructor)
    return estimator
