"""Arrow's own files (IPC, Feather), whose batches are read one at a time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import ipc

from streamreg.formatting import MIB
from streamreg.sources.tables.reading import reading
from streamreg.sources.tables.store import Selection, Store, spans, width

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from streamreg.sources.tables.file_set import FileSet

_LIBRARY_NBYTES = 4 * MIB
_MOST_OPEN = 8


class ArrowStore(Store):
    """One Arrow file, or several with the same columns, in order.

    ``vocabularies`` holds the texts of columns that are stored as codes.
    """

    def __init__(
        self, files: FileSet, vocabularies: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.files = files
        self.name = files.name
        self.bounds = bounds = [0]
        self.batches: list[tuple[int, int]] = []
        self.vocabularies = {
            name: pa.array(list(texts), pa.string()) for name, texts in (vocabularies or {}).items()
        }
        schemas = []
        for number, path in enumerate(files.paths):
            with reading(files.name), pa.OSFile(str(path)) as source, ipc.open_file(source) as file:
                schemas.append(file.schema)
                for batch in range(file.num_record_batches):
                    # without columns a batch is its metadata, and tells the number of rows
                    rows = _n_rows(source, batch)
                    if rows:
                        bounds.append(bounds[-1] + rows)
                        self.batches.append((number, batch))
        self.schema = files.common_schema(schemas)
        self.own_columns = files.own_columns(schemas[0])

    def local_paths(self) -> list[Path]:
        return list(self.files.paths)

    def require_unchanged(self) -> None:
        self.files.require_unchanged()

    def select(self, columns: Sequence[str], piece_rows: int) -> Selection:  # noqa: ARG002
        return _ArrowSelection(self, columns)

    def selection_nbytes(self, columns: Sequence[str], piece_rows: int) -> tuple[int, int]:  # noqa: ARG002
        rows = max((b - a for a, b in zip(self.bounds, self.bounds[1:], strict=False)), default=0)
        # a batch is decoded whole; one that is compressed is also held as stored
        return 2 * rows * sum(width(self.schema.field(name).type) for name in columns), (
            _LIBRARY_NBYTES
        )


@dataclass(eq=False)
class _ArrowSelection(Selection):
    store: ArrowStore
    columns: Sequence[str]
    opened: dict[int, Any] = field(default_factory=dict)  # readers by the number of their file
    last: tuple[int, pa.RecordBatch] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        for part, low, high in spans(self.store.bounds, start, stop):
            yield self._batch(part).slice(low, high - low)

    def close(self) -> None:
        with self.lock:
            self.opened.clear()
            self.last = None

    def _batch(self, part: int) -> pa.RecordBatch:
        last = self.last
        if last is not None and last[0] == part:
            return last[1]
        file, number = self.store.batches[part]
        with reading(self.store.name), self.lock:
            if file not in self.opened:
                while len(self.opened) >= _MOST_OPEN:
                    self.opened.pop(next(iter(self.opened)))
                self.store.files.require_unchanged(file)
                self.opened[file] = _open(self.store.files.paths[file], self.columns)
            batch = self.opened[file].get_batch(number)
        batch = self._completed(file, batch)
        self.last = part, batch
        return batch

    def _completed(self, file: int, batch: pa.RecordBatch) -> pa.RecordBatch:
        texts, fixed = self.store.vocabularies, self.store.files.partition_values[file]
        arrays = [
            pa.DictionaryArray.from_arrays(batch.column(name), texts[name])
            if name in texts
            else pa.repeat(fixed[name], len(batch))
            if name in fixed
            else batch.column(name)
            for name in self.columns
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(self.columns))


def _open(path: Path, columns: Sequence[str]) -> Any:  # noqa: ANN401  (pyarrow has no types)
    source = pa.OSFile(str(path))
    names = ipc.open_file(source).schema.names
    wanted = [names.index(name) for name in columns if name in names]
    # an empty list would select all columns
    return ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=wanted or [0]))


def _n_rows(source: pa.NativeFile, batch: int) -> int:
    options = ipc.IpcReadOptions(included_fields=[0])
    return int(ipc.open_file(source, options=options).get_batch(batch).num_rows)
