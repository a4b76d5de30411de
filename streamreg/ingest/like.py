"""The schema that another table, a model or a data set has."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamreg import schema as schemas
from streamreg.errors import InputError, Parameter
from streamreg.model import Model
from streamreg.sources.kinds import open_group

if TYPE_CHECKING:
    from streamreg.schema import Schema


def schema_like(like: Any) -> Schema:  # noqa: ANN401
    """Return the schema of a model, of a data set, or of the file or group at a path.

    A model that was not fitted on a table, but knows the names of its columns, has a schema of
    numbers. ``InputError`` if the names are not known.
    """
    what = f"{like}" if isinstance(like, str | os.PathLike) else f"this {type(like).__name__}"
    if isinstance(like, schemas.Schema):
        return like
    found, names, targets = None, None, None
    if isinstance(like, str | os.PathLike) and Path(like).suffix in {".json", ".npz"}:
        like = Model.load(like)
    if isinstance(like, Model):
        found, names, targets = like.schema, like.feature_names, like.target_names
    elif hasattr(like, "coef_"):
        found = getattr(like, "schema_", None)
        names = getattr(like, "feature_names_in_", None)
    elif isinstance(getattr(like, "schema", None), schemas.Schema):
        found = like.schema
    else:
        group = open_group(like)
        if group is not None:
            found, names, targets = group.schema, group.feature_names, group.target_names
    if found is not None:
        return found
    if names is None:
        raise InputError(
            Parameter("like"),
            f": {what} does not know the names of its columns; fit a table, or ingest it with the "
            "present version",
        )
    return schemas.Schema(tuple(map(schemas.Feature, map(str, names))), tuple(targets or ()))
