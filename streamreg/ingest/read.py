"""``read_table``: a table in place of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamreg import schema as schemas
from streamreg import validate
from streamreg.errors import InputError, Parameter
from streamreg.model import Model
from streamreg.sources.kinds import open_group
from streamreg.sources.tables.paths import is_libsvm
from streamreg.sources.tables.text_format import TextFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.schema import Schema
    from streamreg.sources.tables.libsvm import LibsvmTable, LibsvmText
    from streamreg.sources.tables.roles import HashRequest
    from streamreg.sources.tables.table import Table

# numbers of columns have 32 bits
_MOST_COLUMNS = 2**31 - 1


def read_table(
    table: Any,  # noqa: ANN401  (a path, or a frame of any library)
    *,
    target: str | Sequence[str] = (),
    one_hot: str | Sequence[str] = (),
    hash: str | Sequence[str] = (),  # noqa: A002  (as scikit-learn and the command line say)
    text: str | Sequence[str] = (),
    analyzer: str = "word",
    ngrams: str | tuple[int, int] = "1",
    ignore: str | Sequence[str] = (),
    keep: str | Sequence[str] = (),
    weight: str | None = None,
    drop_missing: bool = False,
    like: Any = None,  # noqa: ANN401  (a model, or the path of one or of a data set)
    unknown_levels: str = "error",
    delimiter: str | None = None,
    decimal: str = ".",
    encoding: str | None = None,
    missing: Sequence[str] | None = None,
    first_column: int | None = None,
    n_features: int | None = None,
) -> Table | LibsvmTable:
    """Open a table, which then stands where a data set stands: ``model.fit(read_table(…))``.

    Rows are float64, or sparse, and read a block at a time. Sparse rows are encoded once, into
    temporary files without names in ``TMPDIR``. Opening reads metadata, of one-hot columns the
    levels too; with ``drop_missing`` and one-hot columns it reads all rows once. A text file is
    parsed once, into a temporary file without a name in ``TMPDIR``; what a pipe delivers is copied
    there.

    Parameters
    ----------
    table
        A file of CSV (``.csv``, ``.tsv``, packed by gzip, bz2, zstd, xz or zip), Parquet or Arrow;
        a folder of them, with columns in its folders' names if they are ``year=2020/``; a glob; a
        pipe; a frame of pandas or polars, or a table of pyarrow; or libsvm text.
    target
        The columns of y.
    one_hot
        Columns to turn into 0/1 columns, one for each level but the first in sorted order;
        ``"auto"``: all columns of text and categories. 1.0 and 1 are one level, as are True and
        true, and a date with and without midnight. With more than 1,000 levels of a column rows are
        sparse.
    hash
        Columns of many values to hash, as ``"NAME"`` or ``"NAME:BITS"``, to 2^BITS columns of X, by
        default 2^20. Columns and signs are those of scikit-learn's
        ``FeatureHasher(2**BITS).transform`` of rows as dictionaries of texts; columns with equal
        bits share their columns of X. Values are spelled as levels of ``one_hot`` are. Rows are
        sparse.
    text
        Columns of texts, written as those of ``hash``, to count their words, each in 2^BITS columns
        of its own, as scikit-learn's ``HashingVectorizer(n_features=2**BITS, norm=None)`` does.
        Rows are sparse; a missing text has no word.
    analyzer, ngrams
        Of ``text``: ``"word"``, or ``"char_wb"`` for the characters of words; and how many in a row
        are counted as one: ``"1"``, or ``"1:2"`` for one and two.
    ignore, keep
        Columns to leave out; and to use, though they are the index of a frame, or only count rows.
    weight
        The column of sample weights.
    drop_missing
        Leave out rows with a missing value; a prediction of such a row is NaN.
    like
        A fitted model, or the path of a model or of a data set: columns, order, levels and target
        are taken from there. The table needs no target then.
    unknown_levels
        With ``like``: ``"error"``, or ``"zeros"`` for a level that is not known.
    delimiter, decimal, encoding
        Of text files: by default a comma, or a tab in ``.tsv``; a point; UTF-8, or what a byte
        order mark says.
    first_column, n_features
        Of libsvm text: whether it numbers the first column of X 0 or 1; and how many columns X has,
        by default up to the last one with a value. With ``like`` both are known.
    missing
        Texts that mean a missing value, besides the empty one; by default NA, N/A, n/a, NaN, nan,
        NULL, null and <NA>. A quoted text never does.

    Raises
    ------
    InputError
        The table is absent, empty or cannot be read; columns are unknown, have no name, or hold
        dates, texts or other values that are not numbers.

    Examples
    --------
    >>> import pandas as pd, streamreg
    >>> frame = pd.DataFrame({"x": [1.5, 2.0, 4.0, 3.0], "c": list("abab"), "y": [1.0, 2, 3, 4]})
    >>> table = streamreg.read_table(frame, target="y", one_hot="c")
    >>> model = streamreg.LinearRegression().fit(table)
    >>> [str(name) for name in model.feature_names_in_]
    ['x', 'c=b']
    """
    # pyarrow is imported only where there are tables
    from streamreg.sources.tables import table as tables  # noqa: PLC0415
    from streamreg.sources.tables.libsvm import LibsvmTable  # noqa: PLC0415
    from streamreg.sources.tables.roles import Request  # noqa: PLC0415

    text_format = TextFormat.parse(delimiter, decimal, encoding, missing)
    schema = None if like is None else schema_like(like)
    libsvm = libsvm_text(
        table,
        first_column,
        schema,
        n_features,
        target=target,
        one_hot=one_hot,
        hash=hash,
        text=text,
        ignore=ignore,
        keep=keep,
        weight=weight,
    )
    if libsvm is not None:
        text_format.refuse(libsvm.name)
        return LibsvmTable.parsed(libsvm, needs_y=schema is None or bool(schema.targets))
    unknown: Any = validate.choice("unknown_levels", unknown_levels, ("error", "zeros"))
    if isinstance(table, os.PathLike):
        table = os.fspath(table)
    if schema is not None:
        refuse_with_like(
            one_hot=one_hot, hash=hash, text=text, ignore=ignore, keep=keep, weight=weight
        )
        return tables.open_like(
            table,
            schema,
            text_format,
            target=_names("target", target),
            needs_y=bool(target),
            unknown_levels=unknown,
        )
    request = Request(
        _names("target", target),
        _names("one_hot", one_hot),
        _names("ignore", ignore),
        _names("keep", keep),
        weight,
        hash_request(hash, text, analyzer, ngrams),
    )
    return tables.open_new(
        table, request, text_format, drop_missing=validate.flag("drop_missing", drop_missing)
    )


def libsvm_text(
    table: Any,  # noqa: ANN401
    first_column: int | None,
    schema: Schema | None,
    n_features: int | None = None,
    **options: object,
) -> LibsvmText | None:
    """Return the libsvm text at a path; ``None`` if it is another table.

    Text is libsvm's if its name says so, if its first column is named, or if the schema is that of
    libsvm text. Options of tables are an ``InputError`` for it.
    """
    from streamreg.sources.tables.libsvm import FIRST_COLUMNS, LibsvmText  # noqa: PLC0415

    if first_column is not None and first_column not in FIRST_COLUMNS:
        raise InputError(Parameter("first_column", first_column), " must be 0 or 1")
    if n_features is not None:
        n_features = validate.whole("n_features", n_features, _MOST_COLUMNS, "1 to 2^31 - 1")
    is_of_libsvm = schema is not None and schema.first_column is not None
    if not (is_libsvm(table) or first_column is not None or is_of_libsvm):
        if n_features is not None:
            raise InputError(
                Parameter("n_features"),
                f" is of libsvm text; columns of {table} have names, which tell how many there are",
            )
        return None
    if not isinstance(table, str | os.PathLike):
        raise InputError(
            Parameter("first_column"),
            f" is of libsvm text, which is read from files; the table is a {type(table).__name__}",
        )
    for name, value in options.items():
        if value:
            raise InputError(
                Parameter(name),
                f" is of a table whose columns have names; {table} is libsvm text, where y comes "
                "first in each line: leave it out",
            )
    if schema is not None and n_features is not None:
        refuse_with_like(n_features=n_features)
    return LibsvmText.open(os.fspath(table), first_column, schema, n_features)


def hash_request(
    values: str | Sequence[str],
    texts: str | Sequence[str],
    analyzer: str = "word",
    ngrams: str | tuple[int, int] = "1",
) -> HashRequest:
    """Check what users say of columns to hash; an ``InputError`` names the parameter."""
    from streamreg.sources.tables.roles import HashRequest  # noqa: PLC0415

    validate.choice("analyzer", analyzer, schemas.ANALYZERS)
    parts = ngrams.split(":") if isinstance(ngrams, str) else list(map(str, ngrams))
    lengths = [int(part) for part in parts if part.isascii() and part.isdecimal()]
    low, high = lengths[0] if lengths else 0, lengths[-1] if lengths else 0
    if len(lengths) != len(parts) or len(parts) > 2 or not 1 <= low <= high <= schemas.MOST_GRAMS:  # noqa: PLR2004
        raise InputError(
            Parameter("ngrams", str(ngrams)),
            f" must be a length from 1 to {schemas.MOST_GRAMS}, or the least and the greatest, "
            "such as 1:2",
        )
    if not texts and (analyzer != "word" or (low, high) != (1, 1)):
        raise InputError(
            Parameter("analyzer" if analyzer != "word" else "ngrams"),
            " is of columns of ",
            Parameter("text"),
            ", and no column is named there",
        )
    return HashRequest(_names("hash", values), _names("text", texts), analyzer, (low, high))


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


def refuse_with_like(**options: object) -> None:
    """Refuse options that a schema answers."""
    for name, value in options.items():
        if value:
            raise InputError(
                Parameter(name), " is taken from ", Parameter("like"), "; pass only one of them"
            )


def _names(parameter: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    is_list = isinstance(given, Iterable) and not isinstance(given, str)
    names: tuple[Any, ...] = tuple(given or ()) if is_list or given is None else (given,)
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            Parameter(parameter), f" must be the name of a column, or a list of names: {given!r}"
        )
    return names
