"""From what a user passes as X, y and weights to a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamreg.errors import InputError
from streamreg.sources.coerce import as_streamable
from streamreg.sources.dataset import Dataset
from streamreg.sources.kinds import open_source
from streamreg.sources.zarr.metadata import open_child, open_group

if TYPE_CHECKING:
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import NanPolicy


def open_dataset(
    X: object,
    y: object = None,
    sample_weight: object = None,
    *,
    missing_chunks: str = "error",
    nan_policy: NanPolicy = "raise",
    needs_y: bool = True,
) -> Dataset:
    """Return the data set that ``X``, ``y`` and ``sample_weight`` describe; only metadata are read.

    ``X`` alone may be the path of a Zarr group, or a ``zarr.Group``, that holds ``X``, ``y`` and
    perhaps ``sample_weight``.

    Raises
    ------
    InputError
        An array is not real numbers of fitting shape, or y is missing.
    DataCorruptionError
        The metadata of a Zarr array cannot be understood.
    """
    feature_names = target_names = None
    X, X_rounded = as_streamable(X, "X")
    group, label = open_group(X)
    if group is not None and y is None:
        feature_names = _names(group.attrs.get("feature_names"))
        target_names = _names(group.attrs.get("target_names"))
        X = open_child(group, "X", label)
        y = open_child(group, "y", label) if needs_y else None
        if needs_y and sample_weight is None:
            sample_weight = open_child(group, "sample_weight", label, optional=True)
    if needs_y and y is None:
        raise InputError(
            "fit requires y to be passed, but the target y is None: y should be a 1d array, "
            "or X the path of a Zarr group that holds X and y"
        )

    y, y_rounded = as_streamable(y, "y")
    sample_weight, _ = as_streamable(sample_weight, "sample_weight")

    def source(data: object, name: str) -> RowSource:
        return open_source(data, name, missing_chunks=missing_chunks)

    return Dataset(
        X=source(X, "X"),
        y=None if y is None else source(y, "y"),
        weight=None if sample_weight is None else source(sample_weight, "sample_weight"),
        feature_names=feature_names,
        target_names=target_names if needs_y else None,
        nan_policy=nan_policy,
        rounded=frozenset(name for name, is_so in (("X", X_rounded), ("y", y_rounded)) if is_so),
    )


def _names(value: Any) -> tuple[str, ...] | None:  # noqa: ANN401  (an attribute)
    is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else None
