"""What turns the columns of a table into X, y and weights; data sets and models keep it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

VERSION = 1
# with more levels of a one-hot column rows are sparse; with more than the second it is refused
MOST_DENSE_LEVELS, MOST_LEVELS = 1_000, 100_000
DEFAULT_BITS, MOST_BITS = 20, 28
# their numbers are integers of 32 bits
MOST_COLUMNS = 2**31 - 1
ANALYZERS = ("word", "char_wb")
MOST_GRAMS = 20


@dataclass(frozen=True)
class Hashing:
    """How a column of a table becomes 2^bits columns of X, of which each row has few.

    Without an analyzer a value is one feature, "column=value", and all such columns with the same
    ``bits`` share their columns of X, as in scikit-learn's ``FeatureHasher(2**bits)`` of rows as
    dictionaries. With one, a text is the counts of its n-grams of words, or of characters, in
    columns of its own, as in ``HashingVectorizer(n_features=2**bits, norm=None)``.
    """

    bits: int = DEFAULT_BITS
    analyzer: str | None = None  # of ANALYZERS
    ngrams: tuple[int, int] = (1, 1)  # the shortest and the longest

    @property
    def is_text(self) -> bool:
        """Whether a value is a text of several features."""
        return self.analyzer is not None


@dataclass(frozen=True)
class Feature:
    """A column of a table, and the columns of X that it becomes.

    A number is one column. A one-hot column has a column of zeros and ones for each level but the
    first, because all levels would add up to the intercept. A list of ``width`` numbers is
    ``width`` columns. A hashed column has columns without names.
    """

    name: str
    levels: tuple[str, ...] | None = None  # of a one-hot column; the first is the baseline
    width: int | None = None  # of a list of numbers
    hashing: Hashing | None = None

    @property
    def names(self) -> list[str]:
        """The names of its columns of X, if they have any."""
        if self.hashing is not None:
            return []
        if self.levels is not None:
            return [f"{self.name}={level}" for level in self.levels[1:]]
        if self.width is not None:
            return [f"{self.name}[{at}]" for at in range(self.width)]
        return [self.name]

    @property
    def n_columns(self) -> int:
        """The number of its columns of X."""
        if self.hashing is not None:
            return 1 << self.hashing.bits
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
    first_column: int | None = None  # of libsvm text, in place of a table: 0 or 1

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """The names of the columns of X; ``None`` if some have none."""
        if self.first_column is not None or self.hashed:
            return None
        return tuple(name for feature in self.features for name in feature.names)

    @property
    def n_columns(self) -> int:
        """D."""
        return self._places[1]

    @property
    def places(self) -> list[int]:
        """The first column of X of each feature; hashed values with equal bits have the same."""
        return self._places[0]

    @property
    def _places(self) -> tuple[list[int], int]:
        places, shared, end = [], dict[int, int](), 0
        for feature in self.features:
            hashing, first = feature.hashing, end
            if hashing is not None and not hashing.is_text:
                first = shared.setdefault(hashing.bits, end)
            places.append(first)
            end = max(end, first + feature.n_columns)
        return places, end

    @property
    def hashed(self) -> dict[str, Hashing]:
        """How each hashed column is hashed, by name."""
        return {each.name: each.hashing for each in self.features if each.hashing is not None}

    @property
    def is_sparse(self) -> bool:
        """Whether rows of X are sparse."""
        return (
            self.first_column is not None
            or bool(self.hashed)
            or any(len(each.levels or ()) > MOST_DENSE_LEVELS for each in self.features)
        )

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
            if feature.hashing is not None:
                column["hashing"] = {"bits": feature.hashing.bits}
                if feature.hashing.analyzer is not None:
                    column["hashing"]["analyzer"] = feature.hashing.analyzer
                    column["hashing"]["ngrams"] = list(feature.hashing.ngrams)
            columns.append(column)
        of_libsvm = {} if self.first_column is None else {"first_column": self.first_column}
        return {
            "version": VERSION,
            **of_libsvm,
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
        missing, first_column = known.get("missing"), known.get("first_column")
        if first_column is not None and (type(first_column) is not int or first_column < 0):
            raise ValueError(f"its schema has first_column {first_column!r}")
        return cls(
            features,
            _texts(known.get("targets"), "targets"),
            weight,
            drop_missing,
            None if missing is None else _texts(missing, "missing"),
            first_column,
        )


def _feature(document: object) -> Feature:
    known = _dictionary(document, "column")
    name, levels, width = known.get("name"), known.get("levels"), known.get("width")
    if not isinstance(name, str):
        raise ValueError(f"a column of its schema has the name {name!r}")  # noqa: TRY004
    if levels is not None:
        levels = _texts(levels, f"levels of {name!r}")
        if not levels or len(set(levels)) < len(levels):
            raise ValueError(f"column {name!r} of its schema has no distinct levels")
    if width is not None and not (type(width) is int and width >= 1 and levels is None):
        raise ValueError(f"column {name!r} of its schema has width {width!r}")
    return Feature(name, levels, width, _hashing(name, known.get("hashing")))


def _hashing(name: str, document: object) -> Hashing | None:
    if document is None:
        return None
    known = _dictionary(document, f"hashing of {name!r}")
    bits, analyzer, ngrams = known.get("bits"), known.get("analyzer"), known.get("ngrams", [1, 1])
    if (
        not (type(bits) is int and 1 <= bits <= MOST_BITS)
        or not (analyzer is None or analyzer in ANALYZERS)
        or not (isinstance(ngrams, list) and [type(each) for each in ngrams] == [int, int])
        or not 1 <= ngrams[0] <= ngrams[1] <= MOST_GRAMS
    ):
        raise ValueError(f"column {name!r} of its schema has hashing {known!r}")
    return Hashing(bits, analyzer, (ngrams[0], ngrams[1]))


def _dictionary(document: object, what: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"its {what} is {type(document).__name__}, not a dictionary")  # noqa: TRY004
    return document


def _texts(values: object, what: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"its schema has {what} that are no list of texts")
    return tuple(values)
