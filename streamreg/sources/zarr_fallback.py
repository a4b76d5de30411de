"""Chunks that zarr-python reads for us: remote stores, and codecs that are not read directly.

It reads absent chunks as zeros, and an empty shard too, without a word, and its errors name no
chunk: both are mended here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources.base import ChunkReader, RowBuffer
from streamreg.sources.chunk_files import NO_CHUNK
from streamreg.sources.chunk_names import missing_chunk
from streamreg.sources.codecs import DamagedChunkError

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.chunk_files import ShardIndex
    from streamreg.sources.zarr import ZarrSource

# zarr-python's async.concurrency: chunks that it reads and decodes at once
_IN_FLIGHT = 10


def fallback_nbytes(n_column_chunks: int, chunk_nbytes: int, *, in_shards: bool) -> int:
    """Bytes of chunks on their way through zarr-python: as stored, decoded, and filtered.

    And those of the read before: its event loop lets go of them a little later.
    """
    decoding = 4 * chunk_nbytes * min(n_column_chunks, _IN_FLIGHT)
    # a shard's chunks are joined before they are copied to where they belong
    return decoding + (n_column_chunks * chunk_nbytes if in_shards else 0)


def require_readable(source: ZarrSource, document: dict[str, Any]) -> None:
    """Refuse what must not, or cannot safely, be read by zarr-python.

    Raises
    ------
    InputError
        Decoding would run code from the data, or would not show which chunks are absent.
    """
    stages = [*(document.get("filters") or []), document.get("compressor") or {}]
    stages += document.get("codecs") or []
    names = [stage.get("id") or stage.get("name") for stage in stages]
    if any(str(name).rpartition(".")[2] == "pickle" for name in names):
        raise InputError(
            f"{source.name} uses the codec pickle, which runs whatever code is in the data; "
            "it is not read. Write it anew as plain numbers"
        )
    if source.missing_chunks == "fill" or "sharding_indexed" not in names:
        return
    inner = stages[-1].get("configuration", {}).get("codecs") or []
    nested = any(codec["name"] == "sharding_indexed" for codec in inner)
    if source.shards is None or nested:
        raise InputError(
            f"{source.name} keeps shards inside other codecs, or their index in an unusual form, "
            "so that absent chunks would be read as zeros unseen. Write it anew with plain "
            'shards, or pass missing_chunks="fill" if absent chunks mean the fill value'
        )


class FallbackReader(ChunkReader):
    """Has zarr-python read whole rows of chunks into one kept buffer."""

    def __init__(self, source: ZarrSource) -> None:
        super().__init__(source)
        self._source = source
        self._band = RowBuffer(source.shape[1:], source.dtype)
        # of the shards that lie side by side
        self._indices: dict[tuple[int, ...], Array | None] = {}

    def load(self, chunk: int) -> Array:
        source = self._source
        start, stop = source.grid.rows(chunk)
        if source.metadata is not None:
            source.metadata.require_unchanged()
        if source.missing_chunks == "error":
            for column in range(source.n_column_chunks):
                self._require_chunk((chunk, column)[: len(source.shape)])
        band = self._band.rows(stop - start)
        try:
            self._read((slice(start, stop),), band)
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
        """Raise if a chunk is not there."""
        source = self._source
        file_at, inner = source.names.split(chunk)
        if source.shards is None:
            is_there = self._exists(source.names.key(file_at))
        else:
            if file_at not in self._indices:
                if any(kept[0] != file_at[0] for kept in self._indices):
                    self._indices = {}
                self._indices[file_at] = self._read_index(chunk, source.shards)
            index = self._indices[file_at]
            is_there = index is not None and tuple(index[inner]) != (NO_CHUNK, NO_CHUNK)
        if not is_there:
            raise missing_chunk(source.names.describe(chunk))

    def _exists(self, key: str) -> bool:
        from zarr.core.sync import sync  # noqa: PLC0415  (as zarr itself)

        node = self._source.array.store_path / key
        return sync(node.store.exists(node.path))

    def _read_index(self, chunk: tuple[int, ...], shards: ShardIndex) -> Array | None:
        """Read where the chunks of a shard lie; ``None`` if there is no shard."""
        from zarr.abc.store import RangeByteRequest, SuffixByteRequest  # noqa: PLC0415
        from zarr.core.sync import sync  # noqa: PLC0415

        names = self._source.names
        key = names.key(names.split(chunk)[0])
        if not self._exists(key):
            return None
        span = (
            SuffixByteRequest(shards.nbytes)
            if shards.at_end
            else RangeByteRequest(0, shards.nbytes)
        )
        stored = sync((self._source.array.store_path / key).get(byte_range=span))
        raw = b"" if stored is None else stored.to_bytes()
        if len(raw) != shards.nbytes:
            raise self._damage(chunk, f"has {len(raw):,} bytes, fewer than its shard's index")
        try:
            return shards.parse(memoryview(raw))
        except DamagedChunkError as damage:
            raise self._damage(chunk, f"is damaged: {damage}") from damage

    def _damage(self, chunk: tuple[int, ...], what: str) -> DataCorruptionError:
        return DataCorruptionError(
            f"{self._source.names.describe(chunk)} {what}. Restore it from a copy, or write it anew"
        )
