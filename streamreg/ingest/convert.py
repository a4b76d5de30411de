"""Write a CSV or Parquet file as a data set, in two streamed passes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from streamreg.errors import InputError, Message, Remedy, warn
from streamreg.formatting import count
from streamreg.ingest.levels import feature_names, in_order, require_few
from streamreg.ingest.table import BATCH_NBYTES, IGNORE_COLUMN, MAX_NAMED, Table, open_table
from streamreg.ingest.values import loses_digits
from streamreg.output.staging import require_writable
from streamreg.output.zarr_writer import RowAppender, create_array, new_group
from streamreg.progress import NO_PROGRESS, Progress

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import zarr


@dataclass(frozen=True)
class IngestReport:
    """The rows that were read and dropped, and the names and path of the data set."""

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
    progress: Progress = NO_PROGRESS,
) -> IngestReport:
    """Write a table (.csv, .csv.gz, .parquet, .pq) as a data set: X, y and sample_weight if any.

    The first pass counts rows, missing values and levels; the second pass writes. Numbers become
    float64, true 1 and false 0. A column named in ``one_hot`` becomes a column of zeros and ones
    for each of its levels but the first in sorted order, because all of them would add up to the
    intercept. Nulls and NaN are missing values, and in CSV the texts NA, N/A, NaN, null, <NA> and
    the empty text. No type is guessed from the first rows of a CSV file: every value is checked.

    y is (N,) for one ``target``, (N, K) for more. ``drop_missing`` leaves out rows with a missing
    value in a column that is used. ``progress`` shows both passes; the number of rows is known in
    the second only.

    Memory: up to 250 MiB and 25 kB a column for a table of any length. pyarrow reads 32 blocks of
    1 MiB ahead of a CSV file; rows are converted 2 MiB and written 8 MiB at a time.

    An ``InputError`` says that the table is absent, empty or cannot be read, that ``out`` cannot be
    written, or which columns are unknown, have no name, or hold non-numbers, infinite or missing
    values, negative weights or more than 1,000 levels.
    """
    require_writable(out, overwrite=overwrite, inputs=[table])
    source = open_table(Path(table), target=target, one_hot=one_hot, ignore=ignore, weight=weight)
    with closing(progress):
        survey = _survey(source, progress, drop_missing=drop_missing)
        features = feature_names(source, survey.levels)
        if survey.inexact:
            warn(
                f"{source.path} has integers beyond 2**53 in {', '.join(survey.inexact)}; as "
                "float64 they lose their last digits"
            )
        for name, levels in survey.levels.items():
            if len(levels) == 1:
                warn(
                    f"column {name} of {source.path} has one level only, {levels[0]!r}, and gives "
                    "no column of X"
                )
        names = {"feature_names": features, "target_names": list(source.targets)}
        with new_group(out, names, overwrite=overwrite) as group:
            _write(source, survey, group, len(features), progress)
    dropped = survey.n_rows - survey.n_complete
    return IngestReport(survey.n_rows, dropped, tuple(features), source.targets, Path(out))


class _Survey(NamedTuple):
    """The result of the first pass."""

    n_rows: int
    n_complete: int
    levels: dict[str, list[str]]
    inexact: list[str]


def _survey(source: Table, progress: Progress, *, drop_missing: bool) -> _Survey:
    levels: dict[str, set[str]] = {name: set() for name in source.one_hot}
    n_missing, first_missing = np.zeros((2, len(source.used)), dtype=int)  # of each column
    inexact: set[str] = set()
    n_rows = n_complete = 0
    progress.begin_pass(None)
    for batch in source.batches():
        values = source.values(batch, {}, start=n_rows)
        missing = np.isnan(values)
        complete = ~missing.any(axis=1)
        new = (n_missing == 0) & missing.any(axis=0)
        first_missing[new] = n_rows + missing[:, new].argmax(axis=0)
        n_missing += missing.sum(axis=0)
        for at, name in enumerate(source.used):
            if name in levels:
                texts = source.texts(batch, name).filter(pa.array(complete))
                levels[name].update(texts.unique().to_pylist())
            elif loses_digits(batch[name], values[:, at]):
                inexact.add(name)
        n_rows += len(batch)
        n_complete += int(complete.sum())
        require_few(levels, source, n_rows)
        progress.rows(len(batch))
    if n_rows == 0:
        raise InputError(f"{source.path} has no rows")
    n_gaps = int(np.count_nonzero(n_missing))
    if n_gaps and not (drop_missing and n_complete):
        # columns with the most missing values first
        order = np.argsort(-n_missing, kind="stable")[: min(MAX_NAMED, n_gaps)]
        lacks = {
            source.used[at]: (f"{n_missing[at]:,}, first", int(first_missing[at])) for at in order
        }
        cure = "No row would be left: leave out the columns that lack most values"
        if n_complete:
            rows = Remedy("drop_missing", value=True)
            cure = Message("Leave such rows out with ", rows, ", or such columns")
        raise InputError(
            f"{source.path} lacks values in {n_rows - n_complete:,} of {count(n_rows, 'row')} and "
            f"{count(n_gaps, 'column')}: {source.places(lacks)}. ",
            cure,
            " with ",
            IGNORE_COLUMN,
        )
    ordered = {name: in_order(found) for name, found in levels.items()}
    return _Survey(n_rows, n_complete, ordered, sorted(inexact))


def _write(
    source: Table, survey: _Survey, group: zarr.Group, n_features: int, progress: Progress
) -> None:
    width = () if len(source.targets) == 1 else (len(source.targets),)
    row_shapes = {"X": (n_features,), "y": width}
    if source.weight:
        row_shapes["sample_weight"] = ()
    appenders = {
        name: RowAppender(create_array(group, name, (survey.n_complete, *shape)))
        for name, shape in row_shapes.items()
    }
    codes = {name: np.arange(1, len(levels)) for name, levels in survey.levels.items()}
    first, last = len(source.features), len(source.features) + len(source.targets)
    # up to 1,000 levels make a row 1,000 times wider
    step = max(1, BATCH_NBYTES // (8 * n_features))
    done = 0
    progress.begin_pass(survey.n_rows)
    for batch in source.batches():
        values = source.values(batch, survey.levels, start=done)
        values = values[~np.isnan(values).any(axis=1)]
        for start in range(0, len(values), step):
            rows = values[start : start + step]
            X = [
                rows[:, [at]] == codes[name] if name in codes else rows[:, [at]]
                for at, name in enumerate(source.features)
            ]
            appenders["X"].append(np.hstack(X))
            appenders["y"].append(rows[:, first:last].reshape(-1, *width))
            if source.weight:
                appenders["sample_weight"].append(rows[:, last])
        done += len(batch)
        progress.rows(len(batch))
    for appender in appenders.values():
        appender.close()
