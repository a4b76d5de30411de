"""Memory-mapped files, read with ``pread``: mapped pages would count as this process's own."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import DataCorruptionError
from streamreg.formatting import count, rows_text
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import RowBuffer, ViewReader
from streamreg.sources.retries import retried

if TYPE_CHECKING:
    from streamreg.blocks import Array

# rows that lie no further apart are read with what lies between them
_NEAR_NBYTES = 8192


def memmap_rows(array: Array, name: str) -> MemmapSource | None:
    """Return the rows of an array that lies in a mapped file; ``None`` if it must be read as is.

    That is so in memory, for copy-on-write maps, whose pages may differ from their file, and
    where neither rows nor columns lie in one piece.
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
    if array.size == 0 or array.ndim not in {1, 2} or min(array.strides) <= 0:
        return None
    if array.dtype.itemsize not in {array.strides[0], array.strides[-1]} and array[0].size > 1:
        return None
    return MemmapSource(array, name, mapped)


class MemmapSource(RowSource):
    """A mapped file: C or Fortran order, some of its rows or columns, from any offset.

    Attributes
    ----------
    array
        The map, used if its file is gone or is another one by now.
    path
        Its file.
    offset
        Where the first value lies in it.
    end
        How long the file must be.
    """

    def __init__(self, array: Array, name: str, mapped: np.memmap[Any, Any]) -> None:
        self.array = array
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        self.grid = RowGrid(n_rows=array.shape[0], chunk_rows=array.shape[0], divisible=True)
        self.path = Path(str(mapped.filename)).absolute()
        first = array.__array_interface__["data"][0]
        self.offset = mapped.offset + first - mapped.__array_interface__["data"][0]
        steps = zip(array.shape, array.strides, strict=True)
        self.end = self.offset + self.dtype.itemsize + sum((n - 1) * step for n, step in steps)
        self._map: Any = mapped.base
        itemsize = self.dtype.itemsize
        self.by_columns = array.ndim > 1 and array.shape[1] > 1 and array.strides[1] != itemsize
        gap = 1 if len(array) == 1 else array.strides[0]
        self.row_step = gap if gap <= max(_NEAR_NBYTES, 2 * self.row_nbytes) else None

    def inputs(self) -> list[Path]:
        return [self.path]

    @property
    def is_checked_whole(self) -> bool:
        # writing through a map need not change the time of its file
        return True

    def open(self) -> Reader:
        if self._map.size() < self.end:
            raise DataCorruptionError(
                f"{self.path} has {count(self._map.size(), 'byte')} where {self.name} needs "
                f"{self.end:,}; it was shortened after it was mapped"
            )
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return ViewReader(self.array)
        if _is_mapped(os.fstat(file), self.array.__array_interface__["data"][0]):
            return _FileReader(self, file)
        os.close(file)
        return ViewReader(self.array)

    def reader_nbytes(self, block_rows: int) -> int:
        if self.by_columns or self.row_step is None:
            return block_rows * self.row_nbytes
        read = block_rows * max(self.row_step, self.row_nbytes)
        return read + (0 if self.row_step <= self.row_nbytes else block_rows * self.row_nbytes)


class _FileReader(Reader):
    def __init__(self, source: MemmapSource, file: int) -> None:
        self._source = source
        self._file = file
        row_shape = source.shape[1:]
        self._room = RowBuffer(row_shape, source.dtype)
        self._raw = RowBuffer((), np.dtype(np.uint8))

    def read(self, start: int, stop: int) -> Array:
        source, n_rows = self._source, stop - start
        offset = source.offset + start * source.array.strides[0]
        if source.by_columns:
            columns = self._room.rows(n_rows).reshape(-1, n_rows)
            for column, values in enumerate(columns):
                self._fill(values, offset + column * source.array.strides[1], start, stop)
            return columns.T
        if source.row_step is None:
            rows = self._room.rows(n_rows)
            for row, values in enumerate(rows.reshape(n_rows, -1)):
                self._fill(values, offset + row * source.array.strides[0], start, stop)
            return rows
        raw = self._raw.rows((n_rows - 1) * source.row_step + source.row_nbytes)
        self._fill(raw, offset, start, stop)
        shape = (n_rows, *source.shape[1:])
        read = np.ndarray(shape, source.dtype, raw, strides=source.array.strides)
        if read.flags.c_contiguous:
            return read
        rows = self._room.rows(n_rows)
        rows[...] = read
        return rows

    def _fill(self, values: Array, offset: int, start: int, stop: int) -> None:
        target = values.view(np.uint8).data
        done = 0
        while done < len(target):
            try:
                n_read = retried(os.preadv, self._file, [target[done:]], offset + done)
            except OSError as error:
                raise self._error(start, stop, f"cannot be read: {error.strerror}") from error
            if n_read == 0:
                raise self._error(start, stop, "are gone: it was shortened after it was mapped")
            done += n_read

    def _error(self, start: int, stop: int, what: str) -> DataCorruptionError:
        source = self._source
        return DataCorruptionError(
            f"{rows_text(start, stop)} of {source.name}, mapped from {source.path}, {what}"
        )

    def close(self) -> None:
        os.close(self._file)


def _is_mapped(status: os.stat_result, address: int) -> bool:
    """Whether it is this file that is mapped at an address, and not one that had its name."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return True  # only Linux tells
    for line in maps.splitlines():
        # 7f5c1a000000-7f5c1a021000 r--s 00000000 08:01 1234567   /data/X.bin
        span, _, _, _, inode, *_ = line.split()
        start, stop = (int(bound, 16) for bound in span.split("-"))
        if start <= address < stop:
            return int(inode) == status.st_ino
    return False
