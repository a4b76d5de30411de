"""Decode the bytes of one stored chunk into a buffer.

These are the codecs of nearly all numeric Zarr arrays: none, zstd, blosc, gzip, zlib and lz4, with
or without crc32c. zarr-python decodes all others.

A damaged or hostile chunk may claim, or hold, terabytes. Nothing is decoded beyond the size of the
chunk: its size is compared with the header of the frame, or enforced during decoding.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import google_crc32c
import numcodecs
import numpy as np

from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from streamreg.blocks import Array

_CRC_NBYTES = 4
_BLOSC_HEADER = struct.Struct("<4BIII")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
# zlib's wbits for a gzip header, and for its own
_INFLATE_WINDOWS = {"gzip": 31, "zlib": 15}
_INFLATE_PIECE = 1 << 18


class DamagedChunkError(Exception):
    """The bytes of a chunk are not what its codecs wrote; the message says what is wrong."""


@dataclass(frozen=True)
class ChunkCodec:
    """How a chunk was encoded: by at most one compressor, then perhaps by crc32c."""

    # a codec of numcodecs, or ``None``
    compressor: Any = None
    # whether the last four bytes are the checksum of all before them
    crc32c: bool = False
    # whether the compressor wrote a checksum of its own
    frame_checksum: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether the stored bytes are the values, so that any part can be read alone."""
        return self.compressor is None and not self.crc32c

    @property
    def has_checksum(self) -> bool:
        """Whether a flipped bit is detected."""
        return self.crc32c or self.frame_checksum

    def decode(self, encoded: memoryview, out: Array) -> None:
        """Fill ``out``, a contiguous array of the whole chunk; raise :class:`DamagedChunkError`."""
        if self.crc32c:
            encoded = without_checksum(encoded)
        values = out.reshape(-1).view(np.uint8)
        if self.compressor is None:
            if len(encoded) != len(values):
                raise DamagedChunkError(
                    f"it has {count(len(encoded), 'byte')} where the chunk has {len(values):,}"
                )
            values[:] = np.frombuffer(encoded, np.uint8)
            return
        codec_id = self.compressor.codec_id
        claimed = _claimed_nbytes(codec_id, encoded)
        if claimed is not None and claimed != len(values):
            raise DamagedChunkError(
                f"its header claims {claimed:,} decoded bytes where the chunk has {len(values):,}"
            )
        if codec_id in _INFLATE_WINDOWS:
            inflate(encoded, values.data, codec_id)
            return
        try:
            self.compressor.decode(encoded, values)
        # numcodecs raises RuntimeError, ValueError and OSError, also if it does not fill the chunk
        except Exception as error:
            raise DamagedChunkError(f"{codec_id} cannot decode it ({error})") from error


def parse_v3(codecs: Sequence[Mapping[str, Any]]) -> tuple[ChunkCodec, Literal["<", ">"]] | None:
    """Return the codec and byte order of a Zarr v3 codec list; ``None`` for other codecs."""
    chain = [(codec["name"], codec.get("configuration") or {}) for codec in codecs]
    crc32c = chain[-1][0] == "crc32c"
    match chain[:-1] if crc32c else chain:
        case [("bytes", layout)]:
            codec = ChunkCodec(crc32c=crc32c)
        case [("bytes", layout), (("zstd" | "blosc" | "gzip") as name, options)]:
            codec = _compressed(name, options, crc32c=crc32c)
        case _:
            return None
    return codec, ">" if layout.get("endian") == "big" else "<"


def parse_v2(metadata: Mapping[str, Any]) -> ChunkCodec | None:
    """Return the codec of Zarr v2 metadata; ``None`` for filters, F order or other codecs."""
    transposed = metadata.get("order", "C") != "C" and len(metadata["chunks"]) > 1
    if transposed or metadata.get("filters"):
        return None
    options = metadata.get("compressor")
    if options is None:
        return ChunkCodec()
    if options["id"] not in {"zstd", "blosc", "gzip", "zlib", "lz4"}:
        return None
    return _compressed(options["id"], options)


def _compressed(name: str, options: Mapping[str, Any], *, crc32c: bool = False) -> ChunkCodec:
    # decoding needs only the name, because the header of the frame has all parameters
    compressor = numcodecs.get_codec({"id": name})
    return ChunkCodec(compressor, crc32c, name in _INFLATE_WINDOWS or bool(options.get("checksum")))


def without_checksum(stored: memoryview, what: str = "") -> memoryview:
    """Return the bytes before a crc32c checksum; raise if the checksum is not that of the bytes."""
    body, checksum = stored[:-_CRC_NBYTES], bytes(stored[-_CRC_NBYTES:])
    if len(checksum) < _CRC_NBYTES:
        raise DamagedChunkError(f"it has {count(len(stored), 'byte')}, too few for its checksum")
    # the library takes read-only arrays but no memory views, and a copy costs more than the sum
    view = np.frombuffer(body, np.uint8)
    view.flags.writeable = False
    if int(google_crc32c.value(view)).to_bytes(_CRC_NBYTES, "little") != checksum:
        raise DamagedChunkError(f"the crc32c checksum{what} differs")
    return body


def inflate(encoded: memoryview, out: memoryview, codec_id: str) -> None:
    """Fill ``out`` from a gzip or zlib stream, a piece at a time; more bytes are refused."""
    window = _INFLATE_WINDOWS[codec_id]
    stream = zlib.decompressobj(window)
    filled = 0
    try:
        for start in range(0, len(encoded), _INFLATE_PIECE):
            pending: memoryview | bytes = encoded[start : start + _INFLATE_PIECE]
            while pending:
                if stream.eof:  # gzip streams may be concatenated
                    stream = zlib.decompressobj(window)
                piece = stream.decompress(pending, _INFLATE_PIECE)
                if filled + len(piece) > len(out):
                    raise DamagedChunkError(
                        f"it decodes to more than the chunk's {count(len(out), 'byte')}"
                    )
                out[filled : filled + len(piece)] = piece
                filled += len(piece)
                pending = stream.unconsumed_tail or stream.unused_data
    except zlib.error as error:
        raise DamagedChunkError(f"{codec_id} cannot decode it ({error})") from error
    if filled < len(out) or not stream.eof:
        raise DamagedChunkError(
            f"it ends after {filled:,} decoded bytes where the chunk has {len(out):,}"
        )


def _claimed_nbytes(codec_id: str, encoded: memoryview) -> int | None:
    """Return the decoded size that a frame's header claims; ``None`` if it claims none."""
    least = {"blosc": _BLOSC_HEADER.size, "lz4": 4}.get(codec_id, 0)
    if len(encoded) < least:
        raise DamagedChunkError(
            f"it has {count(len(encoded), 'byte')}, too few for the header of {codec_id}"
        )
    if codec_id == "blosc":
        *_, decoded_nbytes, _, frame_nbytes = _BLOSC_HEADER.unpack_from(encoded)
        if frame_nbytes != len(encoded):
            raise DamagedChunkError(
                f"its blosc header claims {count(frame_nbytes, 'byte')} but it has {len(encoded):,}"
            )
        return int(decoded_nbytes)
    if codec_id == "zstd":
        return _zstd_content_nbytes(encoded)
    if codec_id == "lz4":
        return int.from_bytes(encoded[:4], "little")
    return None


def _zstd_content_nbytes(frame: memoryview) -> int | None:
    """Return the frame content size of RFC 8878, section 3.1.1.1.4; ``None`` if it is absent."""
    if bytes(frame[:4]) != _ZSTD_MAGIC or len(frame) < 6:  # noqa: PLR2004
        raise DamagedChunkError("it does not begin with a zstd frame")
    descriptor = frame[4]
    is_single_segment = descriptor >> 5 & 1
    width = (is_single_segment, 2, 4, 8)[descriptor >> 6]
    if width == 0:
        return None
    begin = 6 - is_single_segment + (0, 1, 2, 4)[descriptor & 0x3]
    size = int.from_bytes(frame[begin : begin + width], "little")
    # two-byte sizes start at 256, where one-byte sizes end
    return size + 256 if width == 2 else size  # noqa: PLR2004
