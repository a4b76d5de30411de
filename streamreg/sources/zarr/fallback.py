"""Chunks that zarr-python reads: those of remote stores, and of codecs not read directly.

zarr-python reads an absent chunk, and an empty shard, as the fill value without an error, and its
errors name no chunk. So a chunk that holds only the fill value is looked for in the store, and an
error is completed with the name of the chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.errors import DataCorruptionError, InputError, Remedy, StreamregError
from streamreg.sources.chunk_reader import ChunkReader
from streamreg.sources.open_files import cure_of
from streamreg.sources.retries import retried
from streamreg.sources.zarr.presence import Presence

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.zarr.stored import Place, StoredArray

# zarr-python's async.concurrency: chunks that it reads and decodes at once
_IN_FLIGHT = 10


def fallback_nbytes(stored: StoredArray) -> int:
    """Bytes of chunks that zarr-python holds during a read: as stored, decoded, and filtered."""
    # four times: its event loop frees the chunks of a read only during the next one
    n_column_chunks, nbytes = stored.n_column_chunks, stored.chunk_nbytes
    # the chunks of a shard are joined before they are copied into the result
    joined = n_column_chunks * nbytes if stored.is_sharded else 0
    return 4 * nbytes * min(n_column_chunks, _IN_FLIGHT) + joined


def require_checkable(stored: StoredArray) -> None:
    """Refuse codecs behind which absent chunks cannot be detected."""
    chain = stored.document.get("codecs", [])
    names = [codec["name"] for codec in chain]
    if stored.missing_chunks == "fill" or "sharding_indexed" not in names:
        return
    inner = chain[-1].get("configuration", {}).get("codecs") or []
    nested = any(codec["name"] == "sharding_indexed" for codec in inner)
    if stored.shards is None or nested:
        raise InputError(
            f"{stored.name} keeps shards inside other codecs, or their index in an unusual "
            "form: absent chunks would be read as zeros without an error. Rewrite it with "
            "plain shards, or pass ",
            Remedy("missing_chunks", "fill"),
            " if absent chunks mean the fill value",
        )


class FallbackReader(ChunkReader):
    """Reads chunk rows whole, by zarr-python, into one buffer."""

    _source: StoredArray

    def __init__(self, stored: StoredArray) -> None:
        super().__init__(stored)
        self._presence = Presence(stored)

    def load(self, chunk: int, out: Array) -> None:
        from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415  (as zarr itself)

        stored, metadata = self._source, self._source.metadata
        start, stop = stored.grid.rows(chunk)
        chunks = stored.side_by_side(chunk)
        rows = out[: stop - start]
        buffer = default_buffer_prototype().nd_buffer.from_numpy_array(rows)
        try:
            if metadata is not None:
                metadata.require_unchanged()
                # checked before the read, because a read of a pipe would never return
                for at in chunks:
                    self._presence.require(at)
            selection: tuple[slice, ...] = (slice(start, stop),)
            if len(stored.shape) > 1:
                left = stored.first_column_chunk * stored.chunks[1]
                selection = (*selection, slice(left, left + stored.shape[1]))
            retried(stored.array.get_basic_selection, selection, out=buffer)
            if metadata is None:
                for at in chunks:
                    if at not in stored.found and self._holds_only_fill(stored.columns(rows, at)):
                        self._presence.require(at)
                        stored.found.add(at)
        except StreamregError:
            raise
        # zarr-python passes on what its stores and codecs raise, without the key of the chunk
        except Exception as error:
            raise self._damage(chunks, error) from error

    def _damage(self, chunks: list[Place], error: Exception) -> DataCorruptionError:
        stored, damaged = self._source, chunks[0]
        for at in chunks:
            bounds = (slice(i * n, (i + 1) * n) for i, n in zip(at, stored.chunks, strict=True))
            try:
                self._presence.require(at)
                stored.array[tuple(bounds)]
            except DataCorruptionError as exact:
                return exact
            except Exception:  # noqa: BLE001  (the same error, now of one chunk)
                damaged = at
                break
        remedy = cure_of(error) or "Restore it from a copy, or rewrite it"
        why = f"{type(error).__name__}: {error}"
        return DataCorruptionError(f"{stored.chunk_text(damaged)} cannot be read: {why}. {remedy}")

    def _holds_only_fill(self, values: Array) -> bool:
        fill = self._source.array.fill_value or 0
        # the first row is checked first, because in most chunks it already differs
        return all(
            (np.isnan(rows) if fill != fill else rows == fill).all()  # noqa: PLR0124  (NaN)
            for rows in (values[:1], values)
        )
