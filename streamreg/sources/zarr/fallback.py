"""Chunks that zarr-python reads: those of remote stores, and of codecs not read directly.

zarr-python reads an absent chunk, and an empty shard, as the fill value without an error, and its
errors name no chunk. So a chunk that holds only the fill value is looked for in the store, and an
error is completed with the name of the chunk.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError, InputError, Message, Remedy, StreamregError
from streamreg.formatting import KIB, count
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer
from streamreg.sources.retries import retried
from streamreg.sources.zarr.codecs import DamagedChunkError
from streamreg.sources.zarr.layout import locate, missing_chunk

if TYPE_CHECKING:
    from zarr.storage import StorePath

    from streamreg.blocks import Array
    from streamreg.sources.zarr.layout import ShardIndex
    from streamreg.sources.zarr.stored import StoredArray

# zarr-python's async.concurrency: chunks that it reads and decodes at once
_IN_FLIGHT = 10
# bytes of a chunk that are compared with the fill value at once
_COMPARED_NBYTES = 64 * KIB


def fallback_nbytes(n_column_chunks: int, chunk_nbytes: int, *, in_shards: bool) -> int:
    """Bytes of chunks that zarr-python holds during a read: as stored, decoded, and filtered.

    And those of the read before, because its event loop frees them a little later.
    """
    decoding = 4 * chunk_nbytes * min(n_column_chunks, _IN_FLIGHT)
    # the chunks of a shard are joined before they are copied into the result
    return decoding + (n_column_chunks * chunk_nbytes if in_shards else 0)


def require_checkable(stored: StoredArray, chain: list[dict[str, Any]]) -> None:
    """Refuse codecs behind which absent chunks cannot be detected.

    Raises
    ------
    InputError
        Shards lie inside other codecs, or their index has an unusual form.
    """
    names = [codec["name"] for codec in chain]
    if stored.missing_chunks == "fill" or "sharding_indexed" not in names:
        return
    inner = chain[-1].get("configuration", {}).get("codecs") or []
    nested = any(codec["name"] == "sharding_indexed" for codec in inner)
    if stored.shards is None or nested:
        raise InputError(
            Message(
                f"{stored.name} keeps shards inside other codecs, or their index in an unusual "
                "form, so that absent chunks would be read as zeros unseen. Rewrite it with "
                "plain shards, or pass ",
                Remedy("missing_chunks", "fill"),
                " if absent chunks mean the fill value",
            )
        )


class FallbackReader(ChunkReader):
    """Has zarr-python read whole rows of chunks into one buffer that it reuses."""

    def __init__(self, stored: StoredArray) -> None:
        row_shape, dtype = stored.shape[1:], np.dtype(stored.array.dtype)
        super().__init__(stored.grid, row_shape, dtype)
        self._stored = stored
        self._band = RowBuffer(row_shape, dtype)
        # of the shards side by side
        self._indices: dict[tuple[int, ...], tuple[Array, int]] = {}

    def load(self, chunk: int) -> Array:
        stored = self._stored
        start, stop = stored.grid.rows(chunk)
        if stored.metadata is not None:
            stored.metadata.require_unchanged()
        band = self._band.rows(stop - start)
        try:
            if stored.folder is not None:
                # before the read, because a read of a pipe would never return
                self._require_chunks(chunk)
            retried(self._read, (slice(start, stop),), band)
            if stored.folder is None:
                self._require_chunks(chunk, band)
        except StreamregError:
            raise
        # zarr-python passes on what its stores and codecs raise, without the key of the chunk
        except Exception as error:
            raise self._damage(chunk, error) from error
        return band

    def _side_by_side(self, chunk: int) -> list[tuple[int, ...]]:
        """Return the places in the grid of the chunks of a chunk row."""
        n_columns = self._stored.n_column_chunks
        return [(chunk, column)[: len(self._stored.shape)] for column in range(n_columns)]

    def _read(self, selection: tuple[slice, ...], out: Array) -> None:
        from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415  (as zarr itself)

        room = default_buffer_prototype().nd_buffer.from_numpy_array(out)
        self._stored.array.get_basic_selection(selection, out=room)

    def _damage(self, chunk: int, error: Exception) -> DataCorruptionError:
        """Return the error that names which chunk of a row cannot be read, and why."""
        stored, chunks = self._stored, self._side_by_side(chunk)
        try:
            self._require_chunks(chunk)
        except DataCorruptionError as exact:
            return exact
        # the store fails again
        except Exception:  # noqa: BLE001, S110
            pass
        damaged = chunks[0]
        for column, at in enumerate(chunks[1:] and chunks):
            start, stop = stored.grid.rows(chunk)
            left = column * stored.chunks[1]
            try:
                stored.array[start:stop, left : left + stored.chunks[1]]
            except Exception:  # noqa: BLE001  (the same as before, of one chunk)
                damaged = at
                break
        return DataCorruptionError(
            f"{stored.names.describe(damaged)} cannot be read: {type(error).__name__}: {error}. "
            "Restore it from a copy, or rewrite it"
        )

    def _require_chunks(self, chunk: int, band: Array | None = None) -> None:
        """Raise if a chunk of a chunk row is absent; only if it looks so in ``band``, if given."""
        for column, at in enumerate(self._side_by_side(chunk)):
            if band is None or (
                at not in self._stored.found
                and self._holds_only_fill(_columns(band, column, self._stored))
            ):
                self._require_chunk(at)

    def _holds_only_fill(self, values: Array) -> bool:
        """Whether all values are the fill value, as those of an absent chunk are."""
        fill = self._stored.array.fill_value
        fill = 0 if fill is None else fill
        step = max(1, _COMPARED_NBYTES // max(1, values[:1].nbytes))
        for row in range(0, len(values), step):
            some = values[row : row + step]
            if not (np.isnan(some) if fill != fill else some == fill).all():  # noqa: PLR0124  (NaN)
                return False
        return True

    def _require_chunk(self, chunk: tuple[int, ...]) -> None:
        """Raise if a chunk is absent, unless that means the fill value."""
        names = self._stored.names
        try:
            is_there = self._is_there(*names.split(chunk))
        except DamagedChunkError as damage:
            raise DataCorruptionError(
                f"{names.describe(chunk)} is damaged: {damage}. "
                "Restore it from a copy, or rewrite it"
            ) from damage
        if is_there:
            self._stored.found.add(chunk)
        elif self._stored.missing_chunks == "error":
            raise missing_chunk(names.describe(chunk))

    def _is_there(self, file_at: tuple[int, ...], inner: tuple[int, ...]) -> bool:
        from zarr.core.sync import sync  # noqa: PLC0415  (as zarr itself)

        stored = self._stored
        key = stored.names.key(file_at)
        path = stored.array.store_path / key
        if file_at not in self._indices:
            if not sync(path.store.exists(path.path)):
                if stored.folder is not None and os.path.lexists(stored.folder / key):
                    raise DamagedChunkError("what stands in its place is not a regular file")
                return False
            if stored.shards is None:
                return True
            if any(known[0] != file_at[0] for known in self._indices):
                self._indices = {}
            self._indices[file_at] = sync(_read_index(path, stored.shards))
        return locate(self._indices[file_at][0], inner, self._indices[file_at][1]) is not None


def _columns(band: Array, column: int, stored: StoredArray) -> Array:
    """Return the values of one of the chunks side by side."""
    if band.ndim == 1:
        return band
    width = stored.chunks[1]
    return band[:, column * width : (column + 1) * width]


async def _read_index(path: StorePath, shards: ShardIndex) -> tuple[Array, int]:
    """Return the index of a shard, and the bytes of the shard."""
    from zarr.abc.store import RangeByteRequest  # noqa: PLC0415  (as zarr itself)

    nbytes = await path.store.getsize(path.path)
    if nbytes < shards.nbytes:
        raise DamagedChunkError(f"its shard has {count(nbytes, 'byte')}, fewer than its index")
    start = nbytes - shards.nbytes if shards.at_end else 0
    stored = await path.get(byte_range=RangeByteRequest(start, start + shards.nbytes))
    return shards.parse(memoryview(b"" if stored is None else stored.to_bytes())), nbytes
