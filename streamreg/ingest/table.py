"""CSV and Parquet files: the roles of their columns, and their rows in batches."""

from __future__ import annotations

import csv
import io
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from streamreg.errors import InputError, Parameter, Remedy, Verbatim
from streamreg.formatting import KIB, MIB
from streamreg.ingest.values import MISSING, NotNumbersError, parse, widen
from streamreg.signals import uninterrupted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from streamreg.blocks import Float64

BATCH_NBYTES = 2 * MIB
MAX_NAMED = 20
IGNORE_COLUMN = Remedy("ignore", Verbatim("COLUMN"))
_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet", ".pq")
# pyarrow reads 32 blocks of a CSV file ahead; with blocks of 8 MiB it takes 400 MiB
_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN = MIB, 64


@dataclass(frozen=True)
class Table:
    """A file and the roles of its columns."""

    path: Path
    features: tuple[str, ...]
    targets: tuple[str, ...]
    weight: tuple[str, ...]  # one name or none
    one_hot: tuple[str, ...]
    n_columns: int

    @property
    def used(self) -> list[str]:
        """The columns that are read, in the order of :meth:`values`."""
        return [*self.features, *self.targets, *self.weight]

    @property
    def is_csv(self) -> bool:
        """Whether values are stored as text."""
        return self.path.name.endswith(_CSV)

    def places(self, rows: Mapping[str, tuple[str, int]]) -> str:
        """Return columns with their rows; the header of CSV is row 1, as in pyarrow's messages."""
        first, meaning = (2, "row 1 is the header") if self.is_csv else (0, "the first row is 0")
        found = [f"{name} ({what} in row {row + first:,})" for name, (what, row) in rows.items()]
        return f"{', '.join(found)}; {meaning}"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield batches of the columns that are used, as text if the file is CSV."""
        # pyarrow's first conversion imports pandas and swallows an interrupt of that import
        uninterrupted(pa.scalar, None)
        with _reading(self.path):
            yield from self._csv_batches() if self.is_csv else self._parquet_batches()

    def _csv_batches(self) -> Iterator[pa.RecordBatch]:
        block_nbytes = max(_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN * self.n_columns)
        with arrow_csv.open_csv(
            self.path,
            # with several threads pyarrow cannot name the row of an error
            arrow_csv.ReadOptions(block_size=block_nbytes, use_threads=False),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(
                include_columns=self.used,
                column_types=dict.fromkeys(self.used, pa.string()),
                null_values=MISSING,
                strings_can_be_null=True,
            ),
        ) as batches:
            yield from batches

    def _parquet_batches(self) -> Iterator[pa.RecordBatch]:
        # by default pyarrow buffers a row group, which may be the whole file
        with parquet.ParquetFile(
            self.path, pre_buffer=False, buffer_size=64 * KIB, page_checksum_verification=True
        ) as file:
            n_rows = max(1, BATCH_NBYTES // (8 * len(self.used)))
            yield from file.iter_batches(n_rows, columns=self.used, use_threads=False)

    def texts(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        """Return the values of a column as text, null where missing.

        Raises ``InputError`` for lists, structures and bytes that are not UTF-8.
        """
        column = batch[name]
        missing = pc.is_null(column, nan_is_null=True)
        try:
            return pc.if_else(missing, pa.scalar(None, pa.string()), column.cast(pa.string()))
        except pa.ArrowException as error:
            raise InputError(
                f"column {name} of {self.path} holds {column.type}, which cannot be one-hot "
                f"encoded ({error}); leave it out with ",
                Remedy("ignore", name),
            ) from error

    def values(
        self, batch: pa.RecordBatch, levels: Mapping[str, list[str]], *, start: int
    ) -> Float64:
        """Return numbers, (n, columns): indices of levels for texts, NaN for missing values.

        Infinite values, values that are not numbers, and negative weights raise an ``InputError``
        that names all such columns of this batch, whose first row is ``start``.
        """
        values = np.empty((len(batch), len(self.used)), order="F")
        refused: dict[str, tuple[str, int]] = {}
        for at, name in enumerate(self.used):
            column = batch[name]
            try:
                if name in levels:
                    known = pa.array(levels[name], pa.string())
                    numbers = pc.index_in(self.texts(batch, name), value_set=known)
                elif name in self.one_hot:
                    numbers = pc.if_else(self.texts(batch, name).is_valid(), 0.0, None)
                else:
                    numbers = parse(column) if self.is_csv else widen(column)
            except NotNumbersError as error:
                row, value = error.args
                refused[name] = f"{str(value)[:40]!r}", start + row
            else:
                values[:, at] = numbers.to_numpy(zero_copy_only=False)
        if refused:
            raise InputError(
                f"{self.path} has columns that are not numbers: {self.places(refused)}. "
                "Target and weight must be numbers; encode others with ",
                Remedy("one_hot", Verbatim("COLUMN")),
                ", or leave them out with ",
                IGNORE_COLUMN,
            )
        infinite = self._written(batch, np.isinf(values), start)
        if infinite:
            raise InputError(
                f"{self.path} has values that are infinite, or beyond float64: "
                f"{self.places(infinite)}. Correct them, write NaN where the value is unknown, "
                "or leave such columns out with ",
                IGNORE_COLUMN,
            )
        negative = values < 0
        negative[:, : len(self.used) - len(self.weight)] = False
        below = self._written(batch, negative, start)
        if below:
            raise InputError(
                f"{self.path} has sample weights below 0: {self.places(below)}. Correct them, or "
                "write 0 for rows that shall not count"
            )
        return values

    def _written(
        self, batch: pa.RecordBatch, wrong: NDArray[np.bool_], start: int
    ) -> dict[str, tuple[str, int]]:
        """Return the first wrong value of each column as text, and its row."""
        found = {}
        for at in np.flatnonzero(wrong.any(axis=0)):
            name, row = self.used[at], int(wrong[:, at].argmax())
            found[name] = (f"{str(batch[name][row])[:40]!r}", start + row)
        return found


def open_table(
    path: Path,
    *,
    target: Sequence[str],
    one_hot: Sequence[str],
    ignore: Sequence[str],
    weight: str | None,
) -> Table:
    """Read the names of a file's columns and assign their roles.

    Raises ``InputError`` for an unreadable file, and for unknown, repeated and ambiguous names.
    """
    names = _names(path)
    if not target:
        raise InputError(
            Parameter("target"), f" names no column of {path}; name the column to predict"
        )
    weights = () if weight is None else (weight,)
    for name, uses in Counter([*target, *one_hot, *ignore, *weights]).items():
        if name not in names:
            close = get_close_matches(name, names) or names[:MAX_NAMED]
            commas = "; are values separated by commas?" if len(names) == 1 else ""
            raise InputError(
                f"{path} has no column {name!r}; closest: {', '.join(map(repr, close))}{commas}"
            )
        if uses > 1:
            roles = ("target", "one_hot", "ignore", "weight")
            listed = [part for role in roles for part in (", ", Parameter(role))][1:]
            raise InputError(f"column {name!r} can be only one of ", *listed)
    apart = {*target, *ignore, *weights}
    features = tuple(name for name in names if name not in apart)
    if not features:
        raise InputError(
            f"{path} has no column left for X: each of its {len(names):,} is a target, the weight "
            "or ignored"
        )
    if "" in names and "" not in ignore:
        raise InputError(
            f"column {names.index('') + 1} of {path} has no name (like a pandas index); "
            "name it, or leave it out with ",
            Remedy("ignore", ""),
        )
    return Table(path, features, tuple(target), weights, tuple(one_hot), len(names))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())
        if "straddling" in reason:
            reason = "a line is longer than 1 MiB or 64 bytes a column; is a quote left open?"
        elif "Empty CSV" in reason:
            reason = "it has no rows"
        elif isinstance(error, UnicodeDecodeError) or "invalid UTF8" in reason:
            reason = f"it is not UTF-8 text ({reason}); save it as UTF-8"
        raise InputError(f"{path} cannot be read: {reason}") from error


def _names(path: Path) -> list[str]:
    """Return the names of the columns of a file that is a table."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; is the path spelled as on disk?")
    if not path.name.endswith(_CSV + _PARQUET):
        endings = ", ".join(_CSV + _PARQUET)
        raise InputError(f"{path} ends in none of {endings}; unpack, convert or rename it")
    with _reading(path):
        names = _csv_header(path) if path.name.endswith(_CSV) else parquet.read_schema(path).names
    if not names:
        raise InputError(f"{path} is empty: it names no columns")
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path} has {count} columns named {name!r}; rename all but one")
    return names


def _csv_header(path: Path) -> list[str]:
    with (
        pa.input_stream(str(path)) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
    ):
        return next((row for row in csv.reader(text) if row), [])
