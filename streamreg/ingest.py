"""CSV and Parquet → a data set, in two streamed passes."""

from __future__ import annotations

import csv
import io
import re
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
from pyarrow.types import is_boolean, is_decimal, is_dictionary, is_floating, is_integer

from streamreg.errors import DataWarning, InputError
from streamreg.memory import KIB, MIB
from streamreg.output import RowAppender, create_array, new_group, require_writable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import zarr

    from streamreg.blocks import Array, Float64

_CSV, _PARQUET = (".csv", ".csv.gz"), (".parquet", ".pq")
_MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "<NA>"]
_MAX_LEVELS, _MAX_NAMED = 1000, 20
_NUMBERS = (is_integer, is_floating, is_decimal, is_boolean)
_INTEGER = re.compile(r"\s*[+-]?\d+\s*")
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
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f"{path} has {count} columns named {name!r}; rename all but one")
    if not target:
        raise InputError(f"target names no column of {path}; name what is to be explained")
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
    levels: dict[str, set[str]] = {name: set() for name in source.one_hot}
    gaps: dict[str, list[int]] = {}  # by column: rows without a value, and the first of them
    inexact: set[str] = set()
    n_rows = n_complete = 0
    for batch in source.batches():
        values = _values(source, batch, {}, start=n_rows)
        missing = np.isnan(values)
        complete = ~missing.any(axis=1)
        for at, name in enumerate(source.used):
            if missing[:, at].any():
                gap = gaps.setdefault(name, [0, n_rows + int(missing[:, at].argmax())])
                gap[0] += int(missing[:, at].sum())
            if name in levels:
                texts = _text(batch[name]).filter(pa.array(complete))
                levels[name].update(texts.unique().to_pylist())
            elif _loses_digits(batch[name], values[:, at]):
                inexact.add(name)
        n_rows += len(batch)
        n_complete += int(complete.sum())
        report(n_rows)
        for name, found in levels.items():
            if len(found) > _MAX_LEVELS:
                raise InputError(
                    f"column {name} of {source.path} has more than {_MAX_LEVELS:,} levels in "
                    f"{n_rows:,} rows; group them, or leave it out with ignore (--ignore {name})"
                )
    if n_rows == 0:
        raise InputError(f"{source.path} has no rows")
    if gaps and not (drop_missing and n_complete):
        lacks = [f"{name} {n:,} (first in {source.place(row)})" for name, (n, row) in gaps.items()]
        raise InputError(
            f"{source.path} lacks values in {n_rows - n_complete:,} of {n_rows:,} rows: "
            f"{', '.join(lacks[:_MAX_NAMED])}; leave such rows out with drop_missing=True "
            "(--drop-missing), or emptier columns with ignore (--ignore COLUMN)"
        )
    ordered = {name: _sorted_levels(found) for name, found in levels.items()}
    return _Survey(n_rows, n_complete, ordered, sorted(inexact))


def _write(
    source: _Table,
    survey: _Survey,
    group: zarr.Group,
    n_features: int,
    report: Callable[[int], None],
) -> None:
    n_rows, width = survey.n_complete, () if len(source.targets) == 1 else (len(source.targets),)
    X = RowAppender(create_array(group, "X", (n_rows, n_features)))
    y = RowAppender(create_array(group, "y", (n_rows, *width)))
    weights = [RowAppender(create_array(group, "sample_weight", (n_rows,))) for _ in source.weight]
    first, last = len(source.features), len(source.features) + len(source.targets)
    step = max(1, _BATCH_NBYTES // (8 * n_features))
    done = 0
    for batch in source.batches():
        values = _values(source, batch, survey.levels, start=done)
        values = values[~np.isnan(values).any(axis=1)]
        for start in range(0, len(values), step):
            rows = values[start : start + step]
            X.append(_expand(rows, [survey.levels.get(name) for name in source.features]))
            y.append(rows[:, first:last].reshape(-1, *width))
            for weight in weights:
                weight.append(rows[:, last])
        done += len(batch)
        report(survey.n_rows + done)
    for appender in (X, y, *weights):
        appender.close()


def _expand(rows: Float64, levels: list[list[str] | None]) -> Array:
    """Return X: numbers as they are, and places among levels as zeros and ones."""
    return np.hstack(
        [
            rows[:, [at]] if known is None else rows[:, [at]] == np.arange(1, len(known))
            for at, known in enumerate(levels)
        ]
    )


def _values(
    source: _Table, batch: pa.RecordBatch, levels: Mapping[str, list[str]], *, start: int
) -> Float64:
    """Return (n, columns): numbers; of texts, their places among the levels; NaN where missing."""
    values = np.empty((len(batch), len(source.used)), order="F")
    refused = []
    for at, name in enumerate(source.used):
        column = batch[name]
        try:
            if name in levels:
                known = pa.array(levels[name], pa.string())
                numbers = pc.index_in(_text(column), value_set=known)
            elif name in source.one_hot:
                numbers = pc.if_else(_text(column).is_valid(), 0.0, None)
            else:
                numbers = _parse(column) if source.is_csv else _widen(column)
        except _NotNumbersError as error:
            row, value = error.args
            refused.append(f"{name} ({str(value)[:40]!r} in {source.place(start + row)})")
        else:
            values[:, at] = numbers.to_numpy(zero_copy_only=False)
    if refused:
        raise InputError(
            f"{source.path} has columns that are not numbers: {', '.join(refused)}. Target and "
            "weight must be; of others make levels with one_hot (--one-hot COLUMN), or leave "
            "them out with ignore (--ignore COLUMN)"
        )
    return values


def _text(column: pa.Array) -> pa.Array:
    missing = pc.is_null(column, nan_is_null=True)
    return pc.if_else(missing, pa.scalar(None, pa.string()), column.cast(pa.string()))


def _widen(column: pa.Array) -> pa.Array:
    kind = column.type.value_type if is_dictionary(column.type) else column.type
    if any(is_kind(kind) for is_kind in _NUMBERS):
        return column.cast(pa.float64(), safe=False)
    if column.null_count == len(column):
        return pa.nulls(len(column), pa.float64())
    row = column.is_valid().index(True).as_py()
    raise _NotNumbersError(row, column[row])


def _parse(text: pa.Array) -> pa.Array:
    """Return the numbers that texts spell, spaces around them or not; true is 1 and false is 0."""
    numbers = _cast(text)
    if numbers is not None:
        return numbers
    words = pc.utf8_lower(pc.utf8_trim_whitespace(text))
    absent = pc.is_in(words, value_set=pa.array([name.lower() for name in _MISSING]))
    words = pc.if_else(absent, pa.scalar(None, pa.string()), words)
    for word, number in (("true", "1"), ("false", "0")):
        words = pc.if_else(pc.equal(words, word), number, words)
    numbers = _cast(words)
    if numbers is None:
        row = bisect_left(range(1, len(words)), x=True, key=lambda n: _cast(words[:n]) is None)
        raise _NotNumbersError(row, text[row])
    return numbers


def _cast(text: pa.Array) -> pa.Array | None:
    try:
        return text.cast(pa.float64())
    except pa.ArrowInvalid:
        return None


def _loses_digits(column: pa.Array, numbers: Float64) -> bool:
    """Whether a column has integers that float64 cannot all tell apart."""
    large = np.abs(numbers) >= _EXACT_INTEGERS
    if not large.any() or is_floating(column.type):
        return False
    texts = (str(value) for value in column.filter(pa.array(large)).to_pylist())
    return any(abs(int(text)) > _EXACT_INTEGERS for text in texts if _INTEGER.fullmatch(text))


def _sorted_levels(levels: set[str]) -> list[str]:
    """Return texts in the order of their letters, or of their size if all are numbers."""
    ordered = sorted(levels)
    with suppress(ValueError):
        ordered.sort(key=float)
    return ordered
