"""Zarr arrays, v2 and v3: opened from a path, a URL or a ``zarr.Array``."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streamreg.errors import InputError
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.sources.base import Description, Kind, Reader, RowSource
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer, heaps_nbytes, joined_nbytes
from streamreg.sources.file_stamps import FileStamps
from streamreg.sources.zarr import codecs
from streamreg.sources.zarr.fallback import FallbackReader, fallback_nbytes, require_checkable
from streamreg.sources.zarr.layout import ChunkNames, ShardIndex
from streamreg.sources.zarr.local import ChunkFileReader, ChunkFiles
from streamreg.sources.zarr.metadata import (
    child_names,
    is_zarr,
    local_folder,
    node_label,
    open_group,
    open_node,
    printable,
)
from streamreg.sources.zarr.stored import StoredArray
from streamreg.sources.zarr.versions import ArrayMetadata

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

    from streamreg.blocks import Array

# chunk rows beyond these sizes are slow to read: see layout_advice
_SMALL_NBYTES = MIB // 4
_LARGE_NBYTES = 256 * MIB


def claims(data: object) -> bool:
    """Whether ``data`` is an object of zarr-python, or any path or URL."""
    return isinstance(data, str | os.PathLike) or is_zarr(data)


def open_rows(data: Any, name: str, *, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of a Zarr array, or of the array at a path.

    Raises
    ------
    InputError
        It is a group, or no array.
    DataCorruptionError
        The metadata cannot be understood.
    """
    import zarr  # noqa: PLC0415  (imported only if there are Zarr arrays)

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


KIND = Kind(claims, open_rows, open_group)


class ZarrSource(RowSource):
    """The rows of a Zarr array: read from its files where possible, else by zarr-python.

    Attributes
    ----------
    stored
        The array and its layout.
    files
        How to read its files; ``None`` if zarr-python reads them.
    """

    def __init__(self, array: zarr.Array[Any], name: str, *, missing_chunks: str = "error") -> None:
        self.name = name
        self.shape = tuple(int(length) for length in array.shape)
        self.dtype = np.dtype(array.dtype)
        document: dict[str, Any] = array.metadata.to_dict()
        if document.get("chunk_grid", {}).get("name", "regular") != "regular":
            raise InputError(f"{name} has chunks of unequal size, which are not read; rechunk it")
        chunks = tuple(int(length) for length in array.chunks)
        names = ChunkNames(
            array=name,
            key=array.metadata.encode_chunk_key,
            chunk_rows=chunks[0] if self.shape else 1,
            n_rows=self.shape[0] if self.shape else 0,
            shard_shape=None
            if array.shards is None
            else tuple(a // b for a, b in zip(array.shards, chunks, strict=True)),
        )
        folder = local_folder(array)
        shards, codec, byte_order = _stored_form(document, names.shard_shape)
        self.stored = StoredArray(
            array=array,
            name=name,
            missing_chunks=missing_chunks,
            shape=self.shape,
            chunks=chunks,
            names=names,
            shards=shards,
            folder=folder,
            metadata=None if folder is None else ArrayMetadata(folder, name),
        )
        self.files: ChunkFiles | None = None
        if (
            folder is not None
            and self.stored.metadata is not None
            and codec is not None
            and self.dtype.kind in "biuf"
        ):
            if byte_order is not None:
                self.dtype = self.dtype.newbyteorder(byte_order)
            fill = array.fill_value
            self.files = ChunkFiles(
                names=names,
                root=folder,
                chunk_shape=chunks,
                dtype=self.dtype,
                codec=codec,
                shards=shards,
                fill_value=(0 if fill is None else fill) if missing_chunks == "fill" else None,
                metadata=self.stored.metadata,
                stamps=FileStamps(self.stored.files_shape, names.describe_stored),
            )
        else:
            require_checkable(self.stored, document.get("codecs", []))
        self.grid = self.stored.grid
        if self.files is not None and self.files.codec.is_plain:
            self.grid = replace(self.grid, divisible=True)

    def open(self) -> Reader:
        if self.files is None:
            return FallbackReader(self.stored)
        if self.files.codec.is_plain:
            return _PlainReader(self.stored, self.files)
        return _DecodingReader(self.stored, self.files)

    def reader_nbytes(self, block_rows: int) -> int:
        stored = self.stored
        chunk = math.prod(stored.chunks) * self.dtype.itemsize
        index = 0
        if stored.shards is not None:
            index = stored.shards.nbytes * (1 if len(self.shape) == 1 else stored.files_shape[1])
        moved_row = 0 if stored.one_chunk_a_row else stored.chunks[1] * self.dtype.itemsize
        if self.files is not None and self.files.codec.is_plain:
            return block_rows * (self.row_nbytes + moved_row) + index
        buffers = self._band_nbytes + index + joined_nbytes(self, block_rows)
        if self.files is None:
            in_shards = stored.names.shard_shape is not None
            return buffers + fallback_nbytes(stored.n_column_chunks, chunk, in_shards=in_shards)
        return buffers + self.grid.chunk_rows * moved_row + self.files.max_encoded_nbytes

    @property
    def _band_nbytes(self) -> int:
        """Bytes of a row of chunks."""
        return self.grid.chunk_rows * self.row_nbytes

    @property
    def shared_nbytes(self) -> int:
        return heaps_nbytes(self) if self.files is None else 0

    @property
    def storage(self) -> str:
        document: dict[str, Any] = self.stored.array.metadata.to_dict()
        names = ("codecs", "filters", "compressor", "order", "fill_value")
        known = [document.get(name) for name in names]
        return json.dumps([self.stored.missing_chunks, *known], default=str)

    def inputs(self) -> list[Path]:
        return [] if self.stored.folder is None else [self.stored.folder]

    @property
    def stamps(self) -> FileStamps | None:
        return None if self.files is None else self.files.stamps

    def require_there(self) -> None:
        if self.stored.metadata is not None:
            self.stored.metadata.require_there()

    def require_unchanged(self) -> None:
        if self.files is not None:
            self.files.require_unchanged()

    def place(self, row: int, column: int = 0) -> str:
        return self.stored.place(row, column)

    def describe(self) -> Description:
        chunks, array = self.stored.chunks, self.stored.array
        names = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
        checksum = "unknown"
        if self.files is not None:
            checksum = "yes" if self.files.codec.has_checksum else "no"
        return Description(
            chunks=chunks if array.shards is None else f"{chunks} in {array.shards}",
            chunk_size=format_nbytes(math.prod(chunks) * self.dtype.itemsize),
            codecs=", ".join(names) or "none",
            checksum=checksum,
        )

    def layout_advice(self, block_nbytes: int) -> list[str]:
        advice = []
        band, n_columns = self._band_nbytes, self.stored.n_column_chunks
        if self.files is None:
            advice.append(
                f"{self.name} is read by zarr-python (a remote store, or a codec that is not read "
                "directly), which is several times slower than local zstd, blosc, gzip or no codec"
            )
        elif not self.files.codec.has_checksum:
            advice.append(
                f"chunks of {self.name} carry no checksum: a flipped bit is read as a number. "
                "Write it with zarr.codecs.Crc32cCodec() last among its compressors"
            )
        if n_columns > 1:
            advice.append(
                f"{n_columns} chunks lie side by side: a block of rows needs all of "
                f"them, {format_nbytes(band)}; chunks of whole rows are read without moving a byte"
            )
        if band > _LARGE_NBYTES and not self.grid.divisible:
            advice.append(
                f"a row of chunks is {format_nbytes(band)} and must be decoded whole by each "
                "thread; 8 MiB is enough"
            )
        if band < min(_SMALL_NBYTES, block_nbytes) and len(self.grid) > 1:
            advice.append(
                f"chunks of {format_nbytes(band)} cost more to open than to read; "
                "use some MiB, or shards"
            )
        return advice

    def rechunk_advice(self, rows: int) -> str:
        if self.stored.folder is None:
            # its name may be no path
            return super().rechunk_advice(rows)
        path = str(self.stored.folder)
        n_rows, n_columns = self.shape
        # a chunk may be declared larger than the array
        height = min(self.stored.chunks[0], n_rows)
        width = min(self.stored.chunks[1], n_columns)
        return f"""rewrite {self.name} in chunks of {count(rows, "row")}:
    import zarr
    old = zarr.open_array({path!r}, mode="r")
    new = zarr.create_array(
        {f"{path}-rows"!r}, shape=old.shape, dtype=old.dtype, chunks=({rows}, {width})
    )
    for i in range(0, {n_rows}, {height}):
        for j in range(0, {n_columns}, {width}):
            part = slice(i, i + {height}), slice(j, j + {width})
            new[part] = old[part]"""

    @property
    def why_unreachable_from_workers(self) -> str:
        from zarr.storage import MemoryStore  # noqa: PLC0415  (imported only if there are Zarr arrays)

        if isinstance(self.stored.array.store, MemoryStore):
            return "is a Zarr array in the memory of this process"
        return ""


class _PlainReader(Reader):
    """Reads any rows of uncompressed chunks straight into one buffer that it reuses."""

    def __init__(self, stored: StoredArray, files: ChunkFiles) -> None:
        self._stored = stored
        self._files = ChunkFileReader(files)
        self._rows = RowBuffer(stored.shape[1:], files.dtype)
        self._moved = RowBuffer(stored.chunks[1:], files.dtype)

    def read(self, start: int, stop: int) -> Array:
        grid = self._stored.grid
        rows = self._rows.rows(stop - start)
        for chunk in range(grid.chunk_at(start), grid.chunk_at(stop - 1) + 1):
            first, end = grid.rows(chunk)
            low, high = max(first, start), min(end, stop)
            self._read_part(chunk, low - first, high - first, rows[low - start : high - start])
        return rows

    def _read_part(self, chunk: int, start: int, stop: int, out: Array) -> None:
        if self._stored.one_chunk_a_row:
            self._files.read_rows((chunk, 0)[: out.ndim], start, stop, out)
            return
        moved = self._moved.rows(stop - start)
        width = moved.shape[1]
        for column in range(self._stored.n_column_chunks):
            self._files.read_rows((chunk, column), start, stop, moved)
            target = out[:, column * width : (column + 1) * width]
            target[...] = moved[:, : target.shape[1]]

    def close(self) -> None:
        self._files.close()


class _DecodingReader(ChunkReader):
    """Decodes chunks into one buffer that it reuses."""

    def __init__(self, stored: StoredArray, files: ChunkFiles) -> None:
        super().__init__(stored.grid, stored.shape[1:], files.dtype)
        self._stored = stored
        self._files = ChunkFileReader(files)
        self._band = RowBuffer(stored.shape[1:], files.dtype)
        self._moved = RowBuffer(stored.chunks[1:], files.dtype)

    def expect(self, start: int, stop: int) -> None:
        grid = self._stored.grid
        for chunk in range(grid.chunk_at(start), grid.chunk_at(stop - 1) + 1):
            for column in range(self._stored.n_column_chunks):
                self._files.expect((chunk, column)[: len(self._stored.shape)])

    def load(self, chunk: int) -> Array:
        stored = self._stored
        band = self._band.rows(stored.grid.chunk_rows)
        if stored.one_chunk_a_row:
            self._files.read((chunk, 0)[: band.ndim], band)
            return band
        moved = self._moved.rows(stored.grid.chunk_rows)
        width = moved.shape[1]
        for column in range(stored.n_column_chunks):
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
