"""Chunks of a Zarr array in a local folder, read from their files without zarr-python."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.formatting import count
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer
from streamreg.sources.file_stamps import changed
from streamreg.sources.retries import read_whole, retried
from streamreg.sources.zarr.codecs import ChunkCodec, DamagedChunkError
from streamreg.sources.zarr.layout import locate

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array
    from streamreg.sources.file_stamps import FileStamps
    from streamreg.sources.zarr.stored import Place, StoredArray
    from streamreg.sources.zarr.versions import ArrayMetadata

# not blocking, because the open of a pipe would never return
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class ChunkFiles:
    """An array whose chunk files can be read; which version of it, and of each file, was read."""

    stored: StoredArray
    codec: ChunkCodec
    metadata: ArrayMetadata
    stamps: FileStamps

    def path(self, file_at: Place) -> Path:
        """Return the file of a stored chunk, or shard, from its place in their grid."""
        return self.metadata.folder / self.stored.key(file_at)

    @property
    def max_encoded_nbytes(self) -> int:
        """Bytes that a stored chunk may have: values that cannot be compressed grow a little."""
        nbytes = self.stored.chunk_nbytes
        return nbytes + nbytes // 8 + 1024


class ChunkFileReader:
    """Reads chunks of one array, for one thread; reuses its buffer and the file opened last."""

    def __init__(self, files: ChunkFiles) -> None:
        self._files = files
        self._stored = files.stored
        self._encoded: memoryview | None = None
        # of the shards side by side
        self._indices: dict[Place, Array] = {}
        self._open: tuple[Place, int, int] | None = None

    def read(self, chunk: Place, out: Array, start: int | None = None) -> None:
        """Fill ``out``, which is contiguous, with a whole chunk.

        With ``start``, fill it with rows of an uncompressed chunk from that row on. Raises
        :class:`DataCorruptionError` if the chunk is absent, damaged or unreadable, or has changed.
        """
        span = self._locate(chunk)
        if span is None:
            out[...] = self._stored.array.fill_value or 0
            return
        file, offset, nbytes = span
        expected, most = self._stored.chunk_nbytes, self._files.max_encoded_nbytes
        if start is not None:
            if nbytes != expected:
                raise self._error(chunk, f"has {count(nbytes, 'byte')} where {expected:,} belong")
            first = offset + start * (out.nbytes // len(out))
            self._read_into(chunk, file, first, out.reshape(-1).view(np.uint8).data)
        else:
            if nbytes > most:
                what = f"has {count(nbytes, 'byte')} where {expected:,} were encoded"
                raise self._error(chunk, what)
            if self._encoded is None:
                # of the largest size: a buffer that grows fragments the heap, and pages that are
                # never touched take no memory
                self._encoded = np.empty(most, np.uint8).data
            encoded = self._encoded[:nbytes]
            self._read_into(chunk, file, offset, encoded)
            try:
                self._files.codec.decode(encoded, out)
            except DamagedChunkError as damage:
                raise self._error(chunk, f"is damaged: {damage}") from damage
        self._files.stamps.use(self._stored.split(chunk)[0])

    def prefetch(self, chunk: Place) -> None:
        """Let the system fetch a chunk that is a file of its own; ``read`` raises its errors."""
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError):
            file = os.open(self._files.path(chunk), _FLAGS)
            try:
                nbytes = self._files.max_encoded_nbytes
                os.posix_fadvise(file, 0, nbytes, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)

    def close(self) -> None:
        """Close the file opened last."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _locate(self, chunk: Place) -> tuple[int, int, int] | None:
        """Return open file, offset and size of a chunk; ``None`` if absent and allowed to be."""
        file_at, inner = self._stored.split(chunk)
        opened = self._open_file(chunk, file_at)
        if opened is None:
            return None
        file, file_nbytes = opened
        if self._stored.shards is None:
            return file, 0, file_nbytes
        try:
            if file_at not in self._indices:
                if any(known[0] != file_at[0] for known in self._indices):
                    self._indices = {}
                stored = memoryview(bytearray(self._stored.shards.nbytes))
                self._read_into(chunk, file, self._stored.shards.offset(file_nbytes), stored)
                self._indices[file_at] = self._stored.shards.parse(stored)
            span = locate(self._indices[file_at], inner, file_nbytes)
        except DamagedChunkError as damage:
            raise self._error(chunk, f"is damaged: {damage}") from damage
        if span is not None:
            return file, *span
        self._require_fill(chunk)
        return None

    def _open_file(self, chunk: Place, file_at: Place) -> tuple[int, int] | None:
        stamps = self._files.stamps
        if self._open is not None and self._open[0] == file_at:
            # the file may have been written to since the last block
            if not stamps.agree(file_at, os.fstat(self._open[1])):
                raise changed(self._stored.describe(chunk))
            return self._open[1:]
        self.close()
        self._files.metadata.require_unchanged()
        path = self._files.path(file_at)
        try:
            file = retried(os.open, path, _FLAGS)
            self._open = (file_at, file, 0)
            status = os.fstat(file)
        except FileNotFoundError:
            if path.is_symlink():
                raise self._error(chunk, "is a link to a file that does not exist") from None
            self._require_fill(chunk)
            if not stamps.agree(file_at, None):
                raise changed(self._stored.describe(chunk)) from None
            return None
        except OSError as error:
            raise self._error(chunk, f"cannot be opened: {error.strerror}") from error
        self._open = (file_at, file, status.st_size)
        if not stat.S_ISREG(status.st_mode):
            raise self._error(chunk, "is not a regular file")
        if status.st_size == 0:
            raise self._error(chunk, "has 0 bytes")
        if not stamps.agree(file_at, status):
            raise changed(self._stored.describe(chunk))
        return self._open[1:]

    def _require_fill(self, chunk: Place) -> None:
        if self._stored.missing_chunks != "fill":
            raise self._stored.missing(chunk) from None

    def _read_into(self, chunk: Place, file: int, offset: int, target: memoryview) -> None:
        try:
            is_whole = read_whole(file, offset, target)
        except OSError as error:
            raise self._error(chunk, f"cannot be read: {error.strerror}") from error
        if not is_whole:
            raise self._error(chunk, "ended early: it is truncated, or being rewritten")

    def _error(self, chunk: Place, what: str) -> DataCorruptionError:
        with suppress(OSError):
            self.close()
        remedy = "Restore it from a copy, with its time (cp -p)"
        if self._stored.shards is not None:  # it may have been damaged before it was first read
            remedy = "Restore it from a copy and start again: remove the checkpoint, if any"
        if self._files.stamps.forget_unused(self._stored.split(chunk)[0]):
            # no row of it was used, so the file in its place may have another time
            remedy = "Restore it from a copy, or rewrite it"
        return DataCorruptionError(f"{self._stored.describe(chunk)} {what}. {remedy}")


class LocalReader(ChunkReader):
    """Reads rows of uncompressed chunks straight into a buffer; decodes others into a buffer."""

    def __init__(self, files: ChunkFiles) -> None:
        self._stored = stored = files.stored
        super().__init__(stored.grid, stored.shape[1:], stored.dtype)
        self._is_plain = files.codec.is_plain
        self._files = ChunkFileReader(files)
        self._band = RowBuffer(stored.shape[1:], stored.dtype)
        self._moved = RowBuffer(stored.chunks[1:], stored.dtype)

    def read(self, start: int, stop: int) -> Array:
        if not self._is_plain:
            return super().read(start, stop)
        rows = self._band.rows(stop - start)
        for number, low, high in self._grid.spans(start, stop):
            read = partial(self._files.read, start=low - self._grid.rows(number)[0])
            self._stored.fill_rows(number, rows[low - start : high - start], self._moved, read)
        return rows

    def load(self, chunk: int) -> Array:
        band = self._band.rows(self._grid.chunk_rows)
        self._stored.fill_rows(chunk, band, self._moved, self._files.read)
        return band

    def prefetch(self, start: int, stop: int) -> None:
        # only chunks that are read whole, and are files of their own
        if self._is_plain or self._stored.shards is not None:
            return
        for number, _, _ in self._grid.spans(start, stop):
            for chunk in self._stored.side_by_side(number):
                self._files.prefetch(chunk)

    def close(self) -> None:
        self._files.close()
