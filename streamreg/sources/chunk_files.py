"""Chunks of a Zarr array in a local folder, read straight from their files."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.sources.codecs import ChunkCodec, DamagedChunkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array

_NO_CHUNK = 2**64 - 1


@dataclass(frozen=True)
class ShardIndex:
    """Where the inner chunks of a shard lie: its shape in chunks, and how its index is stored."""

    shape: tuple[int, ...]
    at_end: bool
    crc32c: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the index in its file."""
        return 16 * int(np.prod(self.shape, dtype=np.int64)) + (4 if self.crc32c else 0)


@dataclass(frozen=True)
class ChunkFiles:
    """The layout of an array's chunks on disk.

    Attributes
    ----------
    name
        What messages call the array.
    root
        The folder of the array.
    key
        The file of a chunk, or shard, under the folder, from its place in the grid.
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
    """

    name: str
    root: Path
    key: Callable[[tuple[int, ...]], str]
    chunk_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    codec: ChunkCodec
    shards: ShardIndex | None
    fill_value: float | None

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return int(np.prod(self.chunk_shape, dtype=np.int64)) * self.dtype.itemsize

    def describe(self, chunk: tuple[int, ...]) -> str:
        """Name a chunk for a message: its key, the array and its rows."""
        first = chunk[0] * self.chunk_shape[0]
        rows = f"rows {first:,}–{first + self.chunk_shape[0] - 1:,}"  # noqa: RUF001
        if self.shards is None:
            return f"chunk {self.key(chunk)} of {self.name} ({rows})"
        shard, inner = self._in_shard(chunk)
        return f"chunk {inner} of shard {self.key(shard)} of {self.name} ({rows})"

    def _in_shard(self, chunk: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        assert self.shards is not None  # noqa: S101  (told to the type checker)
        pairs = [divmod(at, count) for at, count in zip(chunk, self.shards.shape, strict=True)]
        return tuple(outer for outer, _ in pairs), tuple(inner for _, inner in pairs)


class ChunkFileReader:
    """Reads chunks of one array, for one thread; keeps its buffers and the file opened last."""

    def __init__(self, files: ChunkFiles) -> None:
        self._files = files
        self._encoded = bytearray()
        self._index: dict[tuple[int, ...], Array] = {}
        self._open: tuple[tuple[int, ...], int, int] | None = None

    def read(self, chunk: tuple[int, ...], out: Array) -> None:
        """Fill ``out``, contiguous and of the chunk's whole shape.

        Raises
        ------
        DataCorruptionError
            The chunk is absent, truncated, damaged or unreadable.
        """
        span = self._locate(chunk)
        if span is None:
            self._fill(out)
            return
        file, offset, nbytes = span
        if self._files.codec.is_plain:
            self._expect_plain(chunk, nbytes)
            self._read_into(chunk, file, offset, memoryview(out.reshape(-1).view(np.uint8)))
            return
        if len(self._encoded) < nbytes:
            self._encoded = bytearray(nbytes)
        encoded = memoryview(self._encoded)[:nbytes]
        self._read_into(chunk, file, offset, encoded)
        try:
            self._files.codec.decode(encoded, out)
        except DamagedChunkError as damage:
            raise self._error(chunk, f"is damaged: {damage}") from damage

    def read_rows(self, chunk: tuple[int, ...], start: int, stop: int, out: Array) -> None:
        """Fill ``out`` with some rows of a chunk whose stored bytes are its values."""
        span = self._locate(chunk)
        if span is None:
            self._fill(out)
            return
        file, offset, nbytes = span
        self._expect_plain(chunk, nbytes)
        row_nbytes = out.nbytes // (stop - start)
        self._read_into(
            chunk, file, offset + start * row_nbytes, memoryview(out.reshape(-1).view(np.uint8))
        )

    def close(self) -> None:
        """Close the file opened last."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def _fill(self, out: Array) -> None:
        out[...] = self._files.fill_value

    def _expect_plain(self, chunk: tuple[int, ...], nbytes: int) -> None:
        expected = self._files.chunk_nbytes
        if nbytes != expected:
            raise self._error(chunk, f"has {nbytes:,} bytes where {expected:,} belong")

    def _locate(self, chunk: tuple[int, ...]) -> tuple[int, int, int] | None:
        """Return the open file, offset and size of a chunk; ``None`` if absent and allowed to be."""
        shards = self._files.shards
        if shards is None:
            opened = self._open_file(chunk, chunk)
            return None if opened is None else (opened[0], 0, opened[1])
        shard, inner = self._files._in_shard(chunk)  # noqa: SLF001
        opened = self._open_file(chunk, shard)
        if opened is None:
            return None
        file, file_nbytes = opened
        if shard not in self._index:
            self._index = {shard: self._read_index(chunk, file, file_nbytes)}
        offset, nbytes = (int(value) for value in self._index[shard][inner])
        if offset == nbytes == _NO_CHUNK:
            if self._files.fill_value is None:
                raise self._missing(chunk)
            return None
        if offset + nbytes > file_nbytes:
            raise self._error(chunk, "lies beyond the end of its shard, which is truncated")
        return file, offset, nbytes

    def _open_file(
        self, chunk: tuple[int, ...], file_at: tuple[int, ...]
    ) -> tuple[int, int] | None:
        if self._open is not None and self._open[0] == file_at:
            return self._open[1], self._open[2]
        self.close()
        path = self._files.root / self._files.key(file_at)
        try:
            # not blocking: a pipe in a chunk's place would hang for ever
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            if path.is_symlink():
                raise self._error(chunk, "is a link to a file that does not exist") from None
            if self._files.fill_value is None:
                raise self._missing(chunk) from None
            return None
        except OSError as error:
            raise self._error(chunk, f"cannot be opened: {error.strerror}") from error
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            os.close(file)
            raise self._error(chunk, "is not a regular file")
        if status.st_size == 0:
            os.close(file)
            raise self._error(chunk, "has 0 bytes")
        self._open = (file_at, file, status.st_size)
        return file, status.st_size

    def _read_index(self, chunk: tuple[int, ...], file: int, file_nbytes: int) -> Array:
        index = self._files.shards
        assert index is not None  # noqa: S101  (told to the type checker)
        if file_nbytes < index.nbytes:
            raise self._error(chunk, f"has {file_nbytes:,} bytes, fewer than its shard's index")
        raw = bytearray(index.nbytes)
        start = file_nbytes - index.nbytes if index.at_end else 0
        self._read_into(chunk, file, start, memoryview(raw))
        if index.crc32c:
            stored = bytes(raw[-4:])
            del raw[-4:]
            if google_crc32c.value(bytes(raw)).to_bytes(4, "little") != stored:
                raise self._error(chunk, "is damaged: its shard's index has another checksum")
        return np.frombuffer(raw, "<u8").reshape(*index.shape, 2)

    def _read_into(
        self, chunk: tuple[int, ...], file: int, offset: int, target: memoryview
    ) -> None:
        done = 0
        while done < len(target):
            try:
                count = os.preadv(file, [target[done:]], offset + done)
            except OSError as error:
                raise self._error(chunk, f"cannot be read: {error.strerror}") from error
            if count == 0:
                raise self._error(chunk, "ended early: it is truncated, or being rewritten")
            done += count

    def _missing(self, chunk: tuple[int, ...]) -> DataCorruptionError:
        return DataCorruptionError(
            f"{self._files.describe(chunk)} is missing. Restore it, or pass "
            'missing_chunks="fill" if absent chunks mean the fill value'
        )

    def _error(self, chunk: tuple[int, ...], what: str) -> DataCorruptionError:
        with suppress(OSError):
            self.close()
        return DataCorruptionError(
            f"{self._files.describe(chunk)} {what}. Restore it from a copy, or write it anew"
        )
