"""What the chunks of a Zarr array are called: on disk, and in messages."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import DataCorruptionError, Message, Remedy
from streamreg.formatting import count, rows_text
from streamreg.sources.zarr.codecs import DamagedChunkError, crc32c

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array


@dataclass(frozen=True)
class ChunkNames:
    """The keys of the chunks of an array, and the rows of each.

    Attributes
    ----------
    array
        What messages call the array.
    key
        The stored name of a chunk, or shard, from its place in the grid.
    chunk_rows, n_rows
        Of a chunk, and of the array.
    shard_shape
        The shape of a shard in chunks; ``None`` if each chunk is a file of its own.
    """

    array: str
    key: Callable[[tuple[int, ...]], str]
    chunk_rows: int
    n_rows: int
    shard_shape: tuple[int, ...] | None = None

    def describe(self, chunk: tuple[int, ...]) -> str:
        """Name a chunk for a message: its key, the array and its rows."""
        start = chunk[0] * self.chunk_rows
        rows = rows_text(start, min(start + self.chunk_rows, self.n_rows))
        stored, inner = self.split(chunk)
        if self.shard_shape is None:
            return f"chunk {self.key(stored)} of {self.array} ({rows})"
        return f"chunk {inner} of shard {self.key(stored)} of {self.array} ({rows})"

    def describe_stored(self, stored: tuple[int, ...]) -> str:
        """Name a stored chunk or shard, by its place in their grid, for a message."""
        shards = self.shard_shape or (1,) * len(stored)
        return self.describe(tuple(at * n for at, n in zip(stored, shards, strict=True)))

    def split(self, chunk: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the place of the stored object that holds a chunk, and the chunk's place in it."""
        if self.shard_shape is None:
            return chunk, ()
        pairs = [divmod(at, count) for at, count in zip(chunk, self.shard_shape, strict=True)]
        return tuple(outer for outer, _ in pairs), tuple(inner for _, inner in pairs)


def missing_chunk(described: str) -> DataCorruptionError:
    """Return the error for an absent chunk."""
    return DataCorruptionError(
        Message(
            f"{described} is missing. Restore it, or pass ",
            Remedy("missing_chunks", "fill"),
            " if absent chunks mean the fill value",
        )
    )


# offset and size of an absent inner chunk
_NO_CHUNK = 2**64 - 1


@dataclass(frozen=True)
class ShardIndex:
    """The index of a shard: the shape of the shard in chunks, and how the index is stored."""

    shape: tuple[int, ...]
    at_end: bool
    crc32c: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the index in its file."""
        return 16 * math.prod(self.shape) + (4 if self.crc32c else 0)

    def parse(self, stored: memoryview) -> Array:
        """Return offset and size of each inner chunk, of shape (…, 2).

        Raises
        ------
        DamagedChunkError
            Its size or its checksum differs.
        """
        if len(stored) != self.nbytes:
            raise DamagedChunkError(f"its shard's index has {count(len(stored), 'byte')}")
        if self.crc32c:
            stored, checksum = stored[:-4], bytes(stored[-4:])
            if crc32c(stored) != checksum:
                raise DamagedChunkError("its shard's index has another checksum")
        return np.frombuffer(stored, "<u8").reshape(*self.shape, 2)


def locate(index: Array, inner: tuple[int, ...], shard_nbytes: int) -> tuple[int, int] | None:
    """Return the offset of a chunk in its shard, and its size; ``None`` if it is absent.

    Raises
    ------
    DamagedChunkError
        The chunk would end beyond the shard.
    """
    offset, nbytes = (int(value) for value in index[inner])
    if offset == nbytes == _NO_CHUNK:
        return None
    if offset + nbytes > shard_nbytes:
        raise DamagedChunkError("it lies beyond the end of its shard, which is truncated")
    return offset, nbytes
