"""Where the chunks of a Zarr array are in its shards."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.formatting import count
from streamreg.sources.zarr.codecs import DamagedChunkError, without_checksum

if TYPE_CHECKING:
    from streamreg.blocks import Array

# offset and size of an absent inner chunk
_NO_CHUNK = 2**64 - 1


@dataclass(frozen=True)
class ShardIndex:
    """The index of a shard: the shape of the shard in chunks, and how the index is stored."""

    shape: tuple[int, ...]
    at_end: bool
    crc32c: bool

    @classmethod
    def of(cls, codec: dict[str, Any], shape: tuple[int, ...]) -> ShardIndex | None:
        """Return the index that a codec of Zarr v3 writes; ``None`` if it has another form."""
        if codec["name"] != "sharding_indexed":
            return None
        options = codec["configuration"]
        names = [index_codec["name"] for index_codec in options["index_codecs"]]
        endian = (options["index_codecs"][0].get("configuration") or {}).get("endian")
        if names not in (["bytes"], ["bytes", "crc32c"]) or endian != "little":
            return None
        return cls(shape, options.get("index_location", "end") == "end", names[-1] == "crc32c")

    @property
    def nbytes(self) -> int:
        """Bytes of the index in its file."""
        return 16 * math.prod(self.shape) + (4 if self.crc32c else 0)

    def offset(self, shard_nbytes: int) -> int:
        """Return where the index begins in its shard; a shard smaller than its index is damaged."""
        if shard_nbytes < self.nbytes:
            raise DamagedChunkError(
                f"its shard has {count(shard_nbytes, 'byte')}, fewer than its index"
            )
        return shard_nbytes - self.nbytes if self.at_end else 0

    def parse(self, stored: memoryview) -> Array:
        """Return offset and size of each inner chunk, of shape (…, 2), if the checksum agrees."""
        if len(stored) != self.nbytes:
            raise DamagedChunkError(f"its shard's index has {count(len(stored), 'byte')}")
        if self.crc32c:
            stored = without_checksum(stored, " of its shard's index")
        return np.frombuffer(stored, "<u8").reshape(*self.shape, 2)


def locate(index: Array, shard_nbytes: int, inner: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the offset of a chunk in its shard, and its size; ``None`` if it is absent."""
    offset, nbytes = (int(value) for value in index[inner])
    if offset == nbytes == _NO_CHUNK:
        return None
    if offset + nbytes > shard_nbytes:
        raise DamagedChunkError("it ends beyond its shard, which is truncated")
    return offset, nbytes
