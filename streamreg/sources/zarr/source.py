"""Zarr arrays, v2 and v3: opened from a path, a URL or a ``zarr.Array``."""

from __future__ import annotations

import json
import math
import os
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from streamreg.errors import InputError
from streamreg.formatting import MIB, count, format_nbytes
from streamreg.sources.anndata import open_rows_of_group
from streamreg.sources.base import Kind, Reader, RowSource
from streamreg.sources.chunk_reader import heaps_nbytes, joined_nbytes
from streamreg.sources.file_stamps import FileStamps
from streamreg.sources.zarr.fallback import FallbackReader, fallback_nbytes, require_checkable
from streamreg.sources.zarr.local import ChunkFiles, LocalReader
from streamreg.sources.zarr.metadata import (
    cf_attributes,
    child_names,
    group_of,
    is_zarr,
    open_group,
    opened,
    parents_of,
)
from streamreg.sources.zarr.stored import StoredArray
from streamreg.sources.zarr.strips import ZarrColumns

if TYPE_CHECKING:
    from pathlib import Path

    import zarr

    from streamreg.sources.zarr.codecs import ChunkCodec

# chunk rows beyond these sizes are slow to read: see layout_advice
_SMALL_NBYTES = MIB // 4
_LARGE_NBYTES = 256 * MIB


def claims(data: object) -> bool:
    """Whether ``data`` is an object of zarr-python, or any path or URL."""
    return isinstance(data, str | os.PathLike) or is_zarr(data)


def open_rows(data: Any, name: str, missing_chunks: str) -> RowSource:  # noqa: ANN401
    """Return the rows of a Zarr array, or of the array at a path; a group is refused."""
    import zarr  # noqa: PLC0415  (imported only if there are Zarr arrays)

    node, label = opened(data, name)
    if isinstance(node, zarr.Group):
        rows = open_rows_of_group(
            node,
            label,
            name,
            lambda array, name, missing=missing_chunks: ZarrSource(array, name, missing),
            parents_of(node),
        )
        if rows is not None:
            return rows
        raise InputError(
            f"{label} is a Zarr group; pass one of its arrays as {name}: {child_names(node)}"
        )
    if not isinstance(node, zarr.Array):
        raise InputError(f"{name} is a zarr {type(node).__name__}; pass a zarr.Array or its path")
    return ZarrSource(node, label, missing_chunks)


KIND = Kind(claims, open_rows, open_group, group_of)


class ZarrSource(StoredArray):
    """The rows of a Zarr array: from its ``files`` if it has any, else read by zarr-python."""

    why_unreachable_from_workers = ""

    def __init__(self, array: zarr.Array[Any], name: str, missing_chunks: str) -> None:
        from zarr.storage import MemoryStore  # noqa: PLC0415  (as in open_rows)

        super().__init__(array, name, missing_chunks)
        keys = ("codecs", "filters", "compressor", "order", "fill_value")
        known = [self.document.get(key) for key in keys]
        self.storage = json.dumps([missing_chunks, *known], default=str)
        if isinstance(array.store, MemoryStore):
            self.why_unreachable_from_workers = "is a Zarr array in the memory of this process"
        self.attributes = cf_attributes(array)
        self.files: ChunkFiles | None = None
        if self.codec is None or self.metadata is None:
            require_checkable(self)
            return
        self.stamps = FileStamps(self.files_shape, self.file_text)
        self.files = ChunkFiles(self, self.codec, self.metadata, self.stamps)
        if self.codec.is_plain:
            self.grid = replace(self.grid, divisible=True)
            self.is_in_files = len(self.shape) == 2 and self.one_chunk_a_row  # noqa: PLR2004
        if len(self.shape) == 2:  # noqa: PLR2004
            self.column_step = self._column_step(self.codec)

    def open(self) -> Reader:
        return FallbackReader(self) if self.files is None else LocalReader(self.files)

    def _column_step(self, codec: ChunkCodec) -> int:
        """Return the columns that are read together: see ``RowSource``."""
        if codec.is_plain:
            return 1
        n_rows, width = self.shape[0], self.chunks[1]
        is_narrow = n_rows * width * self.dtype.itemsize <= _LARGE_NBYTES
        return width if self.n_column_chunks > 1 and is_narrow else 0

    def in_strips(self, width: int) -> RowSource:
        if self.files is None:
            raise NotImplementedError
        return ZarrColumns(self.files, width)

    def reader_nbytes(self, block_rows: int) -> int:
        index = 0
        if self.shards is not None:
            index = self.shards.nbytes * math.prod(self.files_shape[1:])
        moved_row = 0 if self.one_chunk_a_row else self.chunks[1] * self.dtype.itemsize
        if self.files is not None and self.files.codec.is_plain:
            return block_rows * (self.row_nbytes + moved_row) + index
        rows = self.grid.chunk_rows
        buffers = rows * self.row_nbytes + index + joined_nbytes(self, block_rows)
        if self.files is None:
            return buffers + fallback_nbytes(self)
        return buffers + rows * moved_row + self.files.max_encoded_nbytes

    @property
    def shared_nbytes(self) -> int:
        return heaps_nbytes(self) if self.files is None else 0

    def around_columns(self, start: int, stop: int) -> tuple[RowSource, int]:
        width = self.chunks[1]
        first, after = start // width, -(-stop // width)
        if after - first == self.n_column_chunks:
            return self, 0
        some = copy(self)
        left = first * width
        some.shape = self.shape[0], min(after * width, self.shape[1]) - left
        some.first_column_chunk, some.n_column_chunks = first, after - first
        some.one_chunk_a_row = some.shape[1:] == self.chunks[1:]
        some.is_in_files = False
        if self.files is not None:
            some.files = replace(self.files, stored=some)
        return some, left

    def local_paths(self) -> list[Path]:
        return [] if self.metadata is None else [self.metadata.folder]

    def require_exists(self) -> None:
        if self.metadata is not None:
            self.metadata.require_exists()

    def require_unchanged(self) -> None:
        if self.files is not None:
            self.files.stamps.require_unchanged(self.files.path)

    def place(self, row: int, column: int = 0) -> str:
        at = [index // chunk for index, chunk in zip((row, column), self.chunks)]  # noqa: B905
        return self.chunk_text(tuple(at))

    def describe(self) -> dict[str, Any]:
        chunks, array = self.chunks, self.array
        names = [type(codec).__name__.removesuffix("Codec").lower() for codec in array.compressors]
        checksum = "unknown"
        if self.files is not None:
            checksum = "yes" if self.files.codec.has_checksum else "no"
        return {
            "chunks": f"{chunks} in {array.shards}" if self.is_sharded else chunks,
            "chunk size": format_nbytes(self.chunk_nbytes),
            "codecs": ", ".join(names) or "none",
            "checksum": checksum,
        }

    def layout_advice(self, block_nbytes: int) -> list[str]:
        advice = []
        chunk_row_nbytes, n_columns = self.grid.chunk_rows * self.row_nbytes, self.n_column_chunks
        size = format_nbytes(chunk_row_nbytes)
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
                f"{n_columns} chunks are side by side: a block of rows needs all of them, {size}; "
                "chunks of whole rows are read without moving a byte"
            )
        if chunk_row_nbytes > _LARGE_NBYTES and not self.grid.divisible:
            advice.append(
                f"a row of chunks is {size} and each thread must decode it whole; 8 MiB is enough"
            )
        if chunk_row_nbytes < min(_SMALL_NBYTES, block_nbytes) and len(self.grid) > 1:
            advice.append(
                f"chunks of {size} cost more to open than to read; use some MiB, or shards"
            )
        return advice

    def rechunk_advice(self, rows: int) -> str:
        if self.metadata is None:
            # its name may be no path
            return super().rechunk_advice(rows)
        path = str(self.metadata.folder)
        n_rows, n_columns = self.shape
        # a chunk may be declared larger than the array
        height = min(self.chunks[0], n_rows)
        width = min(self.chunks[1], n_columns)
        kept = ""
        if self.attributes:
            # what the stored values mean
            kept = """,
        fill_value=old.fill_value, attributes=old.attrs.asdict(),
        zarr_format=old.metadata.zarr_format"""
        return f"""rewrite {self.name} in chunks of {count(rows, "row")}:
    import zarr
    old = zarr.open_array({path!r}, mode="r")
    new = zarr.create_array(
        {f"{path}-rows"!r}, shape=old.shape, dtype=old.dtype, chunks=({rows}, {width}){kept}
    )
    for i in range(0, {n_rows}, {height}):
        for j in range(0, {n_columns}, {width}):
            part = slice(i, i + {height}), slice(j, j + {width})
            new[part] = old[part]"""
