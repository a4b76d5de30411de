"""Whether chunks of a Zarr array are in its store: zarr-python reads absent ones as fill values."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from streamreg.errors import DataCorruptionError
from streamreg.sources.zarr.codecs import DamagedChunkError
from streamreg.sources.zarr.layout import locate

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.zarr.stored import Place, StoredArray


class Presence:
    """Looks for chunks in a store, for one thread."""

    def __init__(self, stored: StoredArray) -> None:
        self._stored = stored
        # index and size of each shard in the present row of shards, by place in the grid of files
        self._indices: dict[Place, tuple[Array, int]] = {}

    def require(self, at: Place) -> None:
        """Raise if a chunk is absent and required, or if the index of its shard is damaged."""
        stored = self._stored
        try:
            is_stored = self._is_stored(*stored.split(at))
        except DamagedChunkError as damage:
            raise DataCorruptionError(
                f"{stored.chunk_text(at)} is damaged: {damage}. "
                "Restore it from a copy, or rewrite it"
            ) from damage
        if not is_stored:
            stored.refuse_missing(at)

    def _is_stored(self, file_at: Place, inner: Place) -> bool:
        from zarr.abc.store import RangeByteRequest  # noqa: PLC0415  (as zarr itself)
        from zarr.core.sync import sync  # noqa: PLC0415

        stored = self._stored
        key = stored.key(file_at)
        path = stored.array.store_path / key
        if file_at not in self._indices:
            if not sync(path.store.exists(path.path)):
                if stored.metadata is not None and os.path.lexists(stored.metadata.folder / key):
                    raise DamagedChunkError("what is in its place is not a regular file")
                return False
            if stored.shards is None:
                return True
            if any(known[0] != file_at[0] for known in self._indices):
                self._indices = {}
            nbytes = sync(path.store.getsize(path.path))
            start = stored.shards.offset(nbytes)
            index = sync(path.get(byte_range=RangeByteRequest(start, start + stored.shards.nbytes)))
            content = memoryview(b"" if index is None else index.to_bytes())
            self._indices[file_at] = stored.shards.parse(content), nbytes
        return locate(*self._indices[file_at], inner) is not None
