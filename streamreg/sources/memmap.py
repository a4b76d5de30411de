"""Memory-mapped files, read so that mapped pages do not count as memory of this process.

Rows that lie in one piece are read with ``pread``. Every other layout is copied from the map, a
piece at a time, and the pages of each piece are given back to the system.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from streamreg.errors import DataCorruptionError
from streamreg.formatting import MIB, count, rows_text
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import RowBuffer
from streamreg.sources.retries import retried

if TYPE_CHECKING:
    from streamreg.blocks import Array

# bytes of the map that are copied before their pages are given back, if one line has no more
_PIECE_NBYTES = MIB
# Linux maps the huge page around an address that is touched, if the page cache holds one; else
# 64 KiB around it (fault_around_bytes). Measured on Linux 6.18, ext4.
_AROUND_NBYTES = 2 * MIB


def memmap_rows(array: Array, name: str) -> MemmapSource | None:
    """Return the rows of an array that lies in a mapped file; ``None`` if it is in memory.

    A copy-on-write map is in memory, because its pages may differ from those of its file.
    """
    base: Any = array
    mapped: np.memmap[Any, Any] | None = None
    while isinstance(base, np.ndarray):
        owner: Any = base.base
        if isinstance(base, np.memmap) and isinstance(owner, mmap.mmap):
            mapped = base
        base = owner
    if mapped is None or mapped.mode == "c" or mapped.filename is None:
        return None
    if array.size == 0 or array.ndim not in {1, 2}:
        return None
    return MemmapSource(array, name, mapped)


class MemmapSource(RowSource):
    """A mapped file in any layout: C or Fortran order, some of its rows or columns.

    Attributes
    ----------
    array
        The map.
    path
        Its file.
    map
        Python's map of the file, from the byte ``map_offset`` of the file on.
    offset
        Byte of the file at which the first value lies, if the array is in C order.
    by_columns
        Whether a column lies closer together than a row, as in Fortran order.
    """

    def __init__(self, array: Array, name: str, mapped: np.memmap[Any, Any]) -> None:
        self.array = array
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        self.grid = RowGrid(n_rows=array.shape[0], chunk_rows=array.shape[0], divisible=True)
        self.path = Path(str(mapped.filename)).absolute()
        self.map: Any = mapped.base
        self.map_offset = mapped.offset - mapped.offset % mmap.ALLOCATIONGRANULARITY
        # the address of byte 0 of the file
        self.address = byte_bounds(mapped)[0] - mapped.offset
        low, high = byte_bounds(array)
        self.offset = low - self.address
        self._end = high - self.address
        strides = [abs(stride) for stride in array.strides]
        self.by_columns = array.ndim > 1 and array.shape[1] > 1 and strides[1] > strides[0]

    def inputs(self) -> list[Path]:
        return [self.path]

    @property
    def is_checked_whole(self) -> bool:
        # a write through a map need not change the time of its file
        return True

    def open(self) -> Reader:
        self.require_whole()
        file = self._open_file() if self.array.flags.c_contiguous else None
        return _MapReader(self) if file is None else _FileReader(self, file)

    def reader_nbytes(self, block_rows: int) -> int:
        block = block_rows * self.row_nbytes
        if self.array.flags.c_contiguous:
            return block
        return block + self._piece_nbytes(block_rows) + 2 * _AROUND_NBYTES

    def require_whole(self) -> None:
        """Raise if the file was shortened: touching a page beyond its end kills the process.

        Raises
        ------
        DataCorruptionError
            The file was shortened after it was mapped.
        """
        if self.map.size() < self._end:
            raise DataCorruptionError(
                f"{self.path} has {count(self.map.size(), 'byte')} where {self.name} needs "
                f"{self._end:,}; it was shortened after it was mapped"
            )

    def lines_at_once(self, block_rows: int) -> int:
        """Return how many rows, or columns of a block, make a piece of the map."""
        step = abs(self.array.strides[1 if self.by_columns else 0])
        return max(1, (_PIECE_NBYTES - self._line_nbytes(block_rows)) // max(1, step))

    def _line_nbytes(self, block_rows: int) -> int:
        """Bytes of the map from the first value of a row, or column of a block, to its last."""
        if self.by_columns:
            return (block_rows - 1) * abs(self.array.strides[0]) + self.dtype.itemsize
        steps = zip(self.shape[1:], self.array.strides[1:], strict=True)
        return self.dtype.itemsize + sum((length - 1) * abs(step) for length, step in steps)

    def _piece_nbytes(self, block_rows: int) -> int:
        return max(_PIECE_NBYTES, self._line_nbytes(block_rows))

    def _open_file(self) -> int | None:
        """Return the open file; ``None`` if the file of that name is no longer the mapped one."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            is_mapped = _is_mapped(os.fstat(file), self.address + self.offset)
        except OSError:
            is_mapped = False
        if is_mapped:
            return file
        os.close(file)
        return None


class _FileReader(Reader):
    """Reads rows that lie in one piece."""

    def __init__(self, source: MemmapSource, file: int) -> None:
        self._source = source
        self._file = file
        self._room = RowBuffer(source.shape[1:], source.dtype)

    def read(self, start: int, stop: int) -> Array:
        rows = self._room.rows(stop - start)
        target = rows.reshape(-1).view(np.uint8).data
        offset = self._source.offset + start * self._source.row_nbytes
        done = 0
        while done < len(target):
            try:
                n_read = retried(os.preadv, self._file, [target[done:]], offset + done)
            except OSError as error:
                raise self._error(start, stop, f"cannot be read: {error.strerror}") from error
            if n_read == 0:
                raise self._error(start, stop, "are gone: it was shortened after it was mapped")
            done += n_read
        return rows

    def _error(self, start: int, stop: int, what: str) -> DataCorruptionError:
        source = self._source
        return DataCorruptionError(
            f"{rows_text(start, stop)} of {source.name}, mapped from {source.path}, {what}"
        )

    def close(self) -> None:
        os.close(self._file)


class _MapReader(Reader):
    """Copies rows of any layout from the map; the copy has C or Fortran order, as the map has."""

    def __init__(self, source: MemmapSource) -> None:
        self._source = source
        self._room = RowBuffer(source.shape[1:], source.dtype)

    def read(self, start: int, stop: int) -> Array:
        source, n_rows = self._source, stop - start
        source.require_whole()
        mapped, rows = source.array[start:stop], self._room.rows(n_rows)
        lines, copies = mapped, rows
        if source.by_columns:
            lines, copies = mapped.T, rows.reshape(-1, n_rows)
        step = source.lines_at_once(n_rows)
        for line in range(0, len(lines), step):
            copies[line : line + step] = lines[line : line + step]
            self._give_back(lines[line : line + step])
        return copies.T if source.by_columns else rows

    def _give_back(self, piece: Array) -> None:
        """Unmap the pages of a piece: the page cache of the system still has them."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        first = self._source.address + self._source.map_offset
        low, high = (bound - first for bound in byte_bounds(piece))
        start = max(0, low - _AROUND_NBYTES) // mmap.PAGESIZE * mmap.PAGESIZE
        stop = min(len(self._source.map), high + _AROUND_NBYTES)
        self._source.map.madvise(mmap.MADV_DONTNEED, start, stop - start)


def _is_mapped(status: os.stat_result, address: int) -> bool:
    """Whether this file is the one mapped at an address, not another that has taken its name."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return True  # only Linux has this file
    for line in maps.splitlines():
        # 7f5c1a000000-7f5c1a021000 r--s 00000000 08:01 1234567   /data/X.bin
        span, _, _, _, inode, *_ = line.split()
        start, stop = (int(bound, 16) for bound in span.split("-"))
        if start <= address < stop:
            return int(inode) == status.st_ino
    return False
