"""The options of commands that read tables, and the tables that they open."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import typer

from streamreg.errors import InputError, Parameter
from streamreg.sources.tables.paths import is_table

Target = Annotated[
    list[str] | None, typer.Option(help="Of a table: a column of y; repeat for several.")
]
OneHot = Annotated[
    list[str] | None,
    typer.Option(
        help="A column to turn into 0/1 columns, one for each level but the first; repeat for "
        "several. auto: all columns of text and categories."
    ),
]
Hash = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN[:BITS]",
        help="A column of many values to hash to 2^BITS columns of X, 2^20 by default, as "
        "scikit-learn's FeatureHasher does; repeat for several. Rows are then sparse.",
    ),
]
Text = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN[:BITS]",
        help="A column of texts whose words are counted in 2^BITS columns of X, as scikit-learn's "
        "HashingVectorizer does; repeat for several. Rows are then sparse.",
    ),
]
Analyzer = Annotated[
    Literal["word", "char_wb"],
    typer.Option(help="Of --text: count words, or characters of words."),
]
Ngrams = Annotated[
    str,
    typer.Option(help="Of --text: how many in a row count as one: 1, or 1:2 for one and two."),
]
Ignore = Annotated[
    list[str] | None, typer.Option(help="A column to leave out; repeat for several.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        help="A column to use though it is the index of a data frame, or only counts rows; "
        "repeat for several."
    ),
]
TableWeight = Annotated[str | None, typer.Option(help="The column of sample weights, if any.")]
DropMissing = Annotated[
    bool, typer.Option("--drop-missing", help="Leave out rows with missing values.")
]
UnknownLevels = Annotated[
    Literal["error", "zeros"],
    typer.Option(help="What a level that the model does not know means: an error, or zeros."),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="Of a text file: the mark between values, such as ; or tab.",
        show_default="a comma; a tab in .tsv",
    ),
]
Decimal = Annotated[str, typer.Option(help="Of a text file: the decimal mark, . or a comma.")]
Encoding = Annotated[
    str | None,
    typer.Option(
        help="Of a text file: its encoding, such as latin-1.",
        show_default="UTF-8, or what a byte order mark says",
    ),
]
Missing = Annotated[
    list[str] | None,
    typer.Option(
        help="Of a text file: a text that means a missing value, besides the empty one; repeat "
        "for several. A quoted text never does.",
        show_default="NA, N/A, n/a, NaN, nan, NULL, null, <NA>",
    ),
]

FirstColumn = Annotated[
    int | None,
    typer.Option(
        help="Of libsvm text, such as .svm: the number of its first column, 0 or 1.",
        show_default="that of the model, if one is used",
    ),
]

NFeatures = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Of libsvm text: how many columns X has, as the last may have no values here.",
        show_default="those up to the last with a value, or those of the model",
    ),
]

# what is said of the columns of a new table; a model has the answers for the next one
COLUMNS = {
    "target": Target,
    "one_hot": OneHot,
    "hash": Hash,
    "text": Text,
    "analyzer": Analyzer,
    "ngrams": Ngrams,
    "ignore": Ignore,
    "keep": Keep,
    "weight": TableWeight,
    "drop_missing": DropMissing,
    "n_features": NFeatures,
}
FORMAT = {
    "delimiter": Delimiter,
    "decimal": Decimal,
    "encoding": Encoding,
    "missing": Missing,
    "first_column": FirstColumn,
}


@dataclass(frozen=True)
class TableOptions:
    """What a user says of a table; the defaults say nothing."""

    target: list[str] | None = None
    one_hot: list[str] | None = None
    hash: list[str] | None = None
    text: list[str] | None = None
    analyzer: str = "word"
    ngrams: str = "1"
    ignore: list[str] | None = None
    keep: list[str] | None = None
    weight: str | None = None
    drop_missing: bool = False
    n_features: int | None = None
    unknown_levels: str = "error"
    delimiter: str | None = None
    decimal: str = "."
    encoding: str | None = None
    missing: list[str] | None = None
    first_column: int | None = None

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> TableOptions:
        """Take the options of tables out of those of a command."""
        known = {each.name for each in fields(cls)} & options.keys()
        return cls(**{name: options.pop(name) for name in known})

    def opened(self, data: str | None, like: object = None, *, needs_y: bool = True) -> Any:  # noqa: ANN401
        """Return the table at a path; a data set is returned as it is.

        ``like`` is a model, whose schema the table has; without ``needs_y`` it needs no target.
        """
        if data is None or not (is_table(data) or self.first_column is not None):
            self._refuse(data)
            return data
        from streamreg.ingest.like import schema_like  # noqa: PLC0415
        from streamreg.ingest.read import read_table  # noqa: PLC0415

        if like is not None and not needs_y:
            like = schema_like(like).without_y()

        return read_table(data, like=like, **vars(self) | {"missing": self.missing or None})

    def dropping(self, *, drops: bool) -> TableOptions:
        """Return the options with ``drop_missing``, if rows with NaN are left out anyway."""
        return replace(self, drop_missing=True) if drops else self

    def _refuse(self, data: str | None) -> None:
        """Refuse options of tables for a data set, whose columns are known."""
        for each in fields(self):
            if getattr(self, each.name) not in (each.default, []):
                raise InputError(
                    Parameter(each.name),
                    f" is of a table, such as a .csv or .parquet file; {data or 'the data'} "
                    "is a data set",
                )
