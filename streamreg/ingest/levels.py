"""The levels of one-hot columns, and the columns of X that they become."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from streamreg.errors import InputError, Parameter, Remedy
from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from streamreg.ingest.table import Table

_MAX_LEVELS = 1000


def require_few(levels: Mapping[str, set[str]], source: Table, n_rows: int) -> None:
    """Refuse a one-hot column with too many levels in the first rows of a table."""
    for column, found in levels.items():
        if len(found) > _MAX_LEVELS:
            raise InputError(
                f"column {column} of {source.path} has more than {_MAX_LEVELS:,} levels in "
                f"{count(n_rows, 'row')}; group them, or leave it out with ",
                Remedy("ignore", column),
            )


def in_order(levels: Iterable[str]) -> list[str]:
    """Return levels in alphabetical order, or in numerical order if all are numbers."""
    ordered = sorted(levels)
    with suppress(ValueError):
        ordered.sort(key=float)
    return ordered


def feature_names(source: Table, levels: Mapping[str, list[str]]) -> list[str]:
    """Return the names of the columns of X: a one-hot column has one for each level but the first.

    All levels would add up to the intercept.
    """
    features = []
    for name in source.features:
        known = levels.get(name)
        features += [name] if known is None else [f"{name}={level}" for level in known[1:]]
    if not features:
        raise InputError(
            f"{source.path} has no column left for X: each of {', '.join(source.features)} "
            "has one level only"
        )
    for name, copies in Counter(features).items():
        if copies > 1:
            raise InputError(
                f"X would have {copies} columns named {name!r}: a column of {source.path}, and "
                "a level of another; rename the column, or leave it out with ",
                Parameter("ignore"),
            )
    return features
