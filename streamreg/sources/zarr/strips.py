"""Columns of a local Zarr array as rows: read without the other columns of their chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import RowBuffer
from streamreg.sources.zarr.local import LocalReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array
    from streamreg.sources.zarr.local import ChunkFiles
    from streamreg.sources.zarr.stored import Place


class ZarrColumns(RowSource):
    """The columns of an array (N, D), as rows (D, N).

    Of uncompressed chunks some columns are read by one read for each row, and whole chunks by one
    read. Other chunks are decoded whole, so that blocks should have all columns of a chunk.
    """

    why_unreachable_from_workers = ""

    def __init__(self, files: ChunkFiles, width: int) -> None:
        stored = files.stored
        self.name, self.dtype = stored.name, stored.dtype
        self.shape = stored.shape[1], stored.shape[0]
        self.grid = RowGrid.in_blocks(self.shape[0], width, divisible=files.codec.is_plain)
        self.files = files

    def open(self) -> Reader:
        return _StripReader(self.files)

    def reader_nbytes(self, block_rows: int) -> int:
        stored, files = self.files.stored, self.files
        index = 0 if stored.shards is None else stored.shards.nbytes * stored.files_shape[1]
        encoded = 0 if files.codec.is_plain else files.max_encoded_nbytes
        return block_rows * self.row_nbytes + stored.chunk_nbytes + encoded + index

    def require_unchanged(self) -> None:
        self.files.stamps.require_unchanged(self.files.path)


class _StripReader(LocalReader):
    def __init__(self, files: ChunkFiles) -> None:
        super().__init__(files)
        self._strip = RowBuffer((), files.stored.dtype)

    def read(self, start: int, stop: int) -> Array:
        n_rows, width = self._source.shape[0], self._source.chunks[1]
        strip = self._strip.rows(n_rows * (stop - start)).reshape(n_rows, stop - start)
        for chunk_row, column in self._chunks(start, stop):
            low, high = self._source.grid.rows(chunk_row)
            left = column * width
            first, last = max(start, left), min(stop, left + width)
            part = strip[low:high, first - start : last - start]
            self._fill_part((chunk_row, column), part, first - left)
        return strip.T

    def prefetch(self, start: int, stop: int) -> None:
        self._prefetch_chunks(self._chunks(start, stop))

    def _chunks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield the places of the chunks that hold some columns."""
        width = self._source.chunks[1]
        columns = range(start // width, -(-stop // width))
        for chunk_row in range(len(self._source.grid)):
            yield from ((chunk_row, column) for column in columns)

    def _fill_part(self, chunk: Place, out: Array, first: int) -> None:
        """Fill ``out`` (n, w) with the columns of a chunk from ``first`` on."""
        n, width = out.shape
        if self._files.codec.is_plain and width < self._source.chunks[1]:
            self._read_columns(chunk, out, first)
            return
        rows = self._narrow.rows(n if self._files.codec.is_plain else self._source.chunks[0])
        self._read_chunk(chunk, rows, 0)
        out[...] = rows[:n, first : first + width]
