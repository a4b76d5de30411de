"""Zarr arrays that appear on disk whole or not at all."""

from __future__ import annotations

import math
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import google_crc32c
import numpy as np
from numcodecs import Blosc

from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.output.staging import staged
from streamreg.signals import uninterrupted

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import zarr

    from streamreg.blocks import Array

# codec of blosc, and its level
_LZ4: Final = "lz4"
_LEVEL: Final = 5
CHUNK_NBYTES = 8 * MIB
# of an array that is written in batches of columns, of which each leaves freed chunks in the heaps
# of zarr's threads
BATCH_CHUNK_NBYTES = 2 * MIB


@contextmanager
def new_group(
    path: str | os.PathLike[str], attributes: dict[str, Any] | None = None, *, overwrite: bool
) -> Iterator[zarr.Group]:
    """Yield an empty Zarr v3 group, which is renamed to ``path`` when the ``with`` block succeeds.

    Until then it is ``<path>.partial``, which an exception removes; after a kill the next writer of
    ``path`` clears it. An overwrite renames twice: a kill between the two leaves the old output
    whole in ``<path>.replaced-…`` and the new one in ``<path>.partial``.
    """
    import zarr  # noqa: PLC0415  (imported only to write Zarr arrays)

    with staged(path, overwrite=overwrite) as (partial, _):
        yield uninterrupted(zarr.create_group, partial, zarr_format=3, attributes=attributes)


@contextmanager
def new_array(
    path: str | os.PathLike[str],
    shape: tuple[int, ...],
    *,
    overwrite: bool,
    identity: str = "",
    width: int | None = None,
) -> Iterator[zarr.Array[Any]]:
    """Yield a Zarr v3 array with the chunks of :func:`create_array`; see :func:`new_group`.

    ``width`` is the number of columns of a chunk, which has the rows that fit in 2 MiB.
    With an ``identity`` an interrupt does not remove the partial array: the next call with the same
    identity yields it again.
    """
    import zarr  # noqa: PLC0415  (imported only to write Zarr arrays)

    with staged(path, overwrite=overwrite, identity=identity) as (partial, is_resumed):
        array = None
        if is_resumed:
            # zarr raises many kinds of errors for incomplete metadata
            with suppress(Exception):
                array = zarr.open_array(partial, mode="r+")
        if array is None:
            array = uninterrupted(zarr.create_array, partial, **_layout(shape, width))
        yield array


def create_array(group: zarr.Group, name: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """Return a new float64 array of ``group``, (N,) or (N, D), in chunks of whole rows.

    A chunk has the rows that fit in 8 MiB; a row larger than 8 MiB is split. Each chunk is
    compressed and has a crc32c. A chunk of zeros is written too, because a missing chunk is an
    error for a reader.
    """
    return uninterrupted(group.create_array, name, **_layout(shape))


class RowAppender:
    """Writes an array in order, each chunk once; about four chunks are in memory.

    ``width`` is the number of columns that are written at once; ``None``: all of them.
    """

    def __init__(self, array: zarr.Array[Any], width: int | None = None) -> None:
        self._array = array
        widths = array.shape[1:] if width is None or array.ndim == 1 else (width,)
        self._buffer = np.empty((array.chunks[0], *widths), array.dtype)
        self._columns: tuple[slice, ...] = ()
        self._filled = self._written = 0

    def move_to(self, start: int, columns: slice) -> None:
        """Begin at row ``start``, the first of a chunk, of these columns, which are whole chunks.

        After the last columns, which may be fewer, there are no others.
        """
        if self._array.ndim > 1:
            # the same buffer, because one that is freed may stay in the heap
            self._buffer = self._buffer[:, : columns.stop - columns.start]
            self._columns = (columns,)
        self._filled, self._written = 0, start

    def append(self, rows: Array) -> None:
        """Add rows, (n,) or (n, D)."""
        self._require_count(self._written + self._filled + len(rows), complete=False)
        while len(rows):
            piece = rows[: len(self._buffer) - self._filled]
            rows = rows[len(piece) :]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            if self._filled == len(self._buffer):
                self._write()

    def close(self) -> None:
        """Write the last rows; raise :class:`InputError` if the array has more rows."""
        self._require_count(self._written + self._filled, complete=True)
        self._write()

    def _write(self) -> None:
        if self._filled:
            stop = self._written + self._filled
            rows = slice(self._written, stop)
            place = (rows, *self._columns) if self._columns else rows
            uninterrupted(self._array.__setitem__, place, self._buffer[: self._filled])
            self._written, self._filled = stop, 0

    def _require_count(self, n_rows: int, *, complete: bool) -> None:
        expected = self._array.shape[0]
        if n_rows > expected or (complete and n_rows < expected):
            raise InputError(
                f"{self._array.name} was made for {expected:,} rows but {n_rows:,} came; "
                "did the data change while they were read?"
            )


def compressors() -> tuple[Any, ...]:
    """Return the codecs of all chunks, the last of which is a checksum."""
    from zarr.codecs import BloscCodec, Crc32cCodec  # noqa: PLC0415  (as in new_group)

    # A fit reads the data many times, so decoding must be fast. GB/s of float64, one thread,
    # page cache; in brackets the compression ratio (flights: 30 columns, 2 made one-hot):
    #                          flights      normal deviates   200 one-hot columns
    #   crc32c alone            9.7 (1)       10.5 (1)            11 (1)
    #   zstd 1, own checksum    2.0 (10)       1.5 (1.04)          9 (43)
    #   lz4 shuffled, crc32c    4.8 (6.1)      5.1 (1.06)          9 (18)
    #   lz4, crc32c             4.5 (5.4)     10.9 (1)            22 (33)
    # The last costs nothing if values cannot be compressed; else it is fastest on a real disk.
    return BloscCodec(cname=_LZ4, clevel=_LEVEL, shuffle="noshuffle"), Crc32cCodec()


def encoded(values: Array) -> tuple[bytes, bytes]:
    """Return a chunk as :func:`compressors` encode it: what is compressed, and its checksum."""
    # in a thread of the caller's, blosc starts none of its own
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    packed = Blosc(_LZ4, _LEVEL, Blosc.NOSHUFFLE).encode(little)
    checksum = google_crc32c.value(packed)
    return packed, checksum.to_bytes(4, "little")


def _layout(shape: tuple[int, ...], width: int | None = None) -> dict[str, Any]:
    n_items = (CHUNK_NBYTES if width is None else BATCH_CHUNK_NBYTES) // 8
    longest = (n_items // (width or max(1, math.prod(shape[1:]))), width or n_items)
    return {
        "shape": shape,
        "dtype": np.float64,
        "chunks": tuple(max(1, min(lengths)) for lengths in zip(shape, longest, strict=False)),
        "compressors": compressors(),
        "config": {"write_empty_chunks": True},
    }
