"""Parquet files: row groups are decoded a piece at a time, each piece once."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
from pyarrow import parquet, types

from streamreg.errors import InputError
from streamreg.formatting import KIB, MIB
from streamreg.sources.tables.parquet_pages import PageSizes, page_sizes
from streamreg.sources.tables.reading import reading
from streamreg.sources.tables.store import Selection, Store, piece_height, spans, width

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from streamreg.sources.tables.file_set import FileSet

# Decoded pieces that wait for the thread that is to reduce them, for each reader but one. Threads
# reduce segments of some 32 MiB, so that is how far two of them are apart in a row group.
_WAITING_PIECES = 5
# sets of columns, which threads decode at the same time, and columns of a set
_MOST_SETS, _LEAST_COLUMNS = 8, 16
# of the file, of each column that is decoded
_BUFFER_NBYTES = 64 * KIB
# Pages as stored are freed one by one. Of those larger than pyarrow makes them by default, mimalloc
# keeps up to half, as measured with pages of 1.2 MB, and nothing with those of 1 MiB.
_DEFAULT_PAGE_NBYTES = 9 * MIB // 8
_STORED_KEPT = (2, 3)
# of metadata and of what pyarrow's memory pool keeps, measured; less if there are few columns
_LIBRARY_NBYTES, _LIBRARY_NBYTES_A_COLUMN = 16 * MIB, MIB


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
        # of each column, the largest column chunk: its bytes, file, row group and number
        self._largest: dict[str, tuple[int, int, int, int]] = {}
        self._page_sizes: dict[str, PageSizes] = {}
        self._opened: tuple[int, Any] | None = None  # the metadata of the file that was read last
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
            self._note_sizes(number, metadata)
        self.schema = files.common_schema(schemas)
        self.own_columns = files.own_columns(schemas[0])

    def local_paths(self) -> list[Path]:
        return list(self._files.paths)

    def require_unchanged(self) -> None:
        self._files.require_unchanged()

    def select(self, columns: Sequence[str], piece_rows: int) -> Selection:
        return _ParquetSelection(self, columns, piece_rows)

    def selection_nbytes(self, columns: Sequence[str], piece_rows: int) -> tuple[int, int]:
        row_nbytes = self._row_nbytes(columns)
        decoder, column, stored = self._decoder_nbytes(columns)
        library = min(_LIBRARY_NBYTES, _LIBRARY_NBYTES_A_COLUMN * (2 + len(columns)))
        most = max((b - a for a, b in pairwise(self.bounds)), default=0)
        if most <= self.most_whole_rows(columns):
            # each reader may hold a row group, and decode a column of another one
            kept = _kept(row_nbytes * most) + stored * _STORED_KEPT[0] // _STORED_KEPT[1]
            return kept + 2 * column, library // 2
        # for each reader there is either a decoder, or pieces that wait
        waiting = min(_WAITING_PIECES, self.n_rows // piece_rows) * row_nbytes * piece_rows
        return row_nbytes * piece_rows + max(decoder, waiting), library

    def most_whole_rows(self, columns: Sequence[str]) -> int:
        """Return the rows of a row group that takes no more memory than what decodes its columns.

        It is read whole, a column at a time.
        """
        return self._decoder_nbytes(columns)[0] // self._row_nbytes(columns)

    def _row_nbytes(self, columns: Sequence[str]) -> int:
        return sum(width(self.schema.field(name).type) for name in columns)

    @cached_property
    def stored_names(self) -> frozenset[str]:
        """The columns that files hold; the names of folders tell the others."""
        return frozenset(self.schema.names) - {*self._files.partition_names}

    def open_group(self, part: int, columns: Sequence[str]) -> tuple[parquet.ParquetFile, int]:
        """Return the open file of a row group, and its number there."""
        group = self._groups[part]
        # another file may have other rows than those that are expected
        self._files.require_unchanged(group.file)
        opened = self._opened
        file = parquet.ParquetFile(
            self._files.paths[group.file],
            metadata=opened[1] if opened is not None and opened[0] == group.file else None,
            # texts that occur often are decoded once
            read_dictionary=[name for name in columns if _is_text(self.schema.field(name).type)],
            # by default pyarrow buffers a row group, which may be the whole file
            pre_buffer=False,
            buffer_size=_BUFFER_NBYTES,
            page_checksum_verification=True,
        )
        self._opened = group.file, file.metadata
        return file, group.number

    def constants(self, part: int, columns: Sequence[str], rows: int) -> dict[str, pa.Array]:
        """Return ``rows`` values of those columns that the name of the folder tells."""
        values = self._files.partition_values[self._groups[part].file]
        return {name: pa.repeat(values[name], rows) for name in columns if name in values}

    def path_of(self, part: int) -> str:
        """Return the path of the file of a row group."""
        return str(self._files.paths[self._groups[part].file])

    def _note_sizes(self, file: int, metadata: Any) -> None:  # noqa: ANN401  (pyarrow has no types)
        """Keep, for each column, which column chunk is the largest."""
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for number in range(row_group.num_columns):
                chunk = row_group.column(number)
                # of a nested column, each leaf
                found = (chunk.total_uncompressed_size, file, group, number)
                self._largest[chunk.path_in_schema] = max(
                    found, self._largest.get(chunk.path_in_schema, found)
                )

    def _decoder_nbytes(self, columns: Sequence[str]) -> tuple[int, int, int]:
        """Return what a decoder of these columns holds: of each a dictionary and a page.

        Also what that of the largest column holds, and large pages of each column as stored.
        """
        nbytes = stored = largest = total = 0
        for leaf in self._largest:
            if leaf.partition(".")[0] in columns or leaf in columns:
                sizes = self._sizes(leaf)
                # unpacked pages share a buffer as large as the largest, which may be the dictionary
                page = max(sizes.page_nbytes, sizes.dictionary_nbytes)
                held = sizes.dictionary_nbytes + page + 2 * _BUFFER_NBYTES
                nbytes, largest = nbytes + held, max(largest, held)
                stored = max(stored, sizes.stored_nbytes)
                if sizes.page_nbytes > _DEFAULT_PAGE_NBYTES:
                    total += sizes.stored_nbytes
        # pages as stored are freed once they are unpacked
        return _kept(nbytes) + stored, _kept(largest) + stored, total

    def _sizes(self, leaf: str) -> PageSizes:
        sizes = self._page_sizes.get(leaf)
        if sizes is None:
            _, file, group, number = self._largest[leaf]
            path = self._files.paths[file]
            with reading(str(path)), parquet.ParquetFile(path) as opened:
                chunk = opened.metadata.row_group(group).column(number)
            sizes = self._page_sizes[leaf] = page_sizes(path, chunk)
        return sizes


@dataclass(eq=False)
class _Scan:
    """The pieces of a row group, in order; ``position`` is the number of the next one."""

    part: int
    file: parquet.ParquetFile
    pieces: Iterator[dict[str, pa.Array]]
    n_pieces: int
    position: int = 0


class _ParquetSelection(Selection):
    """Columns in some sets, each with a decoder of its own.

    While one thread decodes a set, another one decodes the next.
    """

    def __init__(self, store: ParquetStore, columns: Sequence[str], piece_rows: int) -> None:
        self._store, self._columns, self._piece_rows = store, list(columns), piece_rows
        stored = [name for name in columns if name in store.stored_names]
        self.n_sets = max(1, min(_MOST_SETS, len(stored) // _LEAST_COLUMNS))
        self._most_whole_rows = store.most_whole_rows(columns)
        sets = (stored[at :: self.n_sets] for at in range(self.n_sets))
        self._sets = [_ColumnSet(store, each, self) for each in sets if each]

    def is_read_whole(self, part: int) -> bool:
        """Whether a row group is read whole, a column at a time."""
        bounds = self._store.bounds
        return bounds[part + 1] - bounds[part] <= self._most_whole_rows

    def read(self, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        bounds = self._store.bounds
        for part, low, high in spans(bounds, start, stop):
            n_rows = bounds[part + 1] - bounds[part]
            height = piece_height(n_rows, self._piece_rows)
            for number in range(low // height, -(-high // height)):
                first = number * height
                begin, end = max(low - first, 0), min(high, first + height) - first
                batch = self._batch(part, number, height, n_rows)
                yield batch if end - begin == len(batch) else batch.slice(begin, end - begin)

    def close(self) -> None:
        for each in self._sets:
            each.close()
        # else the pool keeps what decoders freed
        pa.default_memory_pool().release_unused()

    def _batch(self, part: int, number: int, height: int, n_rows: int) -> pa.RecordBatch:
        rows = min(height, n_rows - number * height)
        arrays = self._store.constants(part, self._columns, rows)
        remaining = list(self._sets)
        while remaining:
            # a set that no other thread decodes now, else the first
            chosen = next((each for each in remaining if each.lock.acquire(blocking=False)), None)
            if chosen is None:
                chosen = remaining[0]
                chosen.lock.acquire()
            try:
                arrays |= chosen.piece(part, number, height)
            finally:
                chosen.lock.release()
            remaining.remove(chosen)
        return pa.RecordBatch.from_arrays(
            [arrays[name] for name in self._columns], names=self._columns
        )


class _ColumnSet:
    """Some columns, decoded in pieces; hold ``lock`` while a method runs.

    Threads take pieces of a row group in nearly the same order, so they share its decoder. A piece
    that one thread skips is kept for the thread that is to reduce it.
    """

    def __init__(
        self, store: ParquetStore, columns: list[str], selection: _ParquetSelection
    ) -> None:
        self.lock = threading.Lock()
        self._store, self._columns, self._selection = store, columns, selection
        # of row groups that are read in pieces, and of those that are read whole: the one that was
        # used last is the last
        self._scans: list[_Scan] = []
        self._whole: dict[int, dict[str, pa.Array]] = {}
        self._waiting: dict[tuple[int, int], dict[str, pa.Array]] = {}
        # rows of a row group that was read whole, and were not asked for yet
        self._unread: dict[int, int] = {}

    def close(self) -> None:
        """Close files."""
        with self.lock:
            while self._scans:
                self._end(self._scans[0])
            self._waiting.clear()
            self._whole.clear()

    def piece(self, part: int, number: int, height: int) -> dict[str, pa.Array]:
        """Return the columns of a piece of a row group, whose pieces have ``height`` rows."""
        with reading(self._store.path_of(part)):
            if self._selection.is_read_whole(part):
                return self._slice(part, number * height, height)
            waiting = self._waiting.pop((part, number), None)
            if waiting is not None:
                return waiting
            scan = self._scan(part, number, height)
            skipped = number - scan.position
            while scan.position < number:
                self._skip(scan, keeps=skipped <= self._n_waiting)
            return self._next(scan)

    def _slice(self, part: int, first: int, n_rows: int) -> dict[str, pa.Array]:
        """Return some rows of a row group that is read whole, a column at a time."""
        arrays = self._whole.pop(part, None)
        if arrays is None:
            while len(self._whole) >= max(1, self._selection.n_readers):
                self._whole.pop(next(iter(self._whole)))
            file, number = self._store.open_group(part, self._columns)
            with file:
                arrays = {
                    name: _one_array(file.read_row_group(number, [name], use_threads=False))
                    for name in self._columns
                }
            self._unread[part] = n_total = len(arrays[self._columns[0]])
            bounds = self._store.bounds
            if n_total != bounds[part + 1] - bounds[part]:
                raise _other_rows(self._store.path_of(part))
        found = {name: array.slice(first, n_rows) for name, array in arrays.items()}
        self._unread[part] -= len(found[self._columns[0]])
        if self._unread[part] > 0:
            self._whole[part] = arrays
        return found

    def _scan(self, part: int, number: int, height: int) -> _Scan:
        """Return the scan of a row group that is nearest before a piece, or a new one."""
        scans = [scan for scan in self._scans if scan.part == part and scan.position <= number]
        scan = max(scans, key=lambda each: each.position, default=None)
        if scan is None:
            for other in list(self._scans):
                rest = other.n_pieces - other.position
                if other.part < part and rest <= self._n_waiting - len(self._waiting):
                    # a thread may still need these pieces; its decoder is freed
                    for _ in range(rest):
                        self._skip(other, keeps=True)
            while len(self._scans) >= max(1, self._selection.n_readers):
                self._end(self._scans[0])
            file, group = self._store.open_group(part, self._columns)
            # threads decode sets of columns, so pyarrow's own threads would wait for each other
            batches = file.iter_batches(
                height, row_groups=[group], columns=self._columns, use_threads=False
            )
            pieces = (dict(zip(self._names(each), each.columns, strict=True)) for each in batches)
            bounds = self._store.bounds
            n_pieces = -(-(bounds[part + 1] - bounds[part]) // height)
            scan = _Scan(part, file, pieces, n_pieces)
        else:
            self._scans.remove(scan)
        self._scans.append(scan)
        self._drop_oldest()
        return scan

    @staticmethod
    def _names(batch: pa.RecordBatch) -> list[str]:
        return list(batch.schema.names)

    @property
    def _n_waiting(self) -> int:
        """How many pieces may wait: those of each reader that has no decoder of its own."""
        n_decoders = max(1, len(self._scans))
        return max(0, self._selection.n_readers - n_decoders) * _WAITING_PIECES

    def _next(self, scan: _Scan) -> dict[str, pa.Array]:
        piece = next(scan.pieces, None)
        if piece is None:
            raise _other_rows(self._store.path_of(scan.part))
        scan.position += 1
        if scan.position == scan.n_pieces:
            self._end(scan)
        return piece

    def _skip(self, scan: _Scan, *, keeps: bool) -> None:
        """Decode the next piece; keep it for another thread, in place of the oldest if need be."""
        number, piece = scan.position, self._next(scan)
        if not keeps:
            return
        self._waiting[scan.part, number] = piece
        self._drop_oldest()

    def _drop_oldest(self) -> None:
        while len(self._waiting) > self._n_waiting:
            self._waiting.pop(next(iter(self._waiting)))

    def _end(self, scan: _Scan) -> None:
        self._scans.remove(scan)
        scan.file.close()


def _kept(nbytes: int) -> int:
    """Return what pyarrow's memory pool keeps for this many bytes: measured, up to 1.35 times."""
    return nbytes * 27 // 20


def _one_array(table: pa.Table) -> pa.Array:
    """Return the only column of a table, in one piece."""
    if table.column(0).num_chunks != 1:
        table = table.unify_dictionaries().combine_chunks()
    column = table.column(0)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _other_rows(path: str) -> InputError:
    return InputError(f"{path} cannot be read: a row group has other rows than its metadata say")


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))
