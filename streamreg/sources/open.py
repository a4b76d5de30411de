"""Turn what a user passes as X, y, weights and groups into a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.errors import InputError, Remedy
from streamreg.sources.coerce import as_streamable
from streamreg.sources.dataset import Dataset
from streamreg.sources.group_labels import group_labels
from streamreg.sources.kinds import group_of, open_group, open_source

if TYPE_CHECKING:
    from streamreg.schema import Schema
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import NanPolicy


def open_dataset(
    X: object,
    y: object = None,
    sample_weight: object = None,
    groups: object = None,
    *,
    missing_chunks: str = "error",
    decode_cf: bool = True,
    nan_policy: NanPolicy = "raise",
    needs_y: bool = True,
) -> Dataset:
    """Return the data set of ``X``, ``y``, ``sample_weight`` and ``groups``; reads metadata only.

    ``groups`` in memory may be texts. ``X`` alone may be a Zarr group, or the path of one, with
    ``X``, ``y`` and perhaps ``sample_weight``. Raises :class:`InputError` and
    :class:`DataCorruptionError`, as :class:`Kind` does.
    """

    def source(data: object, name: str) -> RowSource:
        data, is_rounded = as_streamable(data, name)
        opened = open_source(data, name, missing_chunks=missing_chunks, decode_cf=decode_cf)
        opened.is_rounded |= is_rounded
        return opened

    feature_names = target_names = schema = None
    group = open_group(X) if y is None else None
    if group is not None:
        feature_names, schema = group.feature_names, group.schema
        if group.omits_missing:
            nan_policy = "omit"
        X = group.member("X")
        if needs_y:
            target_names = group.target_names
            y = group.member("y")
            if sample_weight is None:
                sample_weight = group.member("sample_weight", optional=True)
    rows = source(X, "X")
    if group is None:
        feature_names, schema = _names_of(X, "X", rows)
    feature_names = feature_names or rows.feature_names
    if needs_y and y is None:
        raise InputError(
            "fit requires y to be passed, but the target y is None: pass ",
            Remedy("y"),
            ", or the path of a Zarr group that holds X and y",
        )

    targets = None if y is None else source(y, "y")
    if group is None and targets is not None:
        target_names, _ = _names_of(y, "y", targets)
        target_names = target_names or targets.target_names
    return Dataset(
        X=rows,
        y=targets,
        weight=None if sample_weight is None else source(sample_weight, "sample_weight"),
        feature_names=feature_names,
        target_names=target_names,
        schema=schema,
        nan_policy=nan_policy,
        groups=None
        if groups is None
        else group_labels(groups, "groups") or source(groups, "groups"),
    )


def _names_of(
    data: object, name: str, rows: RowSource
) -> tuple[tuple[str, ...] | None, Schema | None]:
    """Return the names of the columns of an array, and its schema, if its group tells them."""
    found = group_of(data)
    if found is None or found[1] != name:
        return None, None
    group = found[0]
    names = group.feature_names if name == "X" else group.target_names
    n_columns = rows.shape[1] if len(rows.shape) > 1 else 1
    if names is None or len(names) != n_columns:
        return None, None
    return names, group.schema if name == "X" else None
