"""CSV files: parsed once, into a temporary Arrow file that any rows can be read from."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import ipc

from streamreg.errors import InputError, Part, Remedy, Verbatim
from streamreg.formatting import MIB, agree
from streamreg.signals import uninterrupted
from streamreg.sources.tables.arrow_store import ArrowStore
from streamreg.sources.tables.file_set import FileSet, require_names
from streamreg.sources.tables.levels import one_spelling, require_few
from streamreg.sources.tables.nameless_file import NamelessFile
from streamreg.sources.tables.packed import unpacked
from streamreg.sources.tables.reading import reading
from streamreg.sources.tables.roles import infinite_values
from streamreg.sources.tables.store import Columns
from streamreg.sources.tables.text_format import USUAL_MISSING
from streamreg.sources.tables.values import NotNumbersError, loses_digits, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from streamreg.blocks import Float64
    from streamreg.sources.tables.text_format import TextFormat

# pyarrow reads 32 blocks of a CSV file ahead; with blocks of 8 MiB it takes 400 MiB
_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN = MIB, 64
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_DELIMITERS = (",", ";", "\t", "|")
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*")
_THOUSANDS = re.compile(r"\s*[+-]?\d{1,3}([,.' ]\d{3})+([,.]\d+)?\s*")
_DATE = re.compile(r"\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}:\d{2})([T :].*)?")
_FIRST_ROW, ROWS_MEANING = 2, "row 1 is the header, and empty lines are not counted"


@dataclass(eq=False)
class TextFiles(Columns):
    """CSV files of one table, and the names of their columns."""

    files: FileSet
    format: TextFormat
    header: list[str]
    own_columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.files.name

    @property
    def names(self) -> Sequence[str]:
        return self.header

    @classmethod
    def open(cls, files: FileSet, text_format: TextFormat) -> TextFiles:
        """Read the headers; files with other columns than the first are an ``InputError``."""
        if text_format.delimiter is None:
            name = str(files.paths[0]).lower()
            is_tabbed = any(f".{ending}" in Path(name).name for ending in ("tsv", "tab"))
            text_format = replace(text_format, delimiter="\t" if is_tabbed else ",")
        headers = [_header(files, path, text_format) for path in files.paths]
        require_names(files.name, headers[0])
        for path, header in zip(files.paths, headers, strict=True):
            if set(header) != set(headers[0]):
                raise InputError(
                    f"{path} names other columns than {files.paths[0]}: {', '.join(header[:5])}; "
                    f"not {', '.join(headers[0][:5])}"
                )
        return cls(files, text_format, headers[0])

    def delimiter_for(self, name: str) -> str | None:
        line = (self.format.delimiter or ",").join(self.names)
        for delimiter in _DELIMITERS:
            if delimiter != self.format.delimiter and name in next(
                csv.reader([line], delimiter=delimiter), []
            ):
                return delimiter
        return None

    def parsed(
        self,
        used: Sequence[str],
        one_hot: Collection[str],
        *,
        texts: Collection[str] = (),
        folder: Path | None = None,
        on_rows: Callable[[int], None] = lambda _: None,
    ) -> TextStore:
        """Return the columns that are ``used``: numbers, codes of ``one_hot``, and ``texts``.

        The temporary file is in ``folder``, and has no name, so that nothing is left of it.
        Raises ``InputError`` for values that are no numbers, by column and row.
        """
        spool = _Spool(self, used, one_hot, texts)
        file = NamelessFile(folder)
        with pa.OSFile(str(file.path), "wb") as sink, ipc.new_file(sink, spool.schema) as writer:
            for path in self.files.paths:
                for batch in self._batches(path, used):
                    _write(writer, spool.coded(batch), folder)
                    on_rows(len(batch))
        return TextStore(self, spool, file)

    def level_columns(self, candidates: Sequence[str]) -> list[str]:
        """Return the columns that hold other texts than numbers; reads the files once."""
        found: list[str] = []
        for path in self.files.paths:
            for batch in self._batches(path, candidates):
                for name in candidates:
                    if name not in found and not self._is_numeric(batch.column(name)):
                        found.append(name)
        return [name for name in candidates if name in found]

    def _is_numeric(self, texts: pa.Array) -> bool:
        try:
            parse(texts, self.format.decimal)
        except NotNumbersError:
            return False
        return True

    def _batches(self, path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        # pyarrow's first conversion imports pandas and swallows an interrupt of that import
        uninterrupted(pa.scalar, None)
        block_nbytes = max(_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN * len(self.names))
        label = self.files.name if len(self.files.paths) == 1 else str(path)
        encoding = _encoding(path, self.format)
        with (
            reading(label),
            unpacked(path) as stream,
            arrow_csv.open_csv(
                stream,
                arrow_csv.ReadOptions(
                    block_size=block_nbytes,
                    # with several threads pyarrow cannot name the row of an error
                    use_threads=False,
                    encoding="utf8" if encoding == "utf-8-sig" else encoding,
                ),
                arrow_csv.ParseOptions(delimiter=self.format.delimiter, newlines_in_values=True),
                arrow_csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=self.format.null_values(),
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ) as batches,
        ):
            yield from batches


class TextStore(ArrowStore):
    """The columns of CSV files that were parsed."""

    first_row, rows_meaning = _FIRST_ROW, ROWS_MEANING
    is_parsed = True

    def __init__(self, text: TextFiles, spool: _Spool, file: NamelessFile) -> None:
        self._text = text
        # open while the store is in use, because the file has no name
        self._file = file
        super().__init__(FileSet(text.files.name, "arrow", [file.path]), spool.vocabularies)
        self.rounded = frozenset(spool.rounded)
        self.counters = frozenset(spool.counting)
        if not self.n_rows:
            raise InputError(f"{self.name} has no rows")

    def local_paths(self) -> list[Path]:
        return list(self._text.files.paths)

    def require_unchanged(self) -> None:
        """Do nothing, because the rows were copied."""


class _Spool:
    """Turns batches of texts into numbers and codes."""

    def __init__(
        self,
        text: TextFiles,
        used: Sequence[str],
        one_hot: Collection[str],
        texts: Collection[str],
    ) -> None:
        self._text = text
        self._texts = texts
        self._used = used
        self._n_rows = 0
        self._codes: dict[str, dict[str, int]] = {name: {} for name in used if name in one_hot}
        kinds = dict.fromkeys(self._codes, pa.int32()) | dict.fromkeys(texts, pa.string())
        self.schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in used])
        self.rounded: set[str] = set()
        # columns of integers that count the rows so far, with the number of row 0
        self.counting: dict[str, int] = {}

    @property
    def vocabularies(self) -> dict[str, list[str]]:
        """The texts of each column of codes."""
        return {name: list(codes) for name, codes in self._codes.items()}

    def coded(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch of texts as numbers and codes."""
        arrays: list[pa.Array] = []
        refused: dict[str, tuple[str, int]] = {}
        infinite: dict[str, tuple[str, int]] = {}
        for name in self._used:
            texts = batch.column(name)
            if name in self._texts:
                arrays.append(self._with_point(texts))
                continue
            try:
                if name in self._codes:
                    arrays.append(self._encoded(name, texts))
                    continue
                numbers = self._numbers(name, texts)
                arrays.append(pa.array(numbers, from_pandas=False))
                if np.isinf(numbers).any():
                    row = int(np.argmax(np.isinf(numbers)))
                    infinite[name] = str(texts[row]), self._n_rows + row
            except NotNumbersError as error:
                row, value = error.args
                refused[name] = str(value), self._n_rows + row
        if refused:
            raise self._not_numbers(refused)
        if infinite:
            raise infinite_values(self._text.files.name, infinite, _FIRST_ROW, ROWS_MEANING)
        self._n_rows += len(batch)
        return pa.RecordBatch.from_arrays(arrays, names=list(self._used))

    def _numbers(self, name: str, texts: pa.Array) -> Float64:
        numbers = parse(texts, self._text.format.decimal)
        if loses_digits(texts, numbers):
            self.rounded.add(name)
        self._count(name, texts, numbers)
        return numbers

    def _count(self, name: str, texts: pa.Array, numbers: Float64) -> None:
        """Keep a column among those that count rows, or strike it off."""
        if not len(numbers):
            return
        if not self._n_rows and numbers[0] in {0, 1}:
            self.counting[name] = int(numbers[0])
        first = self.counting.pop(name, None)
        if first is None or numbers[-1] != first + self._n_rows + len(numbers) - 1:
            return
        expected = np.arange(first + self._n_rows, first + self._n_rows + len(numbers))
        written = pa.array(expected).cast(pa.string())
        if pc.all(pc.equal(pc.utf8_trim_whitespace(texts), written)).as_py():
            self.counting[name] = first

    def _encoded(self, name: str, texts: pa.Array) -> pa.Array:
        known = self._codes[name]
        encoded = texts.dictionary_encode()
        levels = one_spelling(self._with_point(encoded.dictionary)).to_pylist()
        for level in levels:
            known.setdefault(level, len(known))
        require_few(name, known, self._text.files.name, self._n_rows + len(texts))
        new = [known[level] for level in levels]
        return pa.array(new, pa.int32()).take(encoded.indices)

    def _with_point(self, texts: pa.Array) -> pa.Array:
        """Return texts that are numbers with a point for the decimal comma."""
        if self._text.format.decimal == ",":
            return pc.replace_substring_regex(texts, r"^(-?\d+),(\d+)$", r"\1.\2")
        return texts

    def _not_numbers(self, refused: dict[str, tuple[str, int]]) -> InputError:
        found = [
            f"{name} ({value[:40]!r} in row {row + _FIRST_ROW:,})"
            for name, (value, row) in refused.items()
        ]
        columns = agree(len(found), "a column whose values are", "columns that are")
        return InputError(
            f"{self._text.files.name} has {columns} not numbers: {', '.join(found)}; "
            f"{ROWS_MEANING}. ",
            *self._cause([value for value, _ in refused.values()]),
            "Target and weight must be numbers; encode others with ",
            Remedy("one_hot", Verbatim("COLUMN")),
            ", or leave them out with ",
            Remedy("ignore", Verbatim("COLUMN")),
        )

    def _cause(self, values: list[str]) -> list[Part]:
        """Return what such a value may be, and how to read it."""
        comma = next((each for each in values if _DECIMAL_COMMA.fullmatch(each)), None)
        if comma is not None and self._text.format.decimal == ".":
            return ["Pass ", Remedy("decimal", ","), f" if {comma!r} has a decimal comma. "]
        grouped = next((each for each in values if _THOUSANDS.fullmatch(each)), None)
        if grouped is not None:
            otherwise = "if it has separators of thousands, write the file without them. "
            comma_is = f" if {grouped!r} has a decimal comma; {otherwise}"
            return ["Pass ", Remedy("decimal", ","), comma_is]
        day = next((each for each in values if _DATE.fullmatch(each)), None)
        if day is not None:
            return [f"If {day[:40]!r} is a date or a time, write it as a number, such as days. "]
        value = values[0].strip()[:40]
        known = self._text.format.missing
        if value in (USUAL_MISSING if known is None else known):
            return [f"{value!r} is quoted, and a quoted text is never a missing value. "]
        marks = [part for mark in known or () for part in (Remedy("missing", mark), " ")]
        return ["Pass ", *marks, Remedy("missing", value), f" if {value!r} is a missing value. "]


def _write(writer: Any, batch: pa.RecordBatch, folder: Path | None) -> None:  # noqa: ANN401
    try:
        writer.write_batch(batch)
    except OSError as error:
        where = folder or tempfile.gettempdir()
        raise InputError(
            f"the temporary copy of the table in {where} cannot be written: "
            f"{error.strerror or error}. Set TMPDIR to a folder with more space, or write the "
            "table as Parquet"
        ) from error


def _header(files: FileSet, path: Path, text_format: TextFormat) -> list[str]:
    label = files.name if len(files.paths) == 1 else str(path)
    encoding = _encoding(path, text_format)
    with reading(label), unpacked(path) as stream:
        encoding = "utf-8-sig" if encoding.replace("-", "").lower() == "utf8" else encoding
        text = io.TextIOWrapper(stream, encoding=encoding, newline="")
        rows = csv.reader(text, delimiter=text_format.delimiter or ",")
        names = next((row for row in rows if row), [])
    if any("\0" in name for name in names):
        raise InputError(
            f"{label} is not UTF-8 text, because its header has bytes of 0: name its encoding "
            "with ",
            Remedy("encoding", "utf-16-le"),
            ", or utf-16-be",
        )
    return names


def _encoding(path: Path, text_format: TextFormat) -> str:
    """Return the encoding that the user names, or that a byte order mark tells; else UTF-8."""
    if text_format.encoding is not None:
        return text_format.encoding
    with reading(str(path)), unpacked(path) as stream:
        first = stream.read(4)
    return next((name for mark, name in _MARKS if first.startswith(mark)), "utf-8")
