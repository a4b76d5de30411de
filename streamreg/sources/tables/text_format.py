"""How a text file writes a table: delimiter, decimal mark, encoding, missing values."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from streamreg.errors import InputError, Parameter

if TYPE_CHECKING:
    from collections.abc import Sequence

USUAL_MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>")
# pyarrow compares texts with their spaces, so marks with up to this many on each side are listed
_MOST_SPACES = 4
# a number may be written with up to this many zeros after its point
_MOST_ZEROS = 6
_WHOLE = re.compile(r"([+-]?\d+)([.,]0*)?")
_NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "space": " "}


@dataclass(frozen=True)
class TextFormat:
    """The format of a CSV file; ``None`` stands for what the file's name and content say.

    ``missing`` lists the texts that mean a missing value, besides the empty one. Quoted texts never
    do, and spaces around a text do not count.
    """

    delimiter: str | None = None
    decimal: Literal[".", ","] = "."
    encoding: str | None = None
    missing: tuple[str, ...] | None = None

    @classmethod
    def parse(
        cls,
        delimiter: str | None = None,
        decimal: str = ".",
        encoding: str | None = None,
        missing: Sequence[str] | None = None,
    ) -> TextFormat:
        """Check what users pass; an ``InputError`` names the parameter."""
        if delimiter is not None:
            delimiter = _NAMED_DELIMITERS.get(delimiter.lower(), delimiter)
            if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
                raise InputError(
                    Parameter("delimiter", delimiter), " is not one ASCII character, such as ;"
                )
        if decimal not in {".", ","}:
            raise InputError(Parameter("decimal", decimal), " must be . or ,")
        if delimiter == decimal == ",":
            raise InputError(
                "a comma cannot be both ", Parameter("delimiter"), " and ", Parameter("decimal")
            )
        if encoding is not None:
            try:
                codecs.lookup(encoding)
            except LookupError as error:
                raise InputError(
                    Parameter("encoding", encoding),
                    " is not known to Python; write utf-8, latin-1, cp1252 or utf-16",
                ) from error
        if isinstance(missing, str):
            missing = (missing,)
        marks = None if missing is None else tuple(mark.strip() for mark in missing)
        return cls(delimiter, "," if decimal == "," else ".", encoding, marks)

    def refuse(self, table: str) -> None:
        """Raise ``InputError`` if a format is given for a table whose values have types."""
        for each in fields(self):
            if getattr(self, each.name) != each.default:
                why = "store a missing value as null" if each.name == "missing" else "leave it out"
                raise InputError(
                    Parameter(each.name), f" is of text files, such as .csv; {table} is none: {why}"
                )

    def null_values(self) -> list[str]:
        """Return the texts that pyarrow shall read as null; a mark -999 is also -999.0."""
        marks = ["", *(USUAL_MISSING if self.missing is None else self.missing)]
        wholes = [match[1] for match in map(_WHOLE.fullmatch, marks) if match]
        ends = ["", *(self.decimal + "0" * zeros for zeros in range(_MOST_ZEROS + 1))]
        marks += [whole + end for whole in wholes for end in ends]
        spaces = [" " * n for n in range(_MOST_SPACES + 1)]
        return [before + mark + after for mark in marks for before in spaces for after in spaces]
