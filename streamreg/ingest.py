"""CSV and Parquet → a data set, in two streamed passes."""

from __future__ import annotations

import csv
import io
import re
import warnings
from bisect import bisect_left
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

from streamreg.errors import DataWarning, InputError
from streamreg.memory import MIB
from streamreg.output import RowAppender, create_array, new_group, require_writable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import zarr

    from streamreg.blocks import Array, Float64

_CSV_ENDINGS = (".csv", ".csv.gz")
_PARQUET_ENDINGS = (".parquet", ".pq")
_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>"]
_MAX_LEVELS = 1000
_MAX_NAMED = 20
_EXACT_INTEGERS = 2**53
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")
# pyarrow reads 32 CSV blocks ahead: with blocks of 8 MiB it would hold 400
_CSV_BLOCK_NBYTES = MIB
_CSV_VALUE_NBYTES = 64
_BATCH_NBYTES = 8 * MIB
_COLUMN_BUFFER_NBYTES = 64 * 1024


@dataclass(frozen=True)
class IngestReport:
    """What became of a table: its rows, those left out for missing values, and the data set."""

    rows_read: int
    rows_dropped: int
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    path: Path


def ingest(
    table: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    target: Sequence[str],
    one_hot: Sequence[str] = (),
    ignore: Sequence[str] = (),
    weight: str | None = None,
    drop_missing: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] | None = None,
) -> IngestReport:
    """Write the columns of a table as a data set: X, y and perhaps sample_weight, all float64.

    The first pass counts rows, missing values and levels; the second writes. Numbers are taken as
    they are, true and false as 1 and 0. A column named in ``one_hot`` becomes a column of zeros
    and ones for each of its levels but the first in sorted order: with all of them, they would
    add up to the intercept. Missing are nulls and NaN, and in CSV the texts NA, N/A, NaN, null,
    <NA> and nothing. No type is guessed from the first rows of a CSV file: each value is a number
    or it is not.

    Memory: up to 150 MiB, whatever the length of the table. Of CSV, pyarrow reads 32 blocks of
    1 MiB ahead (from 16,384 columns on a block has 64 bytes a column); of Parquet it keeps a page
    a column. Rows and chunks that are being written come in pieces of 8 MiB.

    Parameters
    ----------
    table
        A file ``.csv``, ``.csv.gz``, ``.parquet`` or ``.pq``.
    out
        The folder of the data set, a Zarr v3 group.
    target
        Columns of y: (N,) for one, (N, K) for more.
    weight
        The column of ``sample_weight``.
    drop_missing
        Leave out rows that lack a value in any column that is used.
    progress
        Called with the rows handled so far in both passes together; 2 N at the end.

    Raises
    ------
    InputError
        Columns are unknown, not numbers, have missing values or more than 1,000 levels; the table
        is absent, empty or cannot be read; or ``out`` cannot be written.
    """
    require_writable(out, overwrite=overwrite, inputs=[table])
    source = _Table.open(Path(table))
    roles = _assign_roles(source, target, one_hot, ignore, weight)
    survey = _survey(source, roles, progress)
    _require_complete(source, survey, drop_missing=drop_missing)
    inexact = [name for name, seen in survey.columns.items() if seen.loses_digits]
    if inexact:
        warnings.warn(
            f"{source.path} has integers beyond ±2**53 in {', '.join(inexact)}; "
            "as float64 they lose their last digits",
            DataWarning,
            stacklevel=2,
        )
    levels = {name: _sorted_levels(survey.columns[name].levels) for name in roles.one_hot}
    features = tuple(
        label
        for name in roles.features
        for label in ([f"{name}={level}" for level in levels[name][1:]] if name in levels else [name])
    )
    if not features:
        raise InputError(f"{source.path} has no column left for X; ignore fewer of them")
    with new_group(out, overwrite=overwrite, inputs=[table]) as group:
        group.attrs.update(feature_names=list(features), target_names=list(roles.targets))
        _write(source, roles, levels, group, survey, len(features), progress)
    dropped = survey.n_rows - survey.n_complete
    return IngestReport(survey.n_rows, dropped, features, roles.targets, Path(out))


@dataclass(frozen=True)
class _Table:
    """A file, the names of its columns, and its rows a batch at a time; CSV values are text."""

    path: Path
    is_csv: bool
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path) -> _Table:
        if not path.is_file():
            raise InputError(f"there is no file {path}; is the path spelled as on disk?")
        if not path.name.endswith(_CSV_ENDINGS + _PARQUET_ENDINGS):
            endings = ", ".join(_CSV_ENDINGS + _PARQUET_ENDINGS)
            raise InputError(f"{path} is none of {endings}; unpack or convert it, or rename it")
        is_csv = path.name.endswith(_CSV_ENDINGS)
        with _reading(path):
            names = _csv_header(path) if is_csv else pa_parquet.read_schema(path).names
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(f"{path} has several columns named {twice[0]!r}; rename all but one")
        return cls(path, is_csv, tuple(names))

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        if self.is_csv:
            block_nbytes = max(_CSV_BLOCK_NBYTES, _CSV_VALUE_NBYTES * len(self.names))
            yield from pa_csv.open_csv(
                self.path,
                # one thread tells the number of a row that it cannot parse
                pa_csv.ReadOptions(use_threads=False, block_size=block_nbytes),
                pa_csv.ParseOptions(newlines_in_values=True),
                pa_csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=_MISSING,
                    strings_can_be_null=True,
                ),
            )
            return
        # by default pyarrow holds whole row groups, which may be the whole file
        with pa_parquet.ParquetFile(
            self.path, pre_buffer=False, buffer_size=_COLUMN_BUFFER_NBYTES
        ) as file:
            batch_rows = max(1, _BATCH_NBYTES // (8 * len(columns)))
            yield from file.iter_batches(batch_rows, columns=columns, use_threads=False)

    def place(self, row: int) -> str:
        """Say where a row is; spreadsheets and pyarrow's messages count the header as row 1."""
        return f"row {row + 2:,} (the header is row 1)" if self.is_csv else f"row {row:,} (from 0)"


class _Roles(NamedTuple):
    targets: tuple[str, ...]
    features: tuple[str, ...]
    one_hot: frozenset[str]
    weight: str | None

    @property
    def used(self) -> list[str]:
        return [*self.features, *self.targets, *([] if self.weight is None else [self.weight])]


@dataclass
class _Seen:
    """What the first pass learns of a column."""

    n_missing: int = 0
    first_missing: int = -1
    levels: set[str] = field(default_factory=set)
    loses_digits: bool = False


@dataclass
class _Survey:
    columns: dict[str, _Seen]
    n_rows: int = 0
    n_complete: int = 0


class _Batch(NamedTuple):
    raw: pa.RecordBatch
    start: int
    values: dict[str, Any]  # (n,) float64 with NaN, or text with nulls where one-hot
    missing: dict[str, Array]  # (n,) bool
    complete: Array  # (n,) bool


class _NotANumberError(Exception):
    def __init__(self, row: int, value: object) -> None:
        super().__init__(row, value)
        self.row = row
        self.value = str(value)[:40]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError) as error:
        reason = str(error)
        if "straddling" in reason:
            reason = "a line is longer than a block of 1 MiB or 64 bytes a column; is a quote open?"
        raise InputError(f"{path} cannot be read: {reason}") from error


def _csv_header(path: Path) -> list[str]:
    with (
        pa.input_stream(str(path), compression="detect") as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
    ):
        header = next((row for row in csv.reader(text) if row), None)
    if header is None:
        raise InputError(f"{path} is empty; its first line must name the columns")
    return header


def _assign_roles(
    source: _Table,
    target: Sequence[str],
    one_hot: Sequence[str],
    ignore: Sequence[str],
    weight: str | None,
) -> _Roles:
    if not target:
        raise InputError("target names no column; name the one or more that are to be explained")
    given = [*target, *one_hot, *ignore, *([] if weight is None else [weight])]
    for name, count in Counter(given).items():
        if name not in source.names:
            close = get_close_matches(name, source.names, n=3) or source.names[:_MAX_NAMED]
            raise InputError(
                f"{source.path} has no column {name!r}; the closest are {', '.join(close)}"
            )
        if count > 1:
            raise InputError(
                f"column {name!r} is named twice; it can be only one of target, one_hot, ignore "
                "and weight"
            )
    apart = {*target, *ignore, weight}
    features = tuple(name for name in source.names if name not in apart)
    return _Roles(tuple(target), features, frozenset(one_hot), weight)


def _read(
    source: _Table, roles: _Roles, progress: Callable[[int], None] | None, *, rows_before: int
) -> Iterator[_Batch]:
    start = 0
    with _reading(source.path):
        for raw in source.batches(roles.used):
            values: dict[str, Any] = {}
            refused: dict[str, _NotANumberError] = {}
            for name in roles.used:
                column = raw.column(name)
                try:
                    values[name] = (
                        _text(column)
                        if name in roles.one_hot
                        else _numbers(column, is_csv=source.is_csv)
                    )
                except _NotANumberError as error:
                    refused[name] = error
            if refused:
                raise _refusal(source, roles, refused, start)
