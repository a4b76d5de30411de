"""What tells the rows of one array from those of another, without reading all."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.memory import MIB

if TYPE_CHECKING:
    from pathlib import Path

    from streamreg.sources.base import RowSource

# where no stamps of files tell: of arrays in memory many pieces are looked at, of others, each of
# which may be a chunk to decode, three
_PIECE_NBYTES = MIB
_MANY, _FEW = 64, 3


def identity(source: RowSource) -> dict[str, Any]:
    """Return shape, dtype, chunks and codecs, and a checksum of some rows, as JSON knows them."""
    grid = source.grid
    bounds = zlib.crc32(repr(grid.bounds).encode())
    known = {
        "shape": list(source.shape),
        "dtype": source.dtype.str,
        "chunks": f"{len(grid):,} of {grid.chunk_rows:,} rows ({bounds:08x})",
        "codecs": source.storage,
    }
    if source.stamps is None:
        known["values"] = f"{_sampled(source):08x}"
    return known


def folder_state(folder: Path) -> str:
    """Return a checksum of the names, sizes and times of all files in a folder, or of one file."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    checksum = 0
    for file in files:
        status = file.lstat()
        known = f"{file.relative_to(folder)} {status.st_size} {status.st_mtime_ns}"
        checksum = zlib.crc32(known.encode("utf-8", "surrogateescape"), checksum)
    return f"{checksum:08x}"


def _sampled(source: RowSource) -> int:
    pieces = _MANY if source.in_memory else _FEW
    rows = min(source.shape[0], max(1, _PIECE_NBYTES // source.row_nbytes))
    checksum, reader = 0, source.open()
    try:
        for piece in range(pieces):
            start = (source.shape[0] - rows) * piece // (pieces - 1)
            values = np.ascontiguousarray(reader.read(start, start + rows))
            checksum = zlib.crc32(values.view(np.uint8).data, checksum)
    finally:
        reader.close()
    return checksum
