"""Predictions as a table, Parquet or CSV, that appears on disk whole or not at all."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from streamreg.errors import InputError, Remedy
from streamreg.output.atomic import atomic_write, require_folder
from streamreg.output.staging import require_apart

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from streamreg.blocks import Float64

ENDINGS = (".parquet", ".pq", ".csv")


def require_writable_file(
    path: Path, *, overwrite: bool, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """Return the path of a file that can be written; it must not be one of the ``inputs``."""
    require_apart(path, path, inputs)
    require_folder(path, f"output {path}")
    if path.exists() and not path.is_file():
        raise InputError(f"output {path} is not a file, so it is kept; choose another name")
    if path.exists() and not overwrite:
        raise InputError(
            f"output {path} exists; pass ", Remedy("overwrite", value=True), " to replace it"
        )
    return path


class TableWriter:
    """Writes columns of float64, some rows at a time."""

    def __init__(self, writer: Any, names: Sequence[str]) -> None:  # noqa: ANN401
        self._writer = writer
        self._names = list(names)

    def append(self, rows: Float64) -> None:
        """Add rows (n, K)."""
        import pyarrow as pa  # noqa: PLC0415  (imported only to write tables)

        columns = [pa.array(rows[:, at]) for at in range(rows.shape[1])]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, names=self._names))


@contextmanager
def new_table(path: Path, names: Sequence[str]) -> Iterator[TableWriter]:
    """Yield a writer of a file that is renamed to ``path`` when the ``with`` block succeeds."""
    import pyarrow as pa  # noqa: PLC0415  (imported only to write tables)
    from pyarrow import csv, parquet  # noqa: PLC0415

    schema = pa.schema([(name, pa.float64()) for name in names])
    kind = csv.CSVWriter if path.suffix.lower() == ".csv" else parquet.ParquetWriter
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with atomic_write(partial, path) as file, kind(file, schema) as writer:
            yield TableWriter(writer, names)
    except OSError as error:
        if isinstance(error, InputError) or not error.strerror:
            raise
        raise InputError(f"output {path} cannot be written: {error.strerror}") from error
