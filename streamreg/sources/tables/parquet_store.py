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
from streamreg.sources.tables.store import Selection, Store, piece_height, spans, width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# Decoded pieces that wait for the thread that is to reduce them, for each reader. Threads reduce
# segments of some 32 MiB, so that is how far two of them are apart in a row group.
_WAITING_NBYTES = 16 * MIB
# of a column while it is decoded: a page of 1 MiB as stored and unpacked, and its dictionary
_COLUMN_NBYTES = 3 * MIB
# of metadata and of what pyarrow's memory pool keeps, measured
_LIBRARY_NBYTES = 16 * MIB


class _RowGroup(NamedTuple):
    file: int
    number: int


class ParquetStore(Store):
    """One Parquet file, or several with the same columns, in order."""

    advice_for_many_passes = (
        "each pass decodes the table again: `streamreg ingest` it first, and passes are faster"
    )

    def __init__(self, files: FileSet) -> None:
        self._files = files
        self.name = files.name
        self.bounds = bounds = [0]
        self._groups: list[_RowGroup] = []
        self._page_nbytes: dict[str, int] = {}
        schemas = []
        for number, path in enumerate(files.paths):
            # the metadata of pandas and of Arrow types are in the schema
            with reading(str(path)), parquet.ParquetFile(path) as file:
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
        row_nbytes = sum(width(self.schema.field(name).type) for name in columns)
        return _WAITING_NBYTES + row_nbytes * piece_rows, decoded + _LIBRARY_NBYTES

    def open_group(
        self, part: int, columns: Sequence[str], rows: int
    ) -> tuple[parquet.ParquetFile, Iterator[pa.RecordBatch]]:
        """Return the open file and the batches of a row group, of ``rows`` rows each."""
        group = self._groups[part]
        path = self._files.paths[group.file]
        # another file may have other rows than those that are expected
        self._files.require_unchanged(group.file)
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
        if not values:
            return batch
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


@dataclass(eq=False)
class _Scan:
    """The batches of a row group, in order; ``position`` is the number of the next one."""

    part: int
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
    scans: list[_Scan] = field(default_factory=list)  # the one that was used last is the last
    n_readers: int = 0
    waiting: dict[tuple[int, int], pa.RecordBatch] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        bounds = self.store.bounds
        for part, low, high in spans(bounds, start, stop):
            n_rows = bounds[part + 1] - bounds[part]
            height = piece_height(n_rows, self.piece_rows)
            for number in range(low // height, -(-high // height)):
                first = number * height
                batch = self._piece(part, number, height, -(-n_rows // height))
                begin, end = max(low - first, 0), min(high - first, len(batch))
                yield batch.slice(begin, end - begin)

    def close(self) -> None:
        with self.lock:
            for scan in list(self.scans):
                self._end(scan)
            self.waiting.clear()

    def _piece(self, part: int, number: int, height: int, n_pieces: int) -> pa.RecordBatch:
        path = self.store.path_of(part)
        with self.lock, reading(path):
            batch = self.waiting.pop((part, number), None)
            if batch is None:
                scan = self._scan(part, number, height)
                skipped = number - scan.position
                while scan.position <= number:
                    batch = next(scan.batches, None)
                    if batch is None:
                        raise _ended(path)
                    if scan.position < number:
                        self._keep((part, scan.position), batch, skipped)
                    scan.position += 1
                if scan.position == n_pieces:
                    self._end(scan)
            return self.store.completed(part, batch, self.columns)

    def _scan(self, part: int, number: int, height: int) -> _Scan:
        """Return the scan of a row group that is nearest before a piece, or a new one."""
        scans = [scan for scan in self.scans if scan.part == part and scan.position <= number]
        scan = max(scans, key=lambda each: each.position, default=None)
        if scan is None:
            while len(self.scans) > max(1, self.n_readers):
                self._end(self.scans[0])
            scan = _Scan(part, *self.store.open_group(part, self.columns, height))
        else:
            self.scans.remove(scan)
        self.scans.append(scan)
        return scan

    def _keep(self, piece: tuple[int, int], batch: pa.RecordBatch, skipped: int) -> None:
        """Keep a piece that is skipped, unless it would push out another that is still needed."""
        most = self.n_readers * _WAITING_NBYTES // max(1, batch.nbytes)
        if skipped > most:
            return
        self.waiting[piece] = batch
        while len(self.waiting) > most:
            self.waiting.pop(next(iter(self.waiting)))

    def _end(self, scan: _Scan) -> None:
        self.scans.remove(scan)
        scan.file.close()


def _ended(path: str) -> InputError:
    return InputError(f"{path} cannot be read: a row group has fewer rows than its metadata say")
