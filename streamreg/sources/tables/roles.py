"""The roles of a table's columns: features, targets, weight, or left out."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from streamreg.errors import InputError, Message, Parameter, Part, Remedy, Verbatim
from streamreg.schema import DEFAULT_BITS, MOST_BITS, Hashing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_NAMED = 20
IGNORE_COLUMN = Remedy("ignore", Verbatim("COLUMN"))
# names that programs give to a column which only counts rows
_COUNTER_NAME = re.compile(
    r"|Unnamed: \d+(\.\d+)?|index|level_\d+|row(_?(nr|id|names?|num(ber)?))?|\.\.\.1|_?id",
    re.IGNORECASE,
)
# in fewer rows, whole numbers may count them by chance
_LEAST_ROWS = 20


@dataclass(frozen=True)
class HashRequest:
    """The columns to hash, by value and as texts, each as "NAME" or "NAME:BITS"."""

    values: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    analyzer: str = "word"
    ngrams: tuple[int, int] = (1, 1)
    # how each column is hashed, if the names of the table are known
    columns: dict[str, Hashing] = field(default_factory=dict)

    def resolved(self, names: Sequence[str]) -> HashRequest:
        """Return the request with the columns of a table, whose names may have colons."""
        columns: dict[str, Hashing] = {}
        for parameter, wanted in (("hash", self.values), ("text", self.texts)):
            for each in wanted:
                name, bits = _with_bits(parameter, each, names)
                if name in columns:
                    raise InputError(
                        Parameter(parameter), f" names column {name!r}, which is hashed already"
                    )
                columns[name] = (
                    Hashing(bits)
                    if parameter == "hash"
                    else Hashing(bits, self.analyzer, self.ngrams)
                )
        return replace(self, columns=columns)


def _with_bits(parameter: str, text: str, names: Sequence[str]) -> tuple[str, int]:
    """Return the name and the bits of "NAME:BITS"."""
    name, colon, digits = text.rpartition(":")
    if text in names or not colon or not digits.isdecimal():
        return text, DEFAULT_BITS
    bits = int(digits) if len(digits) < 4 else 0  # noqa: PLR2004
    if not 1 <= bits <= MOST_BITS:
        raise InputError(
            Parameter(parameter, text),
            f" must have 1 to {MOST_BITS} bits: with B bits a column becomes 2^B columns of X",
        )
    return name, bits


@dataclass(frozen=True)
class Request:
    """What a user says of the columns of a table, by name."""

    target: tuple[str, ...] = ()
    one_hot: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    weight: str | None = None
    hashed: HashRequest = HashRequest()

    @property
    def named(self) -> set[str]:
        """The columns that are used because the user names them."""
        weights = () if self.weight is None else (self.weight,)
        return {*self.target, *self.one_hot, *self.keep, *weights, *self.hashed.columns}


@dataclass(frozen=True)
class Roles:
    """The features in order, and the columns that are left out with the reason."""

    features: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)

    def said(self, path: str) -> Message:
        """Return a sentence that names the columns which are left out."""
        parts: list[Part] = [f"{path}: left out "]
        for number, (name, why) in enumerate(self.left_out.items()):
            parts.append(f"{', ' if number else ''}{name!r}, {why}")
        return Message(*parts, ". To use such a column, pass ", Remedy("keep", Verbatim("COLUMN")))


def assign(
    path: str,
    names: Sequence[str],
    request: Request,
    own_columns: Mapping[str, str],
    delimiter: str | None = None,
) -> Roles:
    """Assign roles to the columns of a table.

    Raises ``InputError`` for unknown, repeated and ambiguous names. ``delimiter`` is one with which
    a column that is unknown would exist.
    """
    if not request.target:
        raise InputError(
            Parameter("target"), f" names no column of {path}; name the column to predict"
        )
    weights = () if request.weight is None else (request.weight,)
    hashed = request.hashed.columns
    roles = Counter([*request.target, *request.one_hot, *request.ignore, *weights, *hashed])
    for name, uses in (roles | Counter(request.keep)).items():
        if name not in names:
            raise unknown_column(path, names, name, delimiter)
        for parameter in ("target", "one_hot", "ignore", "keep"):
            if getattr(request, parameter).count(name) > 1:
                raise InputError(Parameter(parameter), f" names column {name!r} twice")
        if uses > 1 or (name in request.keep and name in request.ignore):
            listed = [
                part
                for role in ("target", "one_hot", "hash", "text", "ignore", "weight")
                for part in (", ", Parameter(role))
            ][1:]
            raise InputError(f"column {name!r} can be only one of ", *listed)
    left_out = {name: why for name, why in own_columns.items() if name not in request.named}
    left_out = {name: why for name, why in left_out.items() if name not in request.ignore}
    apart = {*request.target, *request.ignore, *weights, *left_out}
    features = tuple(name for name in names if name not in apart)
    if not features:
        raise no_feature(path, names, left_out)
    return Roles(features, left_out)


def unknown_column(
    path: str, names: Sequence[str], name: str, delimiter: str | None = None
) -> InputError:
    """Return the error that a table lacks a column, with those that have a similar name."""
    close = get_close_matches(name, names) or list(names)[:MAX_NAMED]
    cure: list[Part] = []
    if delimiter is not None:
        cure = [
            ". Its header separates names by another mark: pass ",
            Remedy("delimiter", "tab" if delimiter == "\t" else delimiter),
        ]
    elif len(names) == 1:
        cure = ["; are values separated by commas?"]
    return InputError(
        f"{path} has no column {name!r}; closest: {', '.join(map(repr, close))}", *cure
    )


def no_feature(path: str, names: Sequence[str], left_out: Mapping[str, str]) -> InputError:
    """Return the error that no column is left for X."""
    why = "is a target, the weight or ignored"
    if left_out:
        why = f"is a target, the weight, ignored, or left out ({', '.join(left_out)})"
    return InputError(f"{path} has no column left for X: each of its {len(names):,} {why}")


def may_count_rows(name: str, n_rows: int) -> bool:
    """Whether a column of this name is left out if it does no more than count rows."""
    least = 2 if _COUNTER_NAME.fullmatch(name) else _LEAST_ROWS
    return n_rows >= least


def require_feature_names(path: str, features: Sequence[str]) -> None:
    """Refuse two columns of X with one name, and none at all."""
    for name, copies in Counter(features).items():
        if copies > 1:
            raise InputError(
                f"X would have {copies} columns named {name!r}: a column of {path}, and "
                "a level of another; rename the column, or leave it out with ",
                Parameter("ignore"),
            )


def infinite_values(
    path: str, found: Mapping[str, tuple[str, int]], first_row: int, meaning: str
) -> InputError:
    """Return the error that columns hold infinite values; each with its text and row."""
    listed = ", ".join(
        f"{name} ({value[:40]!r} in row {row + first_row:,})"
        for name, (value, row) in found.items()
    )
    return InputError(
        f"{path} has values that are infinite, or beyond float64: {listed}; {meaning}. Correct "
        "them, write NaN where the value is unknown, or leave such columns out with ",
        IGNORE_COLUMN,
    )
