"""The plan of a fit, of rows or of statistics."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError
from streamreg.fitting.plan import plan_fit
from streamreg.statistics.fit import plan_gathered
from streamreg.statistics.statistics import Statistics

if TYPE_CHECKING:
    from streamreg.planning.plan import Plan


def plan(
    X: Any,  # noqa: ANN401  (whatever can be read as rows)
    y: Any = None,  # noqa: ANN401
    sample_weight: Any = None,  # noqa: ANN401
    **parameters: Any,  # noqa: ANN401
) -> Plan:
    """Plan a fit from metadata alone: what each solver would need, and which would run.

    Parameters
    ----------
    X, y, sample_weight
        As for ``LinearRegression.fit``; or :class:`Statistics` alone, whose fit reads no rows.
    **parameters
        Of ``LinearRegression``, such as ``memory_limit`` and ``solver``; with ``cv``, of
        ``LinearRegressionCV``.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import plan
    >>> X, y = np.zeros((1000, 10)), np.zeros(1000)
    >>> plan(X, y, memory_limit="1 GiB").chosen
    'closed_form'
    """
    # the penalties to compare are passed as l2
    known = {field.name for field in fields(FitConfig)} - {"l2s"} | {"progress"}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise InputError(
            f"there is no parameter {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    # a plan shows no progress, but accepts all parameters of an estimator
    parameters.pop("progress", None)
    config = FitConfig.parse(**parameters)
    if isinstance(X, Statistics):
        X.require_alone(y, sample_weight)
        return plan_gathered(X.about, config)
    return plan_fit(config.open_dataset(X, y, sample_weight), config)
