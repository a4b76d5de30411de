"""Zarr arrays, v2 and v3: opened from a path, a URL or a ``zarr.Array``."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streamreg.errors import InputError
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer, heaps_nbytes, joined_nbytes
from streamreg.sources.zarr import codecs
from streamreg.sources.zarr.fallback import FallbackReader, fallback_nbytes, require_checkable
from streamreg.sources.zarr.layout import ChunkNames, ShardIndex
from streamreg.sources.zarr.local import ChunkFileReader, ChunkFiles
from streamreg.sources.zarr.metadata import (
    child_names,
    is_zarr,
    local_folder,
    node_label,
    open_node,
    printable,
)
from streamreg.sources.zarr.versions import ArrayMetadata, FileStamps

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

    from streamreg.blocks import Array


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of a Zarr array or of the array at a path; ``None`` for anything else."""
    if not isinstance(data, str | os.PathLike) and not is_zarr(data):
        return None
    import zarr  # noqa: PLC0415  (imported only by who has Zarr arrays)

    if isinstance(data, str | os.PathLike):
        label = printable(os.fspath(data))
        data = open_node(data)
    else:
        label = node_label(data, name)
    if isinstance(data, zarr.Group):
        raise InputError(
            f"{label} is a Zarr group; pass one of its arrays as {name}: {child_names(data)}"
        )
    if not isinstance(data, zarr.Array):
        raise InputError(f"{name} is a zarr {type(data).__name__}; pass a zarr.Array or its path")
    return ZarrSource(data, label, missing_chunks=missing_chunks)


class ZarrSource(RowSource):
    """The rows of a Zarr array: straight from its files where that can be, else by zarr-python.

    Attributes
    ----------
    array
        As zarr-python opened it.
    missing_chunks
        ``"error"`` or ``"fill"``.
    names
        What its chunks are called.
    folder, metadata
        Where it lies, and what watches it for changes; ``None`` unless that is a local folder.
    shards
        Where chunks lie in their shards; ``None`` without shards, or if zarr-python must know.
    files
        How to read its files; ``None`` where zarr-python must.
    """

    def __init__(self, array: zarr.Array[Any], name: str, *, missing_chunks: str = "error") -> None:
        self.array = array
        self.name = name
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        self.missing_chunks = missing_chunks
        document: dict[str, Any] = array.metadata.to_dict()
        if document.get("chunk_grid", {}).get("name", "regular") != "regular":
            raise InputError(f"{name} has chunks of unequal size, which are not read; rechunk it")
        self.chunks = tuple(int(length) for length in array.chunks)
        stored = tuple(int(length) for length in array.shards or array.chunks)
        self.stored_grid = tuple(-(-a // b) for a, b in zip(self.shape, stored, strict=True))
        self.names = ChunkNames(
            array=name,
            key=array.metadata.encode_chunk_key,
            chunk_rows=self.chunks[0] if self.shape else 1,
            n_rows=self.shape[0] if self.shape else 0,
            shard_shape=None
            if array.shards is None
            else tuple(a // b for a, b in zip(stored, self.chunks, strict=True)),
        )
        self.folder = local_folder(array)
        self.metadata = None if self.folder is None else ArrayMetadata(self.folder, name)
        self.shards, codec, byte_order = _stored_form(document, self.names.shard_shape)
        self.files: ChunkFiles | None = None
        if (
            self.folder is not None
            and self.metadata is not None
            and codec is not None
            and self.dtype.kind in "biuf"
        ):
            if byte_order is not None:
                self.dtype = self.dtype.newbyteorder(byte_order)
            fill = array.fill_value
            self.files = ChunkFiles(
                names=self.names,
                root=self.folder,
                chunk_shape=self.chunks,
                dtype=self.dtype,
                codec=codec,
                shards=self.shards,
                fill_value=(0 if fill is None else fill) if missing_chunks == "fill" else None,
                metadata=self.metadata,
                stamps=FileStamps(self.stored_grid, self.names.describe_stored),
            )
        else:
            require_checkable(self, document.get("codecs", []))
        self.grid = RowGrid(
            n_rows=self.names.n_rows,
            chunk_rows=self.names.chunk_rows,
            divisible=self.files is not None and self.files.codec.is_plain,
        )

    @property
    def n_column_chunks(self) -> int:
        """How many chunks lie side by side."""
        return 1 if len(self.shape) == 1 else -(-self.shape[1] // self.chunks[1])

    @property
    def one_chunk_a_row(self) -> bool:
        """Whether a chunk's rows are the array's rows, so that nothing need be moved."""
        return self.shape[1:] == self.chunks[1:]

    def open(self) -> Reader:
        if self.files is None:
            return FallbackReader(self)
        if self.files.codec.is_plain:
            return _PlainReader(self, self.files)
        return _DecodingReader(self, self.files)

    def reader_nbytes(self, block_rows: int) -> int:
        chunk = math.prod(self.chunks) * self.dtype.itemsize
        index = 0
        if self.shards is not None:
            index = self.shards.nbytes * (1 if len(self.shape) == 1 else self.stored_grid[1])
        moved_row = 0 if self.one_chunk_a_row else self.chunks[1] * self.dtype.itemsize
        if self.files is not None and self.files.codec.is_plain:
            return block_rows * (self.row_nbytes + moved_row) + index
        band = self.grid.chunk_rows * self.row_nbytes
        kept = band + index + joined_nbytes(self, block_rows)
        if self.files is None:
            in_shards = self.names.shard_shape is not None
            return kept + fallback_nbytes(self.n_column_chunks, chunk, in_shards=in_shards)
        return kept + self.grid.chunk_rows * moved_row + self.files.max_encoded_nbytes

    @property
    def shared_nbytes(self) -> int:
        return heaps_nbytes(self) if self.files is None else 0

    def inputs(self) -> list[Path]:
        return [] if self.folder is None else [self.folder]

    @property
    def stamps(self) -> FileStamps | None:
        return None if self.files is None else self.files.stamps

    def require_there(self) -> None:
        if self.metadata is not None:
            self.metadata.require_there()

    def require_unchanged(self) -> None:
        if self.files is not None:
            self.files.require_unchanged()

    @property
    def storage(self) -> str:
        document: dict[str, Any] = self.array.metadata.to_dict()
        names = ("codecs", "filters", "compressor", "order", "fill_value")
        known = [document.get(name) for name in names]
        return json.dumps([self.missing_chunks, *known], default=str)

    def place(self, row: int, column: int = 0) -> str:
        return self.names.describe(self.chunk_of(row, column))

    def chunk_of(self, row: int, column: int = 0) -> tuple[int, ...]:
        """Return the place in the grid of the chunk that holds a value."""
        at = (row // self.chunks[0],)
        return at if len(self.shape) == 1 else (*at, column // self.chunks[1])


class _PlainReader(Reader):
    """Reads any rows of uncompressed chunks straight into one kept buffer."""

    def __init__(self, source: ZarrSource, files: ChunkFiles) -> None:
        self._source = source
        self._files = ChunkFileReader(files)
        self._rows = RowBuffer(source.shape[1:], source.dtype)
        self._moved = RowBuffer(source.chunks[1:], source.dtype)

    def read(self, start: int, stop: int) -> Array:
        grid = self._source.grid
        rows = self._rows.rows(stop - start)
        for chunk in range(grid.chunk_at(start), grid.chunk_at(stop - 1) + 1):
            first, end = grid.rows(chunk)
            low, high = max(first, start), min(end, stop)
            self._read_part(chunk, low - first, high - first, rows[low - start : high - start])
        return rows

    def _read_part(self, chunk: int, start: int, stop: int, out: Array) -> None:
        if self._source.one_chunk_a_row:
            self._files.read_rows((chunk, 0)[: out.ndim], start, stop, out)
            return
        moved = self._moved.rows(stop - start)
        width = moved.shape[1]
        for column in range(self._source.n_column_chunks):
            self._files.read_rows((chunk, column), start, stop, moved)
            target = out[:, column * width : (column + 1) * width]
            target[...] = moved[:, : target.shape[1]]

    def close(self) -> None:
        self._files.close()


class _DecodingReader(ChunkReader):
    """Decodes chunks into one kept buffer."""

    def __init__(self, source: ZarrSource, files: ChunkFiles) -> None:
        super().__init__(source)
        self._source = source
        self._files = ChunkFileReader(files)
        self._band = RowBuffer(source.shape[1:], source.dtype)
        self._moved = RowBuffer(source.chunks[1:], source.dtype)

    def expect(self, start: int, stop: int) -> None:
        grid = self._source.grid
        for chunk in range(grid.chunk_at(start), grid.chunk_at(stop - 1) + 1):
            for column in range(self._source.n_column_chunks):
                self._files.expect((chunk, column)[: len(self._source.shape)])

    def load(self, chunk: int) -> Array:
        source = self._source
        band = self._band.rows(source.grid.chunk_rows)
        if source.one_chunk_a_row:
            self._files.read((chunk, 0)[: band.ndim], band)
            return band
        moved = self._moved.rows(source.grid.chunk_rows)
        width = moved.shape[1]
        for column in range(source.n_column_chunks):
            self._files.read((chunk, column), moved)
            target = band[:, column * width : (column + 1) * width]
            target[...] = moved[:, : target.shape[1]]
        return band

    def close(self) -> None:
        self._files.close()


def _stored_form(
    document: dict[str, Any], shard_shape: tuple[int, ...] | None
) -> tuple[ShardIndex | None, codecs.ChunkCodec | None, Literal["<", ">"] | None]:
    """Return shard index, codec and byte order; ``None`` for what only zarr-python can read."""
    if document["zarr_format"] == 2:  # noqa: PLR2004
        return None, codecs.parse_v2(document), None
    chain = document["codecs"]
    shards = None
    if shard_shape is not None:
        shards = _shard_index(chain[0], shard_shape)
        if shards is None or len(chain) > 1:
            return shards, None, None
        chain = chain[0]["configuration"]["codecs"]
    parsed = None if document.get("storage_transformers") else codecs.parse_v3(chain)
    return (shards, None, None) if parsed is None else (shards, *parsed)


def _shard_index(codec: dict[str, Any], shape: tuple[int, ...]) -> ShardIndex | None:
    if codec["name"] != "sharding_indexed":
        return None
    options = codec["configuration"]
    names = [index_codec["name"] for index_codec in options["index_codecs"]]
    endian = (options["index_codecs"][0].get("configuration") or {}).get("endian")
    if names not in (["bytes"], ["bytes", "crc32c"]) or endian != "little":
        return None
    return ShardIndex(
        shape=shape,
        at_end=options.get("index_location", "end") == "end",
        crc32c=names[-1] == "crc32c",
    )
