"""Chunks that zarr-python reads for us: remote stores, and codecs that are not read directly.

It reads absent chunks as zeros, and an empty shard too, without a word, and its errors name no
chunk: both are mended here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from streamreg.errors import DataCorruptionError, InputError, Message, Remedy, StreamregError
from streamreg.formatting import count
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer
from streamreg.sources.retries import retried
from streamreg.sources.zarr.codecs import DamagedChunkError
from streamreg.sources.zarr.layout import locate, missing_chunk

if TYPE_CHECKING:
    from zarr.storage import StorePath

    from streamreg.blocks import Array
    from streamreg.sources.zarr.layout import ShardIndex
    from streamreg.sources.zarr.source import ZarrSource

# zarr-python's async.concurrency: chunks that it reads and decodes at once
_IN_FLIGHT = 10


def fallback_nbytes(n_column_chunks: int, chunk_nbytes: int, *, in_shards: bool) -> int:
    """Bytes of chunks on their way through zarr-python: as stored, decoded, and filtered.

    And those of the read before: its event loop lets go of them a little later.
    """
    decoding = 4 * chunk_nbytes * min(n_column_chunks, _IN_FLIGHT)
    # a shard's chunks are joined before they are copied to where they belong
    return decoding + (n_column_chunks * chunk_nbytes if in_shards else 0)


def require_checkable(source: ZarrSource, chain: list[dict[str, Any]]) -> None:
    """Refuse codecs through which it cannot be seen which chunks are absent.

    Raises
    ------
    InputError
        Shards lie inside other codecs, or their index has an unusual form.
    """
    names = [codec["name"] for codec in chain]
    if source.missing_chunks == "fill" or "sharding_indexed" not in names:
        return
    inner = chain[-1].get("configuration", {}).get("codecs") or []
    nested = any(codec["name"] == "sharding_indexed" for codec in inner)
    if source.shards is None or nested:
        raise InputError(
            Message(
                f"{source.name} keeps shards inside other codecs, or their index in an unusual "
                "form, so that absent chunks would be read as zeros unseen. Write it again with "
                "plain shards, or pass ",
                Remedy("missing_chunks", "fill"),
                " if absent chunks mean the fill value",
            )
        )


class FallbackReader(ChunkReader):
    """Has zarr-python read whole rows of chunks into one kept buffer."""

    def __init__(self, source: ZarrSource) -> None:
        super().__init__(source)
        self._source = source
        self._band = RowBuffer(source.shape[1:], source.dtype)
        # of the shards that lie side by side
        self._indices: dict[tuple[int, ...], tuple[Array, int]] = {}

    def load(self, chunk: int) -> Array:
        source = self._source
        start, stop = source.grid.rows(chunk)
        if source.metadata is not None:
            source.metadata.require_unchanged()
        band = self._band.rows(stop - start)
        try:
            for column in range(source.n_column_chunks):
                self._require_chunk((chunk, column)[: len(source.shape)])
            retried(self._read, (slice(start, stop),), band)
        except StreamregError:
            raise
        # zarr-python passes on whatever its stores and codecs raise, without the chunk's key
        except Exception as error:
            raise DataCorruptionError(
                f"{self._damaged(start, stop)} cannot be read: {type(error).__name__}: {error}. "
                "Restore it from a copy, or write it anew"
            ) from error
        return band

    def _read(self, selection: tuple[slice, ...], out: Array) -> None:
        from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415  (as zarr itself)

        room = default_buffer_prototype().nd_buffer.from_numpy_array(out)
        self._source.array.get_basic_selection(selection, out=room)

    def _damaged(self, start: int, stop: int) -> str:
        """Find which chunk of a row cannot be read."""
        source = self._source
        if source.n_column_chunks > 1:
            width = source.chunks[1]
            for left in range(0, source.shape[1], width):
                try:
                    source.array[start:stop, left : left + width]
                except Exception:  # noqa: BLE001  (the same as before, now in one chunk)
                    return source.place(start, left)
        return source.place(start)

    def _require_chunk(self, chunk: tuple[int, ...]) -> None:
        """Raise if a chunk is not there, unless it means the fill value."""
        names = self._source.names
        try:
            is_there = self._is_there(*names.split(chunk))
        except DamagedChunkError as damage:
            raise DataCorruptionError(
                f"{names.describe(chunk)} is damaged: {damage}. "
                "Restore it from a copy, or write it anew"
            ) from damage
        if not is_there and self._source.missing_chunks == "error":
            raise missing_chunk(names.describe(chunk))

    def _is_there(self, file_at: tuple[int, ...], inner: tuple[int, ...]) -> bool:
        from zarr.core.sync import sync  # noqa: PLC0415  (as zarr itself)

        source = self._source
        key = source.names.key(file_at)
        path = source.array.store_path / key
        if file_at not in self._indices:
            if not sync(path.store.exists(path.path)):
                if source.folder is not None and os.path.lexists(source.folder / key):
                    raise DamagedChunkError("what stands in its place is not a regular file")
                return False
            if source.shards is None:
                return True
            if any(kept[0] != file_at[0] for kept in self._indices):
                self._indices = {}
            self._indices[file_at] = sync(_read_index(path, source.shards))
        return locate(self._indices[file_at][0], inner, self._indices[file_at][1]) is not None


async def _read_index(path: StorePath, shards: ShardIndex) -> tuple[Array, int]:
    """Return where the chunks of a shard lie, and its size."""
    from zarr.abc.store import RangeByteRequest  # noqa: PLC0415  (as zarr itself)

    nbytes = await path.store.getsize(path.path)
    if nbytes < shards.nbytes:
        raise DamagedChunkError(f"its shard has {count(nbytes, 'byte')}, fewer than its index")
    start = nbytes - shards.nbytes if shards.at_end else 0
    stored = await path.get(byte_range=RangeByteRequest(start, start + shards.nbytes))
    return shards.parse(memoryview(b"" if stored is None else stored.to_bytes())), nbytes
