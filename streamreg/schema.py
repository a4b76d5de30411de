"""What turns the columns of a table into X, y and weights; data sets and models keep it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

VERSION = 1
MOST_LEVELS = 1_000


@dataclass(frozen=True)
class Feature:
    """A column of a table, and the columns of X that it becomes.

    A number is one column. A one-hot column has a column of zeros and ones for each level but the
    first, because all levels would add up to the intercept. A list of ``width`` numbers is
    ``width`` columns.
    """

    name: str
    levels: tuple[str, ...] | None = None  # of a one-hot column; the first is the baseline
    width: int | None = None  # of a list of numbers

    @property
    def names(self) -> list[str]:
        """The names of its columns of X."""
        if self.levels is not None:
            return [f"{self.name}={level}" for level in self.levels[1:]]
        if self.width is not None:
            return [f"{self.name}[{at}]" for at in range(self.width)]
        return [self.name]

    @property
    def n_columns(self) -> int:
        """The number of its columns of X."""
        if self.levels is not None:
            return len(self.levels) - 1
        return 1 if self.width is None else self.width


@dataclass(frozen=True)
class Schema:
    """The columns of X in order, the targets and the weight, by their names in a table."""

    features: tuple[Feature, ...]
    targets: tuple[str, ...] = ()
    weight: str | None = None
    drop_missing: bool = False  # whether rows with a missing value were left out
    missing: tuple[str, ...] | None = None  # what a text file writes for them; None: the usual

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the columns of X."""
        return tuple(name for feature in self.features for name in feature.names)

    @property
    def n_columns(self) -> int:
        """D."""
        return sum(feature.n_columns for feature in self.features)

    @property
    def one_hot(self) -> tuple[str, ...]:
        """The names of the one-hot columns."""
        return tuple(each.name for each in self.features if each.levels is not None)

    def without_y(self) -> Schema:
        """Return the schema of rows to predict."""
        return replace(self, targets=(), weight=None)

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON values."""
        columns = []
        for feature in self.features:
            column: dict[str, Any] = {"name": feature.name}
            if feature.levels is not None:
                column["levels"] = list(feature.levels)
            if feature.width is not None:
                column["width"] = feature.width
            columns.append(column)
        return {
            "version": VERSION,
            "columns": columns,
            "targets": list(self.targets),
            "weight": self.weight,
            "drop_missing": self.drop_missing,
            "missing": None if self.missing is None else list(self.missing),
        }

    @classmethod
    def from_json(cls, document: object) -> Schema:
        """Return the schema that :meth:`to_json` wrote; ``ValueError`` says what is wrong."""
        known = _dictionary(document, "schema")
        if known.get("version") != VERSION or isinstance(known.get("version"), bool):
            raise ValueError(f"its schema has version {known.get('version')!r}, not {VERSION}")
        columns = known.get("columns")
        if not isinstance(columns, list) or not columns:
            raise ValueError("its schema has no list of columns")
        features = tuple(map(_feature, columns))
        names = [feature.name for feature in features]
        if len(set(names)) < len(names):
            raise ValueError("its schema names a column twice")
        weight, drop_missing = known.get("weight"), known.get("drop_missing", False)
        if not (weight is None or isinstance(weight, str)) or not isinstance(drop_missing, bool):
            raise ValueError(f"its schema has weight {weight!r}, drop_missing {drop_missing!r}")
        missing = known.get("missing")
        return cls(
            features,
            _texts(known.get("targets"), "targets"),
            weight,
            drop_missing,
            None if missing is None else _texts(missing, "missing"),
        )


def _feature(document: object) -> Feature:
    known = _dictionary(document, "column")
    name, levels, width = known.get("name"), known.get("levels"), known.get("width")
    if not isinstance(name, str):
        raise ValueError(f"a column of its schema has the name {name!r}")  # noqa: TRY004
    if levels is not None:
        levels = _texts(levels, f"levels of {name!r}")
        if not 1 <= len(levels) <= MOST_LEVELS or len(set(levels)) < len(levels):
            raise ValueError(f"column {name!r} of its schema has no distinct levels")
    if width is not None and not (type(width) is int and width >= 1 and levels is None):
        raise ValueError(f"column {name!r} of its schema has width {width!r}")
    return Feature(name, levels, width)


def _dictionary(document: object, what: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"its {what} is {type(document).__name__}, not a dictionary")  # noqa: TRY004
    return document


def _texts(values: object, what: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"its schema has {what} that are no list of texts")
    return tuple(values)
