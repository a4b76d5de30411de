"""Memory-mapped files, read with ``pread``, because mapped pages count as memory of the process."""

from __future__ import annotations

import mmap
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from streamreg.blocks import is_read_in_place
from streamreg.errors import DataCorruptionError
from streamreg.formatting import MIB, count
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import RowBuffer, ViewReader
from streamreg.sources.retries import read_whole

if TYPE_CHECKING:
    from streamreg.blocks import Array

# bytes of one read of the file if rows are not contiguous; a longer line is read whole
_PIECE_NBYTES = MIB
# lines are read one at a time if the file has more bytes between them
_GAP_NBYTES = 64 << 10


def memmap_rows(array: Array, name: str) -> MemmapSource | None:
    """Return the rows of an array in a mapped file; ``None`` if it is in memory.

    A copy-on-write map is in memory, because its pages may differ from those of its file.
    """
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base.base, mmap.mmap):
        base = base.base
    is_file = isinstance(base, np.memmap) and base.mode != "c" and base.filename is not None
    if is_file and array.size and array.ndim in {1, 2}:
        return MemmapSource(array, name, base)
    return None


class MemmapSource(RowSource):
    """A mapped file, or some of its rows and columns, in C or Fortran order.

    A line is a row, or, if ``by_columns`` (Fortran order), a column of a block.
    """

    column_step = 1
    # a write through a map need not change the time of its file
    fingerprint_reads_all_rows = True

    def __init__(self, array: Array, name: str, mapped: np.memmap[Any, Any]) -> None:
        self.array = array
        self._mapped = mapped
        self.name = name
        self.shape = array.shape
        self.dtype = array.dtype
        self.grid = RowGrid(n_rows=array.shape[0], chunk_rows=array.shape[0], divisible=True)
        self.path = Path(str(mapped.filename)).absolute()
        # the address of byte 0 of the file
        self.address = byte_bounds(mapped)[0] - mapped.offset
        strides = [abs(stride) for stride in array.strides]
        is_in_order = array.ndim == 2 and array.flags.c_contiguous  # noqa: PLR2004
        self.is_in_files = is_in_order and is_read_in_place(array.dtype)
        self.by_columns = array.ndim > 1 and array.shape[1] > 1 and strides[1] > strides[0]

    def local_paths(self) -> list[Path]:
        return [self.path]

    def open(self) -> Reader:
        file = self._open_file()
        return ViewReader(self.array) if file is None else _FileReader(self, file)

    def reader_nbytes(self, block_rows: int) -> int:
        block = block_rows * self.row_nbytes
        if self.array.flags.c_contiguous:
            return block
        return block + max(_PIECE_NBYTES, self._line_nbytes(block_rows))

    def in_strips(self, width: int) -> RowSource:
        source = MemmapSource(self.array.T, self.name, self._mapped)
        source.grid = RowGrid.in_blocks(len(source.array), width, divisible=True)
        source.is_in_files = False
        return source

    def lines_per_read(self, block_rows: int) -> int:
        """Return how many lines of a block one read of the file returns."""
        step = abs(self.array.strides[1 if self.by_columns else 0])
        line_nbytes = self._line_nbytes(block_rows)
        if step - line_nbytes > _GAP_NBYTES:
            return 1
        return max(1, (_PIECE_NBYTES - line_nbytes) // max(1, step))

    def _line_nbytes(self, block_rows: int) -> int:
        """Bytes of the file from the first value of a line to its last."""
        low, high = byte_bounds(self.array[:block_rows, 0] if self.by_columns else self.array[0])
        return high - low

    def _open_file(self) -> int | None:
        """Open the file; return ``None`` if another file has taken the name of the mapped one."""
        low, high = byte_bounds(self.array)
        with ExitStack() as on_failure:
            try:
                file = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                on_failure.callback(os.close, file)
                status = os.fstat(file)
            except OSError:
                return None
            if not _is_mapped(status, low):
                return None
            if status.st_size < high - self.address:
                raise DataCorruptionError(
                    f"{self.path} has {count(status.st_size, 'byte')} where {self.name} needs "
                    f"{high - self.address:,}; it was shortened after it was mapped"
                )
            on_failure.pop_all()
            return file


class _FileReader(Reader):
    """Reads contiguous rows in one call; copies others by pieces, in C or Fortran order."""

    def __init__(self, source: MemmapSource, file: int) -> None:
        self._source = source
        self._file = file
        self._rows = RowBuffer(source.shape[1:], source.dtype)
        self._piece = RowBuffer((), np.dtype(np.uint8))

    def read(self, start: int, stop: int) -> Array:
        source, n_rows = self._source, stop - start
        what = f"{source.span_text(start, stop)} of {source.name}, mapped from {source.path},"
        lines, rows = source.array[start:stop], self._rows.rows(n_rows)
        copies = rows
        if source.by_columns:
            lines, copies = lines.T, rows.reshape(-1, n_rows)
        try:
            if source.array.flags.c_contiguous:
                self._fill(rows.reshape(-1).view(np.uint8), lines)
            else:
                self._copy(lines, copies, source.lines_per_read(n_rows))
        except OSError as error:
            raise DataCorruptionError(f"{what} cannot be read: {error.strerror}") from error
        except EOFError:
            raise DataCorruptionError(
                f"{what} are missing: it was truncated after it was mapped"
            ) from None
        return copies.T if source.by_columns else rows

    def parts(self, start: int, stop: int) -> list[tuple[int, int, int]] | None:
        offset = byte_bounds(self._source.array[start:stop])[0] - self._source.address
        return [(self._file, offset, stop - start)]

    def _copy(self, lines: Array, copies: Array, step: int) -> None:
        for line in range(0, len(lines), step):
            at = slice(line, line + step)
            piece = lines[at]
            low, high = byte_bounds(piece)
            stored = self._piece.rows(high - low)
            self._fill(stored, piece)
            first = piece.ctypes.data - low
            copies[at] = np.ndarray(piece.shape, piece.dtype, stored.data, first, piece.strides)

    def _fill(self, target: Array, piece: Array) -> None:
        """Fill ``target`` with the file's bytes from the first value of a piece to its last."""
        offset = byte_bounds(piece)[0] - self._source.address
        read_whole(self._file, offset, target.data)

    def close(self) -> None:
        os.close(self._file)


def _is_mapped(status: os.stat_result, address: int) -> bool:
    """Whether this file is the one that is mapped at an address."""
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
