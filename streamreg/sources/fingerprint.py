"""The identity of the rows of an array, without reading all of them."""

from __future__ import annotations

import os
import zlib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from streamreg.blocks import SparseRows, on_host
from streamreg.formatting import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.sources.base import RowSource

# size and number of the pieces that a checksum reads, if nothing else identifies the values
_PIECE_NBYTES = MIB
_PIECES = 3


def identity(source: RowSource) -> dict[str, Any]:
    """Return what distinguishes the rows of a source from other rows, as JSON values."""
    grid = source.grid
    bounds = zlib.crc32(repr(grid.bounds).encode())
    known = {
        "shape": list(source.shape),
        "dtype": source.dtype.str,
        "chunks": f"{len(grid):,} of {grid.chunk_rows:,} rows ({bounds:08x})",
        "codecs": source.storage,
    }
    files = source.local_paths()
    if source.stamps is not None:
        return known
    # without stamps, the state of the files or a checksum of all or some rows identifies the values
    if files and not source.fingerprint_reads_all_rows:
        known["files"] = [folder_state(path) for path in files]
    elif not source.is_computed:
        known["values"] = f"{_checksum(source):08x}"
    return known


def folder_state(folder: Path) -> str:
    """Return a checksum of the names, sizes and times of all files in a folder, or of one file."""
    parents: Iterable[Any] = os.walk(folder, followlinks=True)
    if not folder.is_dir():
        parents = [(str(folder.parent), [], [folder.name])]
    checksum, seen = 0, set()
    for parent, folders, names in parents:
        folders.sort()  # a folder with two names is always found by the same one
        if os.path.realpath(parent) in seen:
            folders.clear()  # a link leads to a folder that was seen
            continue
        seen.add(os.path.realpath(parent))
        for file in (Path(parent, name) for name in names):
            try:
                status = file.stat()
            except OSError:
                continue  # removed since it was listed, or a dangling link
            # a relative path, because the folder may be renamed, or reached by a link
            known = f"{os.path.relpath(file, folder)} {status.st_size} {status.st_mtime_ns}"
            # a sum, because a folder lists its files in any order
            checksum += zlib.crc32(known.encode("utf-8", "surrogateescape"))
    return f"{checksum:x}"


def _checksum(source: RowSource) -> int:
    n_rows = source.shape[0]
    rows = min(n_rows, max(1, _PIECE_NBYTES // source.row_nbytes))
    starts = [(n_rows - rows) * piece // (_PIECES - 1) for piece in range(_PIECES)]
    if source.fingerprint_reads_all_rows:
        starts = list(range(0, n_rows, rows))
    checksum = 0
    with closing(source.open()) as reader:
        for start in starts:
            read: Any = reader.read(start, min(start + rows, n_rows))
            sparse = isinstance(read, SparseRows)
            for part in (read.values, read.indices, read.bounds) if sparse else (on_host(read),):
                values = np.ascontiguousarray(part)
                checksum = google_crc32c.extend(checksum, values.view(np.uint8).data.tobytes())
    return checksum
