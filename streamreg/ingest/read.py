"""``read_table``: a table in place of a data set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from streamreg.ingest.table_request import TableRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamreg.sources.tables.libsvm import LibsvmTable
    from streamreg.sources.tables.table import Table


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
    from streamreg.sources.tables.libsvm import LibsvmTable  # noqa: PLC0415

    request = TableRequest.parse(
        target=target,
        one_hot=one_hot,
        hash=hash,
        text=text,
        analyzer=analyzer,
        ngrams=ngrams,
        ignore=ignore,
        keep=keep,
        weight=weight,
        drop_missing=drop_missing,
        like=like,
        unknown_levels=unknown_levels,
        delimiter=delimiter,
        decimal=decimal,
        encoding=encoding,
        missing=missing,
        first_column=first_column,
        n_features=n_features,
    )
    libsvm = request.libsvm_text(table)
    if libsvm is not None:
        schema = request.schema
        return LibsvmTable.parsed(libsvm, needs_y=schema is None or bool(schema.targets))
    return request.open(os.fspath(table) if isinstance(table, os.PathLike) else table)
