"""Chunks of a Zarr array in a local folder, read from their files without zarr-python."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.formatting import count
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer
from streamreg.sources.file_stamps import changed
from streamreg.sources.open_files import Allowance, cure_of, is_exhausted
from streamreg.sources.retries import read_whole, retried
from streamreg.sources.zarr.codecs import ChunkCodec, DamagedChunkError
from streamreg.sources.zarr.layout import locate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.blocks import Array
    from streamreg.sources.file_stamps import FileStamps
    from streamreg.sources.zarr.metadata import ArrayMetadata
    from streamreg.sources.zarr.stored import Place, StoredArray

# not blocking, because the open of a pipe would never return
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class ChunkFiles:
    """The files of a local array: their codec, and which versions of them were read."""

    stored: StoredArray
    codec: ChunkCodec
    metadata: ArrayMetadata
    stamps: FileStamps

    def path(self, file_at: Place) -> Path:
        """Return the path of a chunk or shard, given its place in the grid of files."""
        return Path(self.text(file_at))

    def text(self, file_at: Place) -> str:
        """Return the path as text: a :class:`Path` takes five times as long to make."""
        return os.path.join(self.metadata.folder, self.stored.key(file_at))  # noqa: PTH118

    @property
    def max_encoded_nbytes(self) -> int:
        """The largest size of a stored chunk: a codec enlarges values that it cannot compress."""
        return self.stored.chunk_nbytes * 9 // 8 + 1024


class LocalReader(ChunkReader):
    """Reads rows of uncompressed chunks straight into a buffer, and decodes other chunks whole."""

    _source: StoredArray

    def __init__(self, files: ChunkFiles) -> None:
        super().__init__(files.stored)
        self._files = files
        # a chunk that is narrower than a row, before it is copied to its columns
        self._narrow = RowBuffer(files.stored.chunks[1:], files.stored.dtype)
        self._encoded = RowBuffer((), np.dtype(np.uint8))
        # the indices of the present row of shards, by place in the grid of files
        self._indices: dict[Place, Array] = {}
        # descriptors of open files, by place: those of the last chunk, or of the last ``parts``
        self._open: dict[Place, int] = {}
        self._allowance = Allowance()

    def read(self, start: int, stop: int) -> Array:
        if not self._files.codec.is_plain:
            return super().read(start, stop)
        rows = self._buffer.rows(stop - start)
        for chunk_row, low, high in self._source.grid.spans(start, stop):
            first = low - self._source.grid.rows(chunk_row)[0]
            self._fill(chunk_row, rows[low - start : high - start], first)
        return rows

    def parts(self, start: int, stop: int) -> list[tuple[int, int, int]] | None:
        source, parts = self._source, []
        spans = source.grid.spans(start, stop)
        chunks = [source.side_by_side(chunk_row)[0] for chunk_row, _, _ in spans]
        files = {source.split(chunk)[0] for chunk in chunks}
        self._keep_open(files)
        if not self._allowance.resize(len(files)):
            self.close()
            return None
        for (chunk_row, low, high), chunk in zip(spans, chunks, strict=True):
            try:
                span = self._locate(chunk)
            except DataCorruptionError as error:
                if not is_exhausted(error.__cause__):
                    raise
                # ``read`` opens one file at a time
                self.close()
                return None
            if span is None:
                return None
            self._require_size(chunk, span[2])
            first = low - source.grid.rows(chunk_row)[0]
            parts.append((span[0], span[1] + first * source.row_nbytes, high - low))
            self._files.stamps.use(source.split(chunk)[0])
        return parts

    def load(self, chunk: int, out: Array) -> None:
        # whole, because the last chunk is stored as high as the others
        self._fill(chunk, out)

    def prefetch(self, start: int, stop: int) -> None:
        chunk_rows = [chunk_row for chunk_row, _, _ in self._source.grid.spans(start, stop)]
        self._prefetch_chunks(
            chunk for chunk_row in chunk_rows for chunk in self._source.side_by_side(chunk_row)
        )

    def _prefetch_chunks(self, chunks: Iterable[Place]) -> None:
        # a prefetch helps only if each chunk is a file, which is read whole
        is_whole_file = not self._files.codec.is_plain and self._source.shards is None
        if not is_whole_file or not hasattr(os, "posix_fadvise"):
            return
        for chunk in chunks:
            # errors are left to the read that follows
            with suppress(OSError):
                file = os.open(self._files.text(chunk), _FLAGS)
                try:
                    nbytes = self._files.max_encoded_nbytes
                    os.posix_fadvise(file, 0, nbytes, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(file)

    def close(self) -> None:
        self._close_all_but(set())
        self._allowance.resize(0)

    def _keep_open(self, files: set[Place]) -> None:
        """Close all other files; look at the metadata before any of these is opened."""
        self._close_all_but(files)
        if len(self._open) < len(files):
            self._files.metadata.require_unchanged()

    def _close_all_but(self, files: set[Place]) -> None:
        for file_at in self._open.keys() - files:
            os.close(self._open.pop(file_at))

    def _fill(self, chunk_row: int, out: Array, first: int = 0) -> None:
        """Fill ``out`` with a chunk row, or, if it is uncompressed, with rows from ``first`` on."""
        for chunk in self._source.side_by_side(chunk_row):
            if self._source.one_chunk_a_row:
                self._read_chunk(chunk, out, first)
                return
            part, target = self._narrow.rows(len(out)), self._source.columns(out, chunk)
            self._read_chunk(chunk, part, first)
            target[...] = part[:, : target.shape[1]]

    def _read_chunk(self, chunk: Place, out: Array, first: int) -> None:
        """Fill ``out``, which is contiguous and as wide as the chunk, as :meth:`_fill` does."""
        span = self._located(chunk, out)
        if span is None:
            return
        file, offset, nbytes = span
        expected, most = self._source.chunk_nbytes, self._files.max_encoded_nbytes
        if self._files.codec.is_plain:
            self._require_size(chunk, nbytes)
            offset += first * (out.nbytes // len(out))
            self._read_into(chunk, file, offset, out.reshape(-1).view(np.uint8).data)
        else:
            if nbytes > most:
                what = f"has {count(nbytes, 'byte')} where {expected:,} were encoded"
                raise self._error(chunk, what)
            # the largest size from the start, because a buffer that grows fragments the heap; pages
            # that are never touched take no memory
            encoded = self._encoded.rows(most)[:nbytes].data
            self._read_into(chunk, file, offset, encoded)
            try:
                self._files.codec.decode(encoded, out)
            except DamagedChunkError as damage:
                raise self._error(chunk, f"is damaged: {damage}") from damage
        self._files.stamps.use(self._source.split(chunk)[0])

    def _read_columns(self, chunk: Place, out: Array, first: int) -> None:
        """Fill ``out`` (n, w) with columns of an uncompressed chunk, from ``first`` on, by rows."""
        span = self._located(chunk, out)
        if span is None:
            return
        file, offset, nbytes = span
        self._require_size(chunk, nbytes)
        row_nbytes = self._source.chunks[1] * out.itemsize
        offset += first * out.itemsize
        for number, row in enumerate(out):
            self._read_into(chunk, file, offset + number * row_nbytes, row.view(np.uint8).data)
        self._files.stamps.use(self._source.split(chunk)[0])

    def _located(self, chunk: Place, out: Array) -> tuple[int, int, int] | None:
        """Return what :meth:`_locate` does; an absent chunk fills ``out``."""
        file_at = self._source.split(chunk)[0]
        # files of the last ``parts`` stay open: kernels read them after one row is read here
        if file_at not in self._open:
            self._keep_open({file_at})
        span = self._locate(chunk)
        if span is None:
            out[...] = self._source.array.fill_value or 0
        return span

    def _require_size(self, chunk: Place, nbytes: int) -> None:
        expected = self._source.chunk_nbytes
        if nbytes != expected:
            raise self._error(chunk, f"has {count(nbytes, 'byte')} where {expected:,} belong")

    def _locate(self, chunk: Place) -> tuple[int, int, int] | None:
        """Return descriptor, offset and size of a chunk; ``None`` if absent, to be filled."""
        file_at, inner = self._source.split(chunk)
        opened, shards = self._open_file(chunk, file_at), self._source.shards
        if opened is None or shards is None:
            return opened
        file, _, file_nbytes = opened
        try:
            if file_at not in self._indices:
                if any(known[0] != file_at[0] for known in self._indices):
                    self._indices = {}
                stored = memoryview(bytearray(shards.nbytes))
                self._read_into(chunk, file, shards.offset(file_nbytes), stored)
                self._indices[file_at] = shards.parse(stored)
            span = locate(self._indices[file_at], file_nbytes, inner)
        except DamagedChunkError as damage:
            raise self._error(chunk, f"is damaged: {damage}") from damage
        if span is not None:
            return file, *span
        self._source.refuse_missing(chunk)
        return None

    def _open_file(self, chunk: Place, file_at: Place) -> tuple[int, int, int] | None:
        """Open the file that holds a chunk; return the descriptor, 0 and the size of the file."""
        stamps, file = self._files.stamps, self._open.get(file_at)
        try:
            if file is None:
                file = self._open[file_at] = retried(os.open, self._files.text(file_at), _FLAGS)
            status = os.fstat(file)
        except FileNotFoundError:
            if self._files.path(file_at).is_symlink():
                raise self._error(chunk, "is a link to a file that does not exist") from None
            self._source.refuse_missing(chunk)
            if not stamps.agree(file_at, None):
                raise changed(self._source.chunk_text(chunk)) from None
            return None
        except OSError as error:
            what = f"cannot be opened: {error.strerror}"
            raise self._error(chunk, what, cure_of(error)) from error
        if not stat.S_ISREG(status.st_mode):
            raise self._error(chunk, "is not a regular file")
        if status.st_size == 0:
            raise self._error(chunk, "has 0 bytes")
        # a file that stays open may have been written to since the last block
        if not stamps.agree(file_at, status):
            raise changed(self._source.chunk_text(chunk))
        return file, 0, status.st_size

    def _read_into(self, chunk: Place, file: int, offset: int, target: memoryview) -> None:
        try:
            read_whole(file, offset, target)
        except OSError as error:
            raise self._error(chunk, f"cannot be read: {error.strerror}") from error
        except EOFError:
            what = "ended early: it is truncated, or being rewritten"
            raise self._error(chunk, what) from None

    def _error(self, chunk: Place, what: str, cure: str = "") -> DataCorruptionError:
        with suppress(OSError):
            self.close()
        remedy = "Restore it from a copy, with its time (cp -p)"
        if self._source.shards is not None:  # the stamp may be that of the damaged shard
            remedy = "Restore it from a copy and start again: remove the checkpoint, if any"
        if self._files.stamps.forget_unused(self._source.split(chunk)[0]):
            # no row of the file was used, so a rewritten file may replace it
            remedy = "Restore it from a copy, or rewrite it"
        return DataCorruptionError(f"{self._source.chunk_text(chunk)} {what}. {cure or remedy}")
