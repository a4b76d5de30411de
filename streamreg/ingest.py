"""CSV and Parquet → a data set, in two streamed passes."""

from __future__ import annotations

import csv
import io
import re
import warnings
from bisect import bisect_left
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from streamreg.errors import DataWarning, InputError
from streamreg.memory import MIB
from streamreg.output import RowAppender, create_array, new_group, require_writable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence

    import zarr

    from streamreg.blocks import Float64

_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet", ".pq")
_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>"]
_MAX_LEVELS = 1000
_EXACT_INTEGERS = 2**53
_BATCH_NBYTES = 8 * MIB
# pyarrow reads 32 blocks of a CSV file ahead: with blocks of 8 MiB it would hold 400
_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN = MIB, 64


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
    """Write a table (.csv, .csv.gz, .parquet, .pq) as a data set: X, y, perhaps sample_weight.

    The first pass counts rows, missing values and levels; the second writes. Numbers are taken as
    float64, true and false as 1 and 0. A column named in ``one_hot`` becomes a column of zeros
    and ones for each of its levels but the first in sorted order: with all of them, they would
    add up to the intercept. Missing are nulls and NaN, and in CSV the texts NA, N/A, NaN, null,
    <NA> and nothing. No type is guessed from the first rows of a CSV file: each value is a number
    or it is not.

    Memory: about 150 MiB, whatever the length of the table. Of CSV, pyarrow reads 32 blocks ahead,
    of 1 MiB or 64 bytes a column; of Parquet it keeps a page of each column. Rows and chunks
    that are being written come in pieces of 8 MiB.

    Parameters
    ----------
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
    source = _open(Path(table), target, one_hot, ignore, weight)
    report = progress or (lambda rows: None)
    levels, n_rows, n_complete = _survey(source, report, drop_missing=drop_missing)
    features = [label for name in source.features for label in _labels(name, levels.get(name))]
    if not features:
        raise InputError(f"{table} has no column left for X; ignore fewer of them")
    with new_group(out, overwrite=overwrite, inputs=[table]) as group:
        group.attrs.update(feature_names=features, target_names=list(source.targets))
        _write(source, levels, group, n_complete, len(features), report)
    return IngestReport(
        n_rows, n_rows - n_complete, tuple(features), source.targets, Path(out)
    )


class _NotNumbersError(Exception):
    """Holds the row and the value of the first that is not a number."""


@dataclass(frozen=True)
class _Table:
    """A file, and what its columns are for; its rows come in the same batches in every pass."""

    path: Path
    features: tuple[str, ...]
    targets: tuple[str, ...]
    weight: tuple[str, ...]  # one name or none
    n_columns: int

    @property
    def used(self) -> list[str]:
        return [*self.features, *self.targets, *self.weight]

    @property
    def is_csv(self) -> bool:
        return self.path.name.endswith(_CSV)

    def place(self, row: int) -> str:
        """Say where a row is; pyarrow's messages on CSV count the header as row 1 too."""
        return f"row {row + 2:,} (the header is row 1)" if self.is_csv else f"row {row:,} (from 0)"

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the columns that are used, those of CSV as text."""
        with _reading(self.path):
            yield from self._csv_batches() if self.is_csv else self._parquet_batches()

    def _csv_batches(self) -> Iterator[pa.RecordBatch]:
        block_nbytes = max(_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN * self.n_columns)
        return arrow_csv.open_csv(
            self.path,
            # only a single thread tells which row it cannot parse
            arrow_csv.ReadOptions(use_threads=False, block_size=block_nbytes),
            arrow_csv.ParseOptions(newlines_in_values=True),
            arrow_csv.ConvertOptions(
                include_columns=self.used,
                column_types=dict.fromkeys(self.used, pa.string()),
                null_values=_MISSING,
                strings_can_be_null=True,
            ),
        )

    def _parquet_batches(self) -> Iterator[pa.RecordBatch]:
        # as it comes, pyarrow holds whole row groups, which may be the whole file
        with parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=64 * KIB) as file:
            rows = max(1, _BATCH_NBYTES // (8 * len(self.used)))
            yield from file.iter_batches(rows, columns=self.used, use_threads=False)


def _open(
    path: Path,
    target: Sequence[str],
    one_hot: Sequence[str],
    ignore: Sequence[str],
    weight: str | None,
) -> _Table:
    if not path.is_file():
        raise InputError(f"there is no file {path}; is the path spelled as on disk?")
    if not path.name.endswith(_CSV + _PARQUET):
        endings = ", ".join(_CSV + _PARQUET)
        raise InputError(f"{path} ends in none of {endings}; unpack, convert or rename it")
    with _reading(path):
        is_csv = path.name.endswith(_CSV)
        names = _csv_header(path) if is_csv else parquet.read_schema(path).names
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{path} has several columns named {twice[0]!r}; rename all but one")
    if not target:
        raise InputError("target names no column; name what is to be explained")
    weights = () if weight is None else (weight,)
    for name, count in Counter([*target, *one_hot, *ignore, *weights]).items():
        if name not in names:
            close = get_close_matches(name, names) or names[:20]
            raise InputError(f"{path} has no column {name!r}; closest: {', '.join(close)}")
        if count > 1:
            raise InputError(f"column {name!r} can be only one of target, one_hot, ignore, weight")
    features = tuple(name for name in names if name not in {*target, *ignore, *weights})
    return _Table(path, features, tuple(target), weights, tuple(one_hot), len(names))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError) as error:
        reason = str(error)
        if "straddling" in reason:
            reason = "a line is longer than 1 MiB or 64 bytes a column; is a quote left open?"
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


def _survey(
    source: _Table, report: Callable[[int], None], *, drop_missing: bool
) -> tuple[dict[str, list[str]], int, int]:
    """Return the levels, sorted, the count of rows, and of rows without missing values."""
    codes: dict[str, list[str]] = {name: [] for name in source.one_hot}
    levels: dict[str, set[str]] = {name: set() for name in source.one_hot}
    n_missing = np.zeros(len(source.used), np.int64)
    first_missing = np.full(len(source.used), -1)
    inexact: dict[str, None] = {}
    n_rows = n_complete = 0
    for batch in source.batches():
        for name in source.one_hot: 
            unseen...
        values = _values(source, batch, n_rows, levels)
        missing = np.isnan(values)
        first_missing = np.where(
            (n_missing == 0) & missing.any(axis=0), n_rows + missing.argmax(axis=0), first_missing
        )
        n_missing += missing.sum(axis=0)
        complete = ~missing.any(axis=1)
        ...
