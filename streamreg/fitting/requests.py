"""What the parameters of a fit ask of its solver beside the weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from streamreg.engines.fold_scan import SPLIT_NBYTES
from streamreg.errors import InputError, Parameter, Remedy
from streamreg.formatting import count, given
from streamreg.inference.groups import Groups
from streamreg.inference.request import InferenceRequest
from streamreg.inference.result import CLUSTER, NONROBUST
from streamreg.solvers.selection import SelectionRequest
from streamreg.sources.folds import FOLD_DTYPE

if TYPE_CHECKING:
    from streamreg.config.fit_config import FitConfig
    from streamreg.engines.fold_scan import FoldedRows
    from streamreg.fitting.result import Described
    from streamreg.sources.dataset import Dataset


def inference_request(
    config: FitConfig, dataset: Dataset, groups: Groups | None = None
) -> InferenceRequest | None:
    """Return what is asked for beside the weights; ``groups`` are those of ``"cluster"``."""
    if config.cov_type is None:
        return None
    if config.cov_type != NONROBUST and dataset.n_targets > 1:
        raise InputError(
            Parameter("cov_type", config.cov_type),
            f" is of one target, and y has {dataset.n_targets:,}: fit each alone, or pass ",
            Remedy("cov_type", NONROBUST),
        )
    if config.cov_type == CLUSTER:
        groups = groups or Groups()
    columns = None
    if config.inference_for is not None:
        columns = tuple(_number_of(each, dataset) for each in config.inference_for)
    return InferenceRequest(config.cov_type, groups, columns)


def _number_of(column: str | int, dataset: Dataset) -> int:
    """Return the number of a column that is named, or numbered from 0."""
    names = dataset.feature_names or ()
    number = column if isinstance(column, int) else -1
    if isinstance(column, str):
        # a command line has texts only
        is_number = column.isascii() and column.isdigit() and column not in names
        number = names.index(column) if column in names else int(column) if is_number else -1
    if not 0 <= number < dataset.n_features:
        raise InputError(
            Parameter("inference_for"),
            f" names {column!r}, which is no column of {dataset.X.name}",
        )
    return number


def selection_request(config: FitConfig, rows: FoldedRows | None = None) -> SelectionRequest:
    """Return which penalties are compared, and how; without rows, by GCV."""
    request = SelectionRequest(
        config.l2s,
        n_folds=1,
        per_target=config.l2_per_target,
        one_standard_error=config.one_standard_error,
    )
    if rows is None:
        return request
    is_split = not isinstance(config.cv, str | int)
    return replace(
        request,
        n_folds=rows.n_folds,
        folds_alternate=rows.alternate,
        folds_nbytes=FOLD_DTYPE.itemsize * rows.dataset.n_rows if is_split else 0,
        making_nbytes=SPLIT_NBYTES * rows.dataset.n_rows if is_split else 0,
    )


def given_penalties(config: FitConfig, rows: Described | None = None) -> SelectionRequest:
    """Return the penalty of each target; refuse another number than that of ``rows``."""
    values = np.array(config.l2_of_targets)
    if rows is not None and (rows.has_one_target or len(values) != rows.n_targets):
        one = "is (N,)" if rows.has_one_target else f"has {count(rows.n_targets, 'target')}"
        raise InputError(
            given("l2", values),
            f" has {count(len(values), 'penalty')}, and y {one}: pass one number",
            "" if rows.has_one_target else ", or one for each target",
        )
    return SelectionRequest((), n_folds=1, per_target=True, given=values)
