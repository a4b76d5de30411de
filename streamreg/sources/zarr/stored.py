"""A Zarr array as it is stored: what each of its readers needs to know."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError, InputError, Remedy
from streamreg.formatting import agree, count
from streamreg.sources.base import RowGrid, RowSource
from streamreg.sources.zarr import codecs
from streamreg.sources.zarr.layout import ShardIndex
from streamreg.sources.zarr.metadata import ArrayMetadata, local_folder

if TYPE_CHECKING:
    import zarr

    from streamreg.blocks import Array

    Place = tuple[int, ...]


# if an array has more chunks, an error does not count how many are absent
_MOST_COUNTED = 1 << 17


class StoredArray(RowSource):
    """The layout of an open Zarr array, and the names of its chunks."""

    def __init__(self, array: zarr.Array[Any], name: str, missing_chunks: str) -> None:
        document: dict[str, Any] = array.metadata.to_dict()
        if document.get("chunk_grid", {}).get("name", "regular") != "regular":
            raise InputError(f"{name} has chunks of unequal size, which are not read; rechunk it")
        # zarr-python's array
        self.array = array
        self.document = document
        self.name = name
        # what an absent chunk means: "error" or "fill"; "refuse" is an error that offers no "fill"
        self.missing_chunks = missing_chunks
        self.shape = tuple(int(length) for length in array.shape)
        # shape of a chunk; in shards, of an inner chunk
        self.chunks = tuple(int(length) for length in array.chunks)
        n_rows, chunk_rows = (self.shape[0], self.chunks[0]) if self.shape else (0, 1)
        self.grid = RowGrid(n_rows=n_rows, chunk_rows=chunk_rows)
        self.is_sharded = array.shards is not None
        files = array.shards or self.chunks
        # along each axis: the number of chunks in a stored file, and the number of stored files
        self.shard_shape = tuple(n // chunk for n, chunk in zip(files, self.chunks, strict=True))
        self.files_shape = tuple(-(-n // file) for n, file in zip(self.shape, files, strict=True))
        # the first of the chunks side by side that are read: see ``around_columns``
        self.first_column_chunk = 0
        # the number of chunks side by side in a chunk row
        self.n_column_chunks = -(-self.shape[1] // self.chunks[1]) if len(self.shape) > 1 else 1
        # whether a chunk has whole rows, which are read without a copy
        self.one_chunk_a_row = self.shape[1:] == self.chunks[1:]
        folder = local_folder(array)
        # ``None`` if the array is not in a local folder
        self.metadata = None if folder is None else ArrayMetadata(folder, name)
        if self.metadata is not None:
            self.metadata.require_shape(self.shape)
        # how the index of a shard is stored; ``None`` if only zarr-python can read it
        self.shards: ShardIndex | None = None
        # with a codec, the dtype has the byte order of the stored values
        self.dtype = np.dtype(array.dtype)
        # size of a decoded chunk
        self.chunk_nbytes = math.prod(self.chunks) * self.dtype.itemsize
        # how each chunk, or inner chunk, is encoded; ``None`` if zarr-python reads the chunks
        self.codec = self._codec()
        # chunks that hold only the fill value, and are known to be in the store
        self.found: set[Place] = set()

    def _codec(self) -> codecs.ChunkCodec | None:
        """Return the codec of a chunk, and set the index of shards and the byte order."""
        is_file = self.metadata is not None and self.dtype.kind in "biuf"
        if self.document["zarr_format"] == 2:  # noqa: PLR2004
            return codecs.parse_v2(self.document) if is_file else None
        chain = self.document["codecs"]
        if self.is_sharded:
            self.shards = ShardIndex.of(chain[0], self.shard_shape)
            if self.shards is None or len(chain) > 1:
                return None
            chain = chain[0]["configuration"]["codecs"]
        parsed = None if self.document.get("storage_transformers") else codecs.parse_v3(chain)
        if parsed is None or not is_file:
            return None
        self.dtype = self.dtype.newbyteorder(parsed[1])
        return parsed[0]

    def side_by_side(self, chunk_row: int) -> list[Place]:
        """Return the places in the grid of the chunks of a chunk row."""
        ndim, first = len(self.shape), self.first_column_chunk
        return [(chunk_row, first + at)[:ndim] for at in range(self.n_column_chunks)]

    def columns(self, rows: Array, chunk: Place) -> Array:
        """Return the part of some rows that a chunk holds."""
        if rows.ndim == 1:
            return rows
        left = (chunk[1] - self.first_column_chunk) * self.chunks[1]
        return rows[:, left : left + self.chunks[1]]

    def split(self, chunk: Place) -> tuple[Place, Place]:
        """Return the place of the file that holds a chunk, and the chunk's place in that file."""
        if not self.is_sharded:
            return chunk, (0,) * len(chunk)
        pairs = [divmod(at, n) for at, n in zip(chunk, self.shard_shape, strict=True)]
        return tuple(outer for outer, _ in pairs), tuple(inner for _, inner in pairs)

    def key(self, file_at: Place) -> str:
        """Return the key of a stored chunk, or of a shard, given its place in the grid of files."""
        return self.array.metadata.encode_chunk_key(file_at)

    def chunk_text(self, chunk: Place) -> str:
        """Name a chunk for a message: its key, the array and its rows."""
        rows = self.span_text(*self.grid.rows(chunk[0]))
        file_at, inner = self.split(chunk)
        shard = f"{inner} of shard " if self.is_sharded else ""
        return f"chunk {shard}{self.key(file_at)} of {self.name} ({rows})"

    def file_text(self, file_at: Place) -> str:
        """Name a stored chunk or shard for a message, given its place in the grid of files."""
        first = (at * n for at, n in zip(file_at, self.shard_shape, strict=True))
        return self.chunk_text(tuple(first))

    def refuse_missing(self, chunk: Place) -> None:
        """Raise for an absent chunk, unless it means the fill value."""
        if self.missing_chunks == "refuse":
            raise DataCorruptionError(
                f"{self.chunk_text(chunk)} is missing{self._absent_text()}. Restore it"
            ) from None
        if self.missing_chunks != "fill":
            raise DataCorruptionError(
                f"{self.chunk_text(chunk)} is missing{self._absent_text()}. Restore it, or pass ",
                Remedy("missing_chunks", "fill"),
                " if absent chunks mean the fill value: by default zarr-python writes no chunk "
                f"that holds only the fill value, here {self.array.fill_value}",
            ) from None

    def _absent_text(self) -> str:
        """Return how many chunks are absent, or shards if there are any; empty if unknown."""
        n_files = math.prod(self.files_shape)
        if n_files > _MOST_COUNTED:
            return ""
        try:
            n_chunks = self.array.nchunks_initialized
        # stores raise anything, and the number is only for the message
        except Exception:  # noqa: BLE001
            return ""
        n_absent = n_files - n_chunks // math.prod(self.shard_shape)
        if not n_absent:
            return ""
        files = count(n_files, "shard" if self.is_sharded else "chunk")
        return f" ({n_absent:,} of {files} {agree(n_absent, 'is', 'are')} absent)"
