"""Chunks of a Zarr array in a local folder, read from their files without zarr-python."""

from __future__ import annotations

import math
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.formatting import count
from streamreg.sources.file_stamps import changed
from streamreg.sources.retries import retried
from streamreg.sources.zarr.codecs import ChunkCodec, DamagedChunkError
from streamreg.sources.zarr.layout import ShardIndex, locate, missing_chunk

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.blocks import Array
    from streamreg.sources.file_stamps import FileStamps
    from streamreg.sources.zarr.layout import ChunkNames
    from streamreg.sources.zarr.versions import ArrayMetadata


@dataclass(frozen=True)
class ChunkFiles:
    """The layout of an array's chunks on disk.

    Attributes
    ----------
    names
        The file of each chunk, and what messages call it.
    root
        The folder of the array.
    chunk_shape
        The shape of the (inner) chunks; 1-D arrays have one number.
    dtype
        As stored, byte order included.
    codec
        Of each (inner) chunk.
    shards
        ``None`` where each chunk is a file of its own.
    fill_value
        What an absent chunk means; ``None`` refuses absent chunks.
    metadata, stamps
        Which version of the array, and of each file, was read.
    """

    names: ChunkNames
    root: Path
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: ChunkCodec
    shards: ShardIndex | None
    fill_value: float | None
    metadata: ArrayMetadata
    stamps: FileStamps

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk_shape) * self.dtype.itemsize

    def require_unchanged(self) -> None:
        """Raise :class:`DataCorruptionError` if a file that was read has changed since."""
        self.stamps.require_unchanged(lambda file_at: self.root / self.names.key(file_at))

    @property
    def max_encoded_nbytes(self) -> int:
        """Bytes that a stored chunk may have."""
        return self.codec.max_encoded_nbytes(self.chunk_nbytes)


class ChunkFileReader:
    """Reads chunks of one array, for one thread; reuses its buffer and the file opened last."""

    def __init__(self, files: ChunkFiles) -> None:
        self._files = files
        self._encoded: memoryview | None = None
        # of the shards side by side
        self._indices: dict[tuple[int, ...], Array] = {}
        self._open: tuple[tuple[int, ...], int, int] | None = None

    def read(self, chunk: tuple[int, ...], out: Array) -> None:
        """Fill ``out``, contiguous and of the chunk's whole shape.

        Raises
        ------
        DataCorruptionError
            The chunk is absent, truncated, damaged or unreadable, or was changed meanwhile.
        """
        span = self._locate(chunk)
        if span is None:
            out[...] = self._files.fill_value
            return
        file, offset, nbytes = span
        if nbytes > self._files.max_encoded_nbytes:
            raise self._error(
                chunk,
                f"has {count(nbytes, 'byte')} where {self._files.chunk_nbytes:,} were encoded",
            )
        if self._encoded is None:
            # of the largest size: a buffer that grows fragments the heap, and pages that are never
            # touched take no memory
            self._encoded = np.empty(self._files.max_encoded_nbytes, np.uint8).data
        encoded = self._encoded[:nbytes]
        self._read_into(chunk, file, offset, encoded)
        try:
            self._files.codec.decode(encoded, out)
        except DamagedChunkError as damage:
            raise self._error(chunk, f"is damaged: {damage}") from damage
        self._files.stamps.use(self._files.names.split(chunk)[0])

    def read_rows(self, chunk: tuple[int, ...], start: int, stop: int, out: Array) -> None:
        """Fill ``out`` with some rows of a chunk whose stored bytes are its values."""
        span = self._locate(chunk)
        if span is None:
            out[...] = self._files.fill_value
            return
        file, offset, nbytes = span
        expected = self._files.chunk_nbytes
        if nbytes != expected:
            raise self._error(chunk, f"has {count(nbytes, 'byte')} where {expected:,} belong")
        row_nbytes = out.nbytes // (stop - start)
        self._read_into(
            chunk, file, offset + start * row_nbytes, out.reshape(-1).view(np.uint8).data
        )
        self._files.stamps.use(self._files.names.split(chunk)[0])

    def expect(self, chunk: tuple[int, ...]) -> None:
        """Let the system fetch a chunk that is a file of its own; ``read`` raises its errors.

        Not for a shard, of which the system would fetch more than is needed.
        """
        if self._files.shards is not None or not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError):
            path = self._files.root / self._files.names.key(chunk)
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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

    def _locate(self, chunk: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Return open file, offset and size of a chunk; ``None`` if absent and allowed to be."""
        file_at, inner = self._files.names.split(chunk)
        opened = self._open_file(chunk, file_at)
        if opened is None:
            return None
        file, file_nbytes = opened
        if self._files.shards is None:
            return file, 0, file_nbytes
        if file_at not in self._indices:
            if any(known[0] != file_at[0] for known in self._indices):
                self._indices = {}
            self._indices[file_at] = self._read_index(chunk, self._files.shards, file, file_nbytes)
        try:
            span = locate(self._indices[file_at], inner, file_nbytes)
        except DamagedChunkError as damage:
            raise self._error(chunk, f"is damaged: {damage}") from damage
        if span is None and self._files.fill_value is None:
            raise missing_chunk(self._files.names.describe(chunk))
        return None if span is None else (file, *span)

    def _open_file(
        self, chunk: tuple[int, ...], file_at: tuple[int, ...]
    ) -> tuple[int, int] | None:
        if self._open is not None and self._open[0] == file_at:
            # the file may have been written to since the last block
            self._require_unchanged(chunk, file_at, os.fstat(self._open[1]))
            return self._open[1], self._open[2]
        self.close()
        self._files.metadata.require_unchanged()
        path = self._files.root / self._files.names.key(file_at)
        try:
            # not blocking, because the open of a pipe would never return
            file = retried(os.open, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if path.is_symlink():
                raise self._error(chunk, "is a link to a file that does not exist") from None
            if self._files.fill_value is None:
                raise missing_chunk(self._files.names.describe(chunk)) from None
            if not self._files.stamps.agree_absent(file_at):
                raise changed(self._files.names.describe(chunk)) from None
            return None
        except OSError as error:
            raise self._error(chunk, f"cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(file)
        except OSError as error:
            os.close(file)
            raise self._error(chunk, f"cannot be opened: {error.strerror}") from error
        self._open = (file_at, file, status.st_size)
        if not stat.S_ISREG(status.st_mode):
            raise self._error(chunk, "is not a regular file")
        if status.st_size == 0:
            raise self._error(chunk, "has 0 bytes")
        self._require_unchanged(chunk, file_at, status)
        return file, status.st_size

    def _require_unchanged(
        self, chunk: tuple[int, ...], file_at: tuple[int, ...], status: os.stat_result
    ) -> None:
        if not self._files.stamps.agree(file_at, status):
            raise changed(self._files.names.describe(chunk))

    def _read_index(
        self, chunk: tuple[int, ...], shards: ShardIndex, file: int, file_nbytes: int
    ) -> Array:
        if file_nbytes < shards.nbytes:
            raise self._error(
                chunk, f"has {count(file_nbytes, 'byte')}, fewer than its shard's index"
            )
        stored = memoryview(bytearray(shards.nbytes))
        self._read_into(chunk, file, file_nbytes - shards.nbytes if shards.at_end else 0, stored)
        try:
            return shards.parse(stored)
        except DamagedChunkError as damage:
            raise self._error(chunk, f"is damaged: {damage}") from damage

    def _read_into(
        self, chunk: tuple[int, ...], file: int, offset: int, target: memoryview
    ) -> None:
        done = 0
        while done < len(target):
            try:
                n_read = retried(os.preadv, file, [target[done:]], offset + done)
            except OSError as error:
                raise self._error(chunk, f"cannot be read: {error.strerror}") from error
            if n_read == 0:
                raise self._error(chunk, "ended early: it is truncated, or being rewritten")
            done += n_read

    def _error(self, chunk: tuple[int, ...], what: str) -> DataCorruptionError:
        with suppress(OSError):
            self.close()
        remedy = "Restore it from a copy, with its time (cp -p)"
        if self._files.shards is not None:  # it may have been damaged before it was first read
            remedy = "Restore it from a copy and start again: remove the checkpoint, if any"
        if self._files.stamps.forget_unused(self._files.names.split(chunk)[0]):
            # no row of it was used, so the file in its place may have another time
            remedy = "Restore it from a copy, or rewrite it"
        return DataCorruptionError(f"{self._files.names.describe(chunk)} {what}. {remedy}")
