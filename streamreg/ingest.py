"""CSV and Parquet → a data set, in two streamed passes."""

from __future__ import annotations

import csv
import io
import warnings
from bisect import bisect_left
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from streamreg.errors import DataWarning, InputError
from streamreg.memory import KIB, MIB
from streamreg.output import RowAppender, create_array, new_group, require_writable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import zarr

    from streamreg.blocks import Float64

_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet", ".pq")
_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>"]
_MAX_LEVELS, _MAX_NAMED = 1000, 20
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

    Memory: about 150 MiB and 25 kB a column, whatever the length of the table. Of CSV, pyarrow
    reads 32 blocks of 1 MiB ahead; rows and chunks being written come in pieces of 8 MiB.

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
    report = progress or (lambda rows: None)
    source = _open(Path(table), target, one_hot, ignore, weight)
    survey = _survey(source, report, drop_missing=drop_missing)
    if survey.inexact:
        warnings.warn(
            f"{table} has integers beyond 2**53 in {', '.join(survey.inexact)}; "
            "as float64 they lose their last digits",
            DataWarning,
            stacklevel=2,
        )
    features = [label for name in source.features for label in survey.labels(name)]
    if not features:
        raise InputError(f"{table} has no column left for X; ignore fewer of them")
    with new_group(out, overwrite=overwrite, inputs=[table]) as group:
        group.attrs.update(feature_names=features, target_names=list(source.targets))
        _write(source, survey, group, len(features), report)
    dropped = survey.n_rows - survey.n_complete
    return IngestReport(survey.n_rows, dropped, tuple(features), source.targets, Path(out))


@dataclass(frozen=True)
class _Table:
    """A file, and what its columns are for."""

    path: Path
    features: tuple[str, ...]
    targets: tuple[str, ...]
    weight: tuple[str, ...]  # one name or none
    one_hot: tuple[str, ...]
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
        """Yield the rows of the columns that are used, those of CSV as text."""
        with _reading(self.path):
            if self.is_csv:
                options = arrow_csv.ConvertOptions(
                    include_columns=self.used,
                    column_types=dict.fromkeys(self.used, pa.string()),
                    null_values=_MISSING,
                    strings_can_be_null=True,
                )
                nbytes = max(_BLOCK_NBYTES, _BLOCK_NBYTES_A_COLUMN * self.n_columns)
                # more threads cannot tell which row it was that they did not understand
                blocks = arrow_csv.ReadOptions(block_size=nbytes, use_threads=False)
                quoting = arrow_csv.ParseOptions(newlines_in_values=True)
                yield from arrow_csv.open_csv(self.path, blocks, quoting, options)
                return
            # by default pyarrow holds a whole row group, which may be the whole file
            with parquet.ParquetFile(self.path, pre_buffer=False, buffer_size=64 * KIB) as file:
                n_rows = max(1, _BATCH_NBYTES // (8 * len(self.used)))
                yield from file.iter_batches(n_rows, columns=self.used, use_threads=False)


class _Survey(NamedTuple):
    """What the first pass learns."""

    n_rows: int
    n_complete: int
    levels: dict[str, list[str]]
    inexact: list[str]

    def labels(self, name: str) -> list[str]:
        levels = self.levels.get(name)
        return [name] if levels is None else [f"{name}={level}" for level in levels[1:]]


class _NotNumbersError(Exception):
    """Carries the row and the value of the first that is not a number."""


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
    if not names:
        raise InputError(f"{path} is empty; its first line must name the columns")
    if not target:
        raise InputError(f"target names no column of {path}; name what is to be explained")
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path} has {count} columns named {name!r}; rename all but one")
    weights = () if weight is None else (weight,)
    for name, count in Counter([*target, *one_hot, *ignore, *weights]).items():
        if name not in names:
            close = get_close_matches(name, names) or names[:_MAX_NAMED]
            raise InputError(f"{path} has no column {name!r}; closest: {', '.join(close)}")
        if count > 1:
            raise InputError(f"column {name!r} can be only one of target, one_hot, ignore, weight")
    apart = {*target, *ignore, *weights}
    features = tuple(name for name in names if name not in apart)
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
        pa.input_stream(str(path)) as stream,
        io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text,
    ):
        return next((row for row in csv.reader(text) if row), [])


def _survey(source: _Table, report: Callable[[int], None], *, drop_missing: bool) -> _Survey:
    names = source.used
    codes: dict[str, dict[str, None]] = {name: {} for name in source.one_hot}
    kept: dict[str, set[int]] = {name: set() for name in source.one_hot}
    n_missing = np.zeros(len(names), np.int64)
    first_missing = np.zeros(len(names), np.int64)
    inexact: set[str] = set()
    n_rows = n_complete = 0
    for batch in source.batches():
        for name in source.one_hot:
            codes[name].update(dict.fromkeys(pc.unique(_text(batch[name])).drop_null().to_pylist()))
            if len(codes[name]) > _MAX_LEVELS:
                raise InputError(
                    f"column {name} of {source.path} has more than {_MAX_LEVELS:,} levels "
                    f"in its first {n_rows + len(batch):,} rows; leave it out with ignore "
                    f"(--ignore {name}), or group its levels"
                )
        values = _values(source, batch, codes, n_rows)
        missing = np.isnan(values)
        fresh = (n_missing == 0) & missing.any(axis=0)
        first_missing[fresh] = n_rows + missing.argmax(axis=0)[fresh]
        n_missing += missing.sum(axis=0)
        complete = ~missing.any(axis=1)
        for at, name in enumerate(names):
            if name in kept:
                kept[name].update(np.unique(values[complete, at]).astype(int).tolist())
            elif _loses_digits(batch[name], values[:, at]):
                inexact.add(name)
        n_rows += len(batch)
        n_complete += int(complete.sum())
        report(n_rows)
    if n_rows == 0:
        raise InputError(f"{source.path} has no rows below its header")
    if n_missing.any() and not drop_missing or not n_complete:
        found = [f"{names[at]} in {n_missing[at]:,} (first in {source.place(first_missing[at])})" for at in np.flatnonzero(n_missing)]
        more = f" and {len(found) - _MAX_NAMED:,} more columns" if len(found) > _MAX_NAMED else ""
        raise InputError(...)
    levels = {name: _sorted(list(codes[name])[code] for code in kept[name]) for name in codes}
    return _Survey(n_rows, n_complete, levels, inexact)


def _values(source, batch, codes, start) -> Float64:
    """Return (n, columns): numbers, or the place of a text among the levels; NaN where missing."""
    values = np.empty((len(batch), len(source.used)))
    refused = []
    for at, name in enumerate(source.used):
        column = batch[name]
        try:
            if name in codes:
                numbers = pc.index_in(_text(column), value_set=pa.array(list(codes[name]), pa.string()))
            else:
                numbers = _parse(column) if source.is_csv else _widen(column)
            values[:, at] = numbers.to_numpy(zero_copy_only=False)
        except _NotNumbersError as error:
            row, value = error.args
            refused.append(f"{name} ({str(value)[:40]!r} in {source.place(start + row)})")
    if refused:
        raise InputError(
            f"{source.path} has columns that are not numbers: {', '.join(refused)}. A target or "
            "weight must be; of others make levels with one_hot (--one-hot COLUMN), or leave "
            "them out with ignore (--ignore COLUMN)"
        )
    return values


def _text(column: pa.Array) -> pa.Array:
    missing = pc.is_null(column, nan_is_null=True)
    return pc.if_else(missing, pa.scalar(None, pa.string()), column.cast(pa.string()))


def _widen(column: pa.Array) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if any(is_number(kind) for is_number in _NUMBER_TYPES):
        return column.cast(pa.float64(), safe=False)
    if column.null_count < len(column):
        row = column.is_valid().index(True).as_py()
        raise _NotNumbersError(row, column[row])
    return pa.nulls(len(column), pa.float64())


def _parse(text: pa.Array) -> pa.Array:
    with suppress(pa.ArrowInvalid):
        return text.cast(pa.float64())
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    ...


def _loses_digits(column, numbers) -> bool:
    large = np.abs(numbers) >= _EXACT_INTEGERS
    if not large.any(): return False
    ...
