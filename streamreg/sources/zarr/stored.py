"""A Zarr array as it is stored: what both ways of reading it need to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamreg.sources.base import RowGrid

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

    from streamreg.sources.zarr.layout import ChunkNames, ShardIndex
    from streamreg.sources.zarr.versions import ArrayMetadata


@dataclass(frozen=True)
class StoredArray:
    """An open Zarr array and its layout.

    Attributes
    ----------
    array
        As zarr-python opened it.
    name
        What messages call the array.
    missing_chunks
        ``"error"`` or ``"fill"``: what an absent chunk means.
    shape, chunks
        Of the array, and of its (inner) chunks.
    names
        The key of each chunk, and what messages call it.
    shards
        How the index of a shard is stored; ``None`` without shards, or if only zarr-python can
        read the index.
    folder, metadata
        The local folder of the array, and what watches its metadata; ``None`` in other stores.
    found
        Chunks that hold only the fill value, and were found in the store.
    """

    array: zarr.Array[Any]
    name: str
    missing_chunks: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    names: ChunkNames
    shards: ShardIndex | None
    folder: Path | None
    metadata: ArrayMetadata | None
    found: set[tuple[int, ...]] = field(default_factory=set, compare=False)

    @property
    def grid(self) -> RowGrid:
        """The chunks along the rows, read whole."""
        return RowGrid(n_rows=self.names.n_rows, chunk_rows=self.names.chunk_rows)

    @property
    def files_shape(self) -> tuple[int, ...]:
        """How many stored chunks, or shards, there are along each axis."""
        shards = self.names.shard_shape or (1,) * len(self.shape)
        steps = zip(self.shape, self.chunks, shards, strict=True)
        return tuple(-(-length // (chunk * n)) for length, chunk, n in steps)

    @property
    def n_column_chunks(self) -> int:
        """How many chunks there are side by side."""
        return 1 if len(self.shape) == 1 else -(-self.shape[1] // self.chunks[1])

    @property
    def one_chunk_a_row(self) -> bool:
        """Whether a chunk has whole rows, so that no value need be moved."""
        return self.shape[1:] == self.chunks[1:]

    def place(self, row: int, column: int = 0) -> str:
        """Name the chunk that holds a value, for a message."""
        at = (row // self.chunks[0], column // self.chunks[1] if len(self.shape) > 1 else 0)
        return self.names.describe(at[: len(self.shape)])
