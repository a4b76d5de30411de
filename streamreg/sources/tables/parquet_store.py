"""Parquet files: row groups are decoded a piece at a time, each piece once."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from streamreg.errors import InputError
from streamreg.formatting import KIB, MIB
from streamreg.sources.tables.files import FileSet, reading
from streamreg.sources.tables.store import Selection, Store, piece_height, spans

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Decoded pieces that wait for the thread that is to reduce them, of one reader. Threads reduce
# segments of some 32 MiB, so that is how far they are apart in a row group.
_WAITING_NBYTES = 32 * MIB
# of a column while it is decoded: a page of 1 MiB as stored and unpacked, and its dictionary
_COLUMN_NBYTES = 3 * MIB
# of metadata and of what pyarrow's memory pool keeps, measured
_LIBRARY_NBYTES = 16 * MIB


class _RowGroup(NamedTuple):
    file: int
    number: int


class ParquetStore(Store):
    """One Parquet file, or several with the same columns, in order."""

    def __init__(self, files: FileSet) -> None:
        self._files = files
        self.name = files.name
        self.bounds = bounds = [0]
        self._groups: list[_RowGroup] = []
        self._page_nbytes: dict[str, int] = {}
        schemas = []
        for number, path in enumerate(files.paths):
            with reading(str(path)):
                # the metadata of pandas and of Arrow types are in the schema
                with parquet.ParquetFile(path) as file:
                    metadata, schema = file.metadata, file.schema_arrow
            schemas.append(schema)
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                if rows:
                    bounds.append(bounds[-1] + rows)
                    self._groups.append(_RowGroup(number, group))
            self._note_sizes(metadata)
        self.schema = files.common_schema(schemas)
        self.own_columns = files.own_columns(schemas[0])

    def local_paths(self) -> list[Path]:
        return list(self._files.paths)

    def require_unchanged(self) -> None:
        self._files.require_unchanged()

    def select(self, columns: Sequence[str], piece_rows: int) -> Selection:
        return _ParquetSelection(self, columns, piece_rows)

    def selection_nbytes(self, columns: Sequence[str], piece_rows: int) -> tuple[int, int]:
        decoded = sum(self._page_nbytes.get(column, 2 * _COLUMN_NBYTES) for column in columns)
        row_nbytes = sum(_width(self.schema.field(name).type) for name in columns)
        waiting = max(1, _WAITING_NBYTES // (row_nbytes * piece_rows or 1)) + 1
        return waiting * row_nbytes * piece_rows, decoded + _LIBRARY_NBYTES

    def open_group(
        self, part: int, columns: Sequence[str], rows: int
    ) -> tuple[parquet.ParquetFile, Iterator[pa.RecordBatch]]:
        """Return the open file and the batches of a row group, of ``rows`` rows each."""
        group = self._groups[part]
        path = self._files.paths[group.file]
        # by default pyarrow buffers a row group, which may be the whole file
        file = parquet.ParquetFile(
            path, pre_buffer=False, buffer_size=64 * KIB, page_checksum_verification=True
        )
        stored = [name for name in columns if name not in self._files.partition_names]
        batches = file.iter_batches(rows, row_groups=[group.number], columns=stored)
        return file, batches

    def completed(self, part: int, batch: pa.RecordBatch, columns: Sequence[str]) -> pa.RecordBatch:
        """Return a batch with all ``columns``: those that the folder's name holds are added."""
        values = self._files.partition_values[self._groups[part].file]
        arrays = [
            pa.repeat(values[name], len(batch)) if name in values else batch.column(name)
            for name in columns
        ]
        return pa.RecordBatch.from_arrays(arrays, names=list(columns))

    def path_of(self, part: int) -> str:
        """Return the path of the file of a row group."""
        return str(self._files.paths[self._groups[part].file])

    def _note_sizes(self, metadata: Any) -> None:  # noqa: ANN401  (pyarrow has no types)
        """Keep, for each column, what its largest column chunk may take while it is decoded."""
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for number in range(row_group.num_columns):
                chunk = row_group.column(number)
                name = chunk.path_in_schema.partition(".")[0]
                nbytes = chunk.total_uncompressed_size + chunk.total_compressed_size
                known = self._page_nbytes.get(name, 0)
                self._page_nbytes[name] = max(known, min(nbytes, _COLUMN_NBYTES))


@dataclass
class _Scan:
    """The batches of a row group, in order; ``position`` is the number of the next one."""

    file: parquet.ParquetFile
    batches: Iterator[pa.RecordBatch]
    position: int = 0


@dataclass(eq=False)
class _ParquetSelection(Selection):
    """Threads take pieces of a row group in nearly the same order, so they share its decoder.

    A piece that one thread skips is kept for the thread that is to reduce it.
    """

    store: ParquetStore
    columns: Sequence[str]
    piece_rows: int
    scans: dict[int, _Scan] = field(default_factory=dict)  # by row group, the latest last
    waiting: dict[tuple[int, int], pa.RecordBatch] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        bounds = self.store.bounds
        for part, low, high in spans(bounds, start, stop):
            height = piece_height(bounds[part + 1] - bounds[part], self.piece_rows)
            for number in range(low // height, -(-high // height)):
                first = number * height
                batch = self._piece(part, number, height)
                begin, end = max(low - first, 0), min(high - first, len(batch))
                yield batch.slice(begin, end - begin)

    def close(self) -> None:
        with self.lock:
            for part in list(self.scans):
                self._end(part)
            self.waiting.clear()

    def _piece(self, part: int, number: int, height: int) -> pa.RecordBatch:
        with self.lock, reading(self.store.path_of(part)):
            batch = self.waiting.pop((part, number), None)
            if batch is None:
                scan = self._scan(part, number, height)
                while scan.position <= number:
                    batch = next(scan.batches, None)
                    if batch is None:
                        raise _ended(self.store.path_of(part))
                    if scan.position < number:
                        self._keep((part, scan.position), batch)
                    scan.position += 1
            return self.store.completed(part, batch, self.columns)

    def _scan(self, part: int, number: int, height: int) -> _Scan:
        """Return the scan of a row group, at a position that is not beyond a piece."""
        scan = self.scans.pop(part, None)
        if scan is not None and scan.position > number:
            scan.file.close()
            scan = None
        if scan is None:
            # the first that is left is the one that was used longest ago
            while len(self.scans) > _MOST_SCANS:
                self._end(next(iter(self.scans)))
            scan = _Scan(*self.store.open_group(part, self.columns, height))
        self.scans[part] = scan
        return scan

    def _keep(self, piece: tuple[int, int], batch: pa.RecordBatch) -> None:
        self.waiting[piece] = batch
        most = max(1, _WAITING_NBYTES // max(1, batch.nbytes))
        while len(self.waiting) > most:
            self.waiting.pop(next(iter(self.waiting)))

    def _end(self, part: int) -> None:
        self.scans.pop(part).file.close()


_MOST_SCANS = 2


def _ended(path: str) -> InputError:
    return InputError(f"{path} cannot be read: a row group has fewer rows than its metadata say")


def _width(kind: pa.DataType) -> int:
    """Bytes of a value; 32 of a text."""
    try:
        return max(1, kind.bit_width // 8)
    except ValueError:
        return 32
