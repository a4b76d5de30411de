"""What the chunks of a Zarr array are called: on disk, and in messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamreg.errors import DataCorruptionError
from streamreg.formatting import rows_text

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class ChunkNames:
    """The keys of an array's chunks, and the rows that each holds.

    Attributes
    ----------
    array
        What messages call the array.
    key
        The stored name of a chunk, or shard, from its place in the grid.
    chunk_rows, n_rows
        Of a chunk, and of the array.
    shard_shape
        A shard's shape in chunks; ``None`` where each chunk is stored apart.
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
        """Name a chunk or shard, by its place among those, for a message."""
        shards = self.shard_shape or (1,) * len(stored)
        return self.describe(tuple(at * n for at, n in zip(stored, shards, strict=True)))

    def split(self, chunk: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the place of the stored object that holds a chunk, and the chunk's place in it."""
        if self.shard_shape is None:
            return chunk, ()
        pairs = [divmod(at, count) for at, count in zip(chunk, self.shard_shape, strict=True)]
        return tuple(outer for outer, _ in pairs), tuple(inner for _, inner in pairs)


def missing_chunk(described: str) -> DataCorruptionError:
    """Return the error for a chunk that is not there."""
    return DataCorruptionError(
        f"{described} is missing. Restore it, or pass "
        'missing_chunks="fill" if absent chunks mean the fill value'
    )
