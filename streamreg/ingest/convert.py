"""Write a table as a data set, in two streamed passes."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError, warn
from streamreg.formatting import MIB
from streamreg.ingest.table_request import TableRequest
from streamreg.output.chunk_writers import ChunkWriters
from streamreg.output.csr_writer import CsrWriter, GrowingArray
from streamreg.output.staging import require_writable
from streamreg.output.zarr_writer import RowAppender, create_array, new_group
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.sources.tables import table as tables
from streamreg.sources.tables.encode import Encoder
from streamreg.sources.tables.source import TableSource
from streamreg.sources.tables.survey import survey

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import zarr

    from streamreg.blocks import Float64
    from streamreg.sources.tables.libsvm import LibsvmText
    from streamreg.sources.tables.survey import Survey
    from streamreg.sources.tables.table import Table

_BLOCK_NBYTES = 2 * MIB


@dataclass(frozen=True)
class IngestReport:
    """The rows that were read and dropped, and the names and path of the data set."""

    rows_read: int
    rows_dropped: int
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    path: Path
    n_features: int
    left_out: tuple[str, ...] = ()  # columns that are no features, such as a frame's index


def ingest(
    table: Any,  # noqa: ANN401  (a path, or a frame)
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress = NO_PROGRESS,
    **parameters: Any,  # noqa: ANN401  (of read_table)
) -> IngestReport:
    """Write a table as a data set: X, y and sample_weight if any, with their schema.

    Other ``parameters`` are those of :func:`streamreg.read_table`. The first pass counts rows,
    missing values and levels, and parses a text file into a temporary file without a name, in the
    folder of ``out``; the second pass writes. y is (N,) for one ``target``, (N, K) for more; with
    ``like``, a table without the target becomes a data set without y, for predictions. X is sparse,
    CSR, where columns are hashed or have more than 1,000 levels, and where the table is libsvm
    text, which is read once.

    Memory: up to 250 MiB and 25 kB a column for a table of any length. pyarrow reads 32 blocks of
    1 MiB ahead of a CSV file; rows are converted 8 MiB and written 8 MiB at a time.

    An ``InputError`` says that the table is absent, empty or cannot be read, that ``out`` cannot be
    written, or which columns are unknown, have no name, or hold non-numbers, infinite or missing
    values, negative weights or more than 100,000 levels.
    """
    inputs = [table] if tables.is_path(table) else []
    require_writable(out, overwrite=overwrite, inputs=inputs)
    request = TableRequest.parse(**parameters)
    libsvm = request.libsvm_text(table)
    with closing(progress):
        progress.begin_pass(None)
        if libsvm is not None:
            return _write_libsvm(libsvm, out, progress, overwrite=overwrite)
        folder = Path(out).absolute().parent
        opened = request.open(table, surveys=True, folder=folder, on_rows=progress.rows)
        found = opened.found
        if request.schema is not None:
            found = _surveyed(opened, progress, drop_missing=request.drop_missing)
        if found is None:
            raise AssertionError("a table that is ingested was surveyed")
        if found.rounded:
            warn(
                f"{opened.name} has integers beyond 2**53 in {', '.join(found.rounded)}; as "
                "float64 they lose their last digits"
            )
        schema = opened.schema
        names = schema.feature_names
        attributes = {"target_names": list(schema.targets), "schema": schema.to_json()}
        if names is not None:
            attributes["feature_names"] = list(names)
        with new_group(out, attributes, overwrite=overwrite) as group:
            write = _write_sparse if schema.is_sparse else _write
            write(opened, found, group, progress)
    dropped = found.n_rows - found.n_complete
    return IngestReport(
        found.n_rows,
        dropped,
        names or (),
        schema.targets,
        Path(out),
        schema.n_columns,
        tuple(opened.left_out),
    )


def _write_libsvm(
    text: LibsvmText, out: str | os.PathLike[str], progress: Progress, *, overwrite: bool
) -> IngestReport:
    """Write libsvm text as sparse X and y, in one pass."""
    n_rows = 0
    with new_group(out, overwrite=overwrite) as group, ChunkWriters() as writers:
        rows = CsrWriter(group, "X", writers)
        y = GrowingArray(group, "y", np.float64, writers)
        for part, targets in text.rows(progress.rows):
            rows.append(*part)
            y.append(targets)
            n_rows += len(targets)
        rows.close(text.n_columns)
        y.close()
        schema = text.schema(text.n_columns)
        group.attrs.update({"target_names": list(schema.targets), "schema": schema.to_json()})
    return IngestReport(n_rows, 0, (), schema.targets, Path(out), schema.n_columns)


def _surveyed(table: Table, progress: Progress, *, drop_missing: bool) -> Survey:
    """Read a table of a known schema once, to count its rows."""
    schema = table.schema
    weights = () if schema.weight is None else (schema.weight,)
    # a text without words is a row without values
    features = [
        feature.name
        for feature in schema.features
        if feature.hashing is None or not feature.hashing.is_text
    ]
    return survey(
        table.store,
        [*features, *schema.targets, *weights],
        schema.one_hot,
        hashed=schema.hashed,
        weight=schema.weight,
        drop_missing=drop_missing or schema.drop_missing,
        requires_values=True,
        on_rows=progress.rows,
    )


def _write(table: Table, found: Survey, group: zarr.Group, progress: Progress) -> None:
    roles = ["X"]
    roles += ["y"] if table.schema.targets else []
    roles += [] if table.schema.weight is None else ["sample_weight"]
    sources = {role: TableSource(table, role) for role in roles}
    appenders = {
        role: RowAppender(create_array(group, role, (found.n_complete, *source.shape[1:])))
        for role, source in sources.items()
    }
    progress.begin_pass(found.n_rows)
    for rows in _blocks(sources):
        missing = np.zeros(len(rows["X"]), bool)
        for values in rows.values():
            missing |= np.isnan(values).reshape(len(values), -1).any(axis=1)
        for role, values in rows.items():
            appenders[role].append(values[~missing] if missing.any() else values)
        progress.rows(len(missing))
    for source in sources.values():
        source.require_unchanged()
    for appender in appenders.values():
        appender.close()


def _write_sparse(table: Table, found: Survey, group: zarr.Group, progress: Progress) -> None:
    """Write X as CSR, and y and weights beside it; rows with missing values are left out."""
    encoder = Encoder(table)
    roles = ["y"] if table.schema.targets else []
    roles += [] if table.schema.weight is None else ["sample_weight"]
    sources = {role: TableSource(table, role) for role in roles}
    appenders = {
        role: RowAppender(create_array(group, role, (found.n_complete, *source.shape[1:])))
        for role, source in sources.items()
    }
    progress.begin_pass(found.n_rows)
    start = n_written = 0
    with ExitStack() as stack:
        X = CsrWriter(group, "X", stack.enter_context(ChunkWriters()))
        readers = {
            role: stack.enter_context(closing(source.open())) for role, source in sources.items()
        }
        for part in encoder.parts():
            n = len(part.bounds) - 1
            others = {role: reader.read(start, start + n) for role, reader in readers.items()}
            missing = part.incomplete()
            for values in others.values():
                missing |= np.isnan(values).reshape(n, -1).any(axis=1)
            is_any = missing.any()
            X.append(*(part.taken(~missing) if is_any else part))
            for role, values in others.items():
                appenders[role].append(values[~missing] if is_any else values)
            start += n
            n_written += n - int(missing.sum())
            progress.rows(n)
        table.store.require_unchanged()
        if n_written != found.n_complete:
            raise InputError(f"{table.name} changed while it was read; ingest it again")
        X.close(table.schema.n_columns)
    for appender in appenders.values():
        appender.close()


def _blocks(sources: dict[str, TableSource]) -> Iterator[dict[str, Float64]]:
    """Yield the same rows of X, y and weights, a block at a time."""
    X = sources["X"]
    step = max(1, _BLOCK_NBYTES // X.row_nbytes)
    readers = {role: source.open() for role, source in sources.items()}
    try:
        for chunk in range(len(X.grid)):
            first, last = X.grid.rows(chunk)
            for start in range(first, last, step):
                stop = min(start + step, last)
                yield {role: reader.read(start, stop) for role, reader in readers.items()}
    finally:
        for reader in readers.values():
            reader.close()
    if not len(X.grid):
        raise InputError(f"{X.name} has no rows")
