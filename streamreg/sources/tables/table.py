"""A table that was opened: its columns, and the schema that makes X, y and weights of them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeGuard

from streamreg.errors import InputError, Message, Remedy, Verbatim, warn
from streamreg.formatting import agree, count
from streamreg.schema import MOST_COLUMNS, Feature, Schema
from streamreg.sources.tables import roles as role
from streamreg.sources.tables.arrow_store import ArrowStore
from streamreg.sources.tables.files import find_files
from streamreg.sources.tables.frame_store import FrameStore, is_frame
from streamreg.sources.tables.parquet_store import ParquetStore
from streamreg.sources.tables.survey import Survey, counting_columns, survey, width_of
from streamreg.sources.tables.text_store import TextFiles
from streamreg.sources.tables.values import describe_type, has_levels, is_number, is_vector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from streamreg.sources.tables.roles import Request, Roles
    from streamreg.sources.tables.store import Columns, Store
    from streamreg.sources.tables.text_format import TextFormat


def is_path(data: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a table is given by its path."""
    return isinstance(data, str | os.PathLike)


UnknownLevels = Literal["error", "zeros"]
AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of a table, as the schema reads them: stands where a data set stands.

    Attributes
    ----------
    schema
        The columns of X in order, their levels, the targets and the weight.
    left_out
        Columns that are no features, such as the index of a frame, with the reason.
    unknown_levels
        ``"error"``, or ``"zeros"``: what a level that the schema does not know becomes.
    """

    store: Store
    schema: Schema
    left_out: dict[str, str] = field(default_factory=dict)
    unknown_levels: UnknownLevels = "error"
    found: Survey | None = None  # if the rows were read once

    @property
    def name(self) -> str:
        """The path of the table."""
        return self.store.name

    @property
    def n_rows(self) -> int:
        """N."""
        return self.store.n_rows

    def __repr__(self) -> str:
        targets = ", ".join(self.schema.targets) or "none"
        return (
            f"Table({self.name!r}: {count(self.n_rows, 'row')}, "
            f"{count(self.schema.n_columns, 'feature')}, target {targets})"
        )


@dataclass(frozen=True)
class _Opening:
    """How a table is opened, besides its columns."""

    text_format: TextFormat
    folder: Path | None  # for temporary files
    on_rows: Callable[[int], None]


def open_new(
    data: object,
    request: Request,
    text_format: TextFormat,
    *,
    drop_missing: bool = False,
    surveys: bool = False,
    folder: Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Table:
    """Open a table whose schema is made from what the user says of it, and from its rows.

    Parquet is read once if it has one-hot columns; with ``surveys``, all that is used is read, and
    values that no fit can use are an ``InputError``. A text file is parsed once.
    """
    opening = _Opening(text_format, folder, on_rows)
    columns = _open_columns(data, text_format)
    names = columns.names
    request = replace(request, hashed=request.hashed.resolved(names))
    request = _with_auto(columns, request)
    delimiters = map(columns.delimiter_for, [*request.named, *request.ignore])
    delimiter = next((each for each in delimiters if each is not None), None)
    roles = role.assign(columns.name, names, request, columns.own_columns, delimiter)
    store = _stored(columns, roles, request, opening)
    roles = _without_counters(store, roles, request)
    if "" in roles.features and "" not in request.keep:
        raise InputError(
            f"column {names.index('') + 1} of {columns.name} has no name; name it, use it with ",
            Remedy("keep", ""),
            ", or leave it out with ",
            Remedy("ignore", ""),
        )
    _require_types(store, roles, request)
    if roles.left_out:
        warn(roles.said(columns.name))
    return _surveyed(store, roles, request, opening, drop_missing=drop_missing, surveys=surveys)


def open_like(
    data: object,
    schema: Schema,
    text_format: TextFormat,
    *,
    target: Sequence[str] = (),
    needs_y: bool = True,
    unknown_levels: UnknownLevels = "error",
    folder: Path | None = None,
    on_rows: Callable[[int], None] = lambda _: None,
) -> Table:
    """Open a table by a schema: its columns, their order and levels are taken from there.

    Without ``needs_y``, a table whose targets are absent, or no numbers, is one to predict.
    """
    columns = _open_columns(data, text_format, missing=schema.missing)
    names = columns.names
    if target:
        schema = replace(schema, targets=tuple(target))
    if not needs_y and not all(each in names for each in schema.targets):
        schema = schema.without_y()
    if schema.weight is not None and schema.weight not in names:
        schema = replace(schema, weight=None)
    wanted = [*(each.name for each in schema.features), *schema.targets, *_weights(schema)]
    absent = [each for each in wanted if each not in names]
    if absent:
        raise _absent(columns, absent)
    opening = _Opening(text_format, folder, on_rows)
    try:
        store = _by_schema(columns, schema, opening)
    except InputError:
        if needs_y or not schema.targets:
            raise
        # if a feature is wrong, its error is raised again
        schema = schema.without_y()
        store = _by_schema(columns, schema, opening)
    if store.n_rows == 0:
        raise InputError(f"{columns.name} has no rows")
    return Table(store, schema, {}, unknown_levels)


def _by_schema(columns: Columns, schema: Schema, opening: _Opening) -> Store:
    """Return the columns that a schema names; an ``InputError`` if they have other types."""
    request = role.Request(
        one_hot=schema.one_hot,
        target=schema.targets,
        weight=schema.weight,
        hashed=role.HashRequest(columns=schema.hashed),
    )
    roles = role.Roles(tuple(each.name for each in schema.features))
    store = _stored(columns, roles, request, opening)
    _require_types(store, roles, request)
    _require_kinds(store, schema)
    return store


def _open_columns(
    data: object, text_format: TextFormat, *, missing: tuple[str, ...] | None = None
) -> Columns:
    """Open the columns of a table; ``missing`` are a schema's marks, if ``text_format`` has none.

    A format is an ``InputError`` where the table is no text file, because it would have no effect.
    """
    if is_frame(data):
        text_format.refuse("a data frame")
        return FrameStore(data)
    if not is_path(data):
        kind = type(data)
        raise InputError(
            f"the table is a {kind.__module__.partition('.')[0]}.{kind.__name__}; pass a path, or "
            "a data frame of pandas, polars or pyarrow. Collect what is lazy, or write it as "
            "Parquet"
        )
    files = find_files(os.fspath(data))
    if files.kind == "text":
        if text_format.missing is None:
            text_format = replace(text_format, missing=missing)
        return TextFiles.open(files, text_format)
    text_format.refuse(files.name)
    return ParquetStore(files) if files.kind == "parquet" else ArrowStore(files)


def _with_auto(columns: Columns, request: Request) -> Request:
    """Return the request with all columns of categories and text in place of ``auto``."""
    if AUTO not in request.one_hot or AUTO in columns.names:
        return request
    apart = {*request.target, *request.ignore, request.weight, *request.hashed.columns}
    apart |= columns.own_columns.keys() - request.named
    found = columns.level_columns([name for name in columns.names if name not in apart])
    named = (each for each in request.one_hot if each != AUTO and each not in found)
    return replace(request, one_hot=(*found, *named))


def _stored(columns: Columns, roles: Roles, request: Request, opening: _Opening) -> Store:
    weights = () if request.weight is None else (request.weight,)
    used = [*roles.features, *request.target, *weights]
    return columns.parsed(
        used,
        request.one_hot,
        texts=request.hashed.columns,
        folder=opening.folder,
        on_rows=opening.on_rows,
    )


def _without_counters(store: Store, roles: Roles, request: Request) -> Roles:
    """Leave out features that only count rows."""
    candidates = [
        name
        for name in roles.features
        if name not in request.named and role.may_count_rows(name, store.n_rows)
    ]
    counters = counting_columns(store, candidates)
    if not counters:
        return roles
    left_out = roles.left_out | dict.fromkeys(counters, "which only counts rows")
    features = tuple(name for name in roles.features if name not in counters)
    if not features:
        names = [*roles.features, *request.target]
        raise role.no_feature(store.name, names, left_out)
    return role.Roles(features, left_out)


def _require_types(store: Store, roles: Roles, request: Request) -> None:
    """Refuse columns that are not numbers, by their names and types."""
    weights = () if request.weight is None else (request.weight,)
    refused = {}
    for name in (*roles.features, *request.target, *weights):
        kind = store.schema.field(name).type
        is_usable = is_number(kind) or (is_vector(kind) and name in roles.features)
        hashing = request.hashed.columns.get(name)
        if hashing is not None:
            is_usable = has_levels(kind) if hashing.is_text else not is_vector(kind)
        if name not in request.one_hot and not is_usable:
            refused[name] = describe_type(kind)
    if not refused:
        return
    listed = ", ".join(f"{name} ({what})" for name, what in refused.items())
    columns = agree(len(refused), "a column whose values are", "columns that are")
    raise InputError(
        f"{store.name} has {columns} not numbers: {listed}. Target and weight must be "
        "numbers; encode others with ",
        Remedy("one_hot", Verbatim("COLUMN")),
        " or ",
        Remedy("hash", Verbatim("COLUMN")),
        ", or leave them out with ",
        role.IGNORE_COLUMN,
    )


def _require_kinds(store: Store, schema: Schema) -> None:
    """Refuse lists where the schema has numbers or levels, and the reverse."""
    for feature in schema.features:
        kind = store.schema.field(feature.name).type
        if is_vector(kind) != (feature.width is not None):
            known = "numbers" if feature.width is None else f"lists of {feature.width:,} numbers"
            known = "levels" if feature.levels is not None else known
            known = "values to hash" if feature.hashing is not None else known
            raise InputError(
                f"column {feature.name} of {store.name} holds {describe_type(kind)}, but the "
                f"schema has {known}; pass a table with the columns of the fit"
            )


def _surveyed(
    store: Store,
    roles: Roles,
    request: Request,
    opening: _Opening,
    *,
    drop_missing: bool,
    surveys: bool,
) -> Table:
    weights = () if request.weight is None else (request.weight,)
    used = [*roles.features, *request.target, *weights]
    one_hot = [name for name in used if name in request.one_hot]
    hashed = request.hashed.columns
    # a text without words is a row without values
    used = [name for name in used if name not in hashed or not hashed[name].is_text]
    found = None
    if surveys or one_hot:
        found = survey(
            store,
            used if surveys or drop_missing else one_hot,
            one_hot,
            hashed=hashed,
            weight=request.weight,
            drop_missing=drop_missing,
            requires_values=surveys,
            on_rows=(lambda _: None) if store.is_parsed else opening.on_rows,
        )
    if store.n_rows == 0:
        raise InputError(f"{store.name} has no rows")
    levels = {} if found is None else found.levels
    features = tuple(
        Feature(name, hashing=hashed[name])
        if name in hashed
        else _feature(store, name, levels.get(name))
        for name in roles.features
    )
    schema = Schema(
        features, request.target, request.weight, drop_missing, opening.text_format.missing
    )
    _require_columns(store.name, schema)
    return Table(store, schema, roles.left_out, found=found)


def _feature(store: Store, name: str, levels: tuple[str, ...] | None) -> Feature:
    if levels is not None:
        if not levels:
            raise InputError(
                f"column {name} of {store.name} has no value; leave it out with ",
                Remedy("ignore", name),
            )
        return Feature(name, levels=levels)
    if is_vector(store.schema.field(name).type):
        return Feature(name, width=width_of(store, name))
    return Feature(name)


def _require_columns(path: str, schema: Schema) -> None:
    names = schema.feature_names
    if not schema.n_columns:
        features = ", ".join(feature.name for feature in schema.features)
        raise InputError(f"{path} has no column left for X: each of {features} has one level only")
    if schema.n_columns >= MOST_COLUMNS:
        raise InputError(
            f"X of {path} would have {schema.n_columns:,} columns, and has less than 2^31; hash "
            "with fewer bits"
        )
    role.require_feature_names(path, names or ())
    for feature in schema.features:
        if feature.levels is not None and len(feature.levels) == 1:
            warn(
                f"column {feature.name} of {path} has one level only, {feature.levels[0]!r}, and "
                "gives no column of X"
            )


def _absent(columns: Columns, absent: list[str]) -> InputError:
    """Return the error that a table lacks columns of the schema."""
    delimiter = columns.delimiter_for(absent[0])
    if len(absent) == 1 or delimiter is not None:
        return role.unknown_column(columns.name, columns.names, absent[0], delimiter)
    more = f" and {len(absent) - 5:,} more" if absent[5:] else ""
    return InputError(
        Message(
            f"{columns.name} lacks {count(len(absent), 'column')} that the schema names: "
            f"{', '.join(map(repr, absent[:5]))}{more}"
        )
    )


def _weights(schema: Schema) -> tuple[str, ...]:
    return () if schema.weight is None else (schema.weight,)
