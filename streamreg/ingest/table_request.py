"""What a user says of a table: the parameters of ``read_table``, parsed once."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamreg import schema as schemas
from streamreg import validate
from streamreg.errors import InputError, Parameter
from streamreg.ingest.like import schema_like
from streamreg.sources.tables.paths import is_libsvm
from streamreg.sources.tables.text_format import TextFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from streamreg.schema import Schema
    from streamreg.sources.tables.libsvm import LibsvmText
    from streamreg.sources.tables.roles import HashRequest, Request
    from streamreg.sources.tables.table import Table

# numbers of columns have 32 bits
_MOST_COLUMNS = 2**31 - 1


@dataclass(frozen=True)
class TableRequest:
    """The columns of a table, or the schema that it has, and the format of text files."""

    columns: Request
    text_format: TextFormat
    drop_missing: bool = False
    schema: Schema | None = None  # of ``like``
    unknown_levels: Any = "error"
    first_column: int | None = None  # of libsvm text
    n_features: int | None = None  # of libsvm text

    @classmethod
    def parse(
        cls,
        *,
        target: str | Sequence[str] | None = None,
        one_hot: str | Sequence[str] | None = None,
        hash: str | Sequence[str] | None = None,  # noqa: A002  (as in read_table)
        text: str | Sequence[str] | None = None,
        analyzer: str = "word",
        ngrams: str | tuple[int, int] = "1",
        ignore: str | Sequence[str] | None = None,
        keep: str | Sequence[str] | None = None,
        weight: str | None = None,
        drop_missing: bool = False,
        like: Any = None,  # noqa: ANN401
        unknown_levels: str = "error",
        delimiter: str | None = None,
        decimal: str = ".",
        encoding: str | None = None,
        missing: Sequence[str] | None = None,
        first_column: int | None = None,
        n_features: int | None = None,
    ) -> TableRequest:
        """Check the parameters of :func:`streamreg.read_table`; errors name the parameter."""
        # pyarrow is imported only where there are tables
        from streamreg.sources.tables.libsvm import FIRST_COLUMNS  # noqa: PLC0415
        from streamreg.sources.tables.roles import Request  # noqa: PLC0415

        is_number = not isinstance(first_column, bool) and first_column in FIRST_COLUMNS
        if first_column is not None and not is_number:
            raise InputError(Parameter("first_column", first_column), " must be 0 or 1")
        if first_column is not None:
            first_column = int(first_column)
        if n_features is not None:
            n_features = validate.whole("n_features", n_features, _MOST_COLUMNS, "1 to 2^31 - 1")
        return cls(
            Request(
                _names("target", target),
                _names("one_hot", one_hot),
                _names("ignore", ignore),
                _names("keep", keep),
                weight,
                _hash_request(hash, text, analyzer, ngrams),
            ),
            TextFormat.parse(delimiter, decimal, encoding, missing),
            validate.flag("drop_missing", drop_missing),
            None if like is None else schema_like(like),
            validate.choice("unknown_levels", unknown_levels, ("error", "zeros")),
            first_column,
            n_features,
        )

    def libsvm_text(self, table: Any) -> LibsvmText | None:  # noqa: ANN401
        """Return the libsvm text at a path; ``None`` if it is another table.

        Text is libsvm's if its name says so, if its first column is named, or if the schema is that
        of libsvm text. Columns with names, and a format, are an ``InputError`` for it.
        """
        # pyarrow is imported only where there are tables
        from streamreg.sources.tables.libsvm import LibsvmText  # noqa: PLC0415

        is_of_libsvm = self.schema is not None and self.schema.first_column is not None
        if not (is_libsvm(table) or self.first_column is not None or is_of_libsvm):
            if self.n_features is not None:
                raise InputError(
                    Parameter("n_features"),
                    f" is of libsvm text; columns of {table} have names, which tell how many there "
                    "are",
                )
            return None
        if not isinstance(table, str | os.PathLike):
            raise InputError(
                Parameter("first_column"),
                " is of libsvm text, which is read from files; the table is a "
                f"{type(table).__name__}",
            )
        for name, value in (self._named() | {"drop_missing": self.drop_missing}).items():
            if value:
                raise InputError(
                    Parameter(name),
                    f" is of a table whose columns have names; {table} is libsvm text, where y "
                    "comes first in each line: leave it out",
                )
        if self.schema is not None and self.n_features is not None:
            raise _known_by_like("n_features")
        text = LibsvmText.open(os.fspath(table), self.first_column, self.schema, self.n_features)
        self.text_format.refuse(text.name)
        return text

    def open(
        self,
        table: Any,  # noqa: ANN401
        *,
        surveys: bool = False,
        folder: Path | None = None,
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> Table:
        """Open a table whose columns have names; see ``open_new`` and ``open_like``."""
        from streamreg.sources.tables import table as tables  # noqa: PLC0415

        if self.schema is None:
            return tables.open_new(
                table,
                self.columns,
                self.text_format,
                drop_missing=self.drop_missing,
                surveys=surveys,
                folder=folder,
                on_rows=on_rows,
            )
        for name, value in self._named().items():
            if value and name != "target":
                raise _known_by_like(name)
        return tables.open_like(
            table,
            self.schema,
            self.text_format,
            target=self.columns.target,
            needs_y=bool(self.columns.target),
            unknown_levels=self.unknown_levels,
            folder=folder,
        )

    def _named(self) -> dict[str, object]:
        """Return the parameters that name columns."""
        columns, hashed = self.columns, self.columns.hashed
        return {
            "target": columns.target,
            "one_hot": columns.one_hot,
            "hash": hashed.values,
            "text": hashed.texts,
            "ignore": columns.ignore,
            "keep": columns.keep,
            "weight": columns.weight,
        }


def _known_by_like(name: str) -> InputError:
    return InputError(
        Parameter(name), " is taken from ", Parameter("like"), "; pass only one of them"
    )


def _hash_request(
    values: str | Sequence[str] | None,
    texts: str | Sequence[str] | None,
    analyzer: str,
    ngrams: str | tuple[int, int],
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


def _names(parameter: str, given: str | Sequence[str] | None) -> tuple[str, ...]:
    is_list = isinstance(given, Iterable) and not isinstance(given, str)
    names: tuple[Any, ...] = tuple(given or ()) if is_list or given is None else (given,)
    if not all(isinstance(name, str) for name in names):
        raise InputError(
            Parameter(parameter), f" must be the name of a column, or a list of names: {given!r}"
        )
    return names
