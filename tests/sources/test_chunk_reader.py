"""Blocks of a reader of chunks are the rows that were stored, in any order of reads."""

from __future__ import annotations

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from streamreg.sources.base import RowGrid
from streamreg.sources.chunk_reader import ChunkReader, RowBuffer

ROWS = np.arange(2 * 103.0).reshape(103, 2)
GRIDS = {
    "equal": RowGrid(103, 10),
    "one row": RowGrid(103, 1),
    "one chunk": RowGrid(103, 103),
    "unequal": RowGrid(103, 50, bounds=(0, 7, 8, 40, 90, 103)),
}


class Rows(ChunkReader):
    """Chunks of ``ROWS``; counts what is loaded."""

    def __init__(self, grid):
        super().__init__(SimpleNamespace(shape=ROWS.shape, dtype=ROWS.dtype, grid=grid))
        self.loaded = []
        self.fails = False

    def load(self, chunk, out):
        start, stop = self._source.grid.rows(chunk)
        assert len(out) == self._source.grid.chunk_rows
        # as codecs do, which fill a chunk that is only partly of rows
        out[...] = -1.0
        if self.fails:
            raise OSError("no such chunk")
        out[: stop - start] = ROWS[start:stop]
        self.loaded.append(chunk)

    def close(self):
        pass


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_any_rows_in_any_order(grid):
    reader, rng = Rows(grid), np.random.default_rng(0)
    for _ in range(500):
        start, stop = np.sort(rng.choice(104, 2, replace=False)).tolist()
        np.testing.assert_array_equal(reader.read(start, stop), ROWS[start:stop])


@pytest.mark.parametrize("step", [1, 4, 10, 13, 25, 60])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_blocks_in_order_load_each_chunk_once(grid, step):
    reader = Rows(grid)
    for start in range(0, 103, step):
        block = reader.read(start, min(start + step, 103))
        np.testing.assert_array_equal(block, ROWS[start : start + step])
        assert block.flags.c_contiguous
    assert reader.loaded == list(range(len(grid)))


def test_blocks_take_no_more_than_a_block_and_a_chunk():
    reader = Rows(RowGrid(103, 10))
    for start in range(5, 90, 25):
        reader.read(start, start + 25)
    assert len(reader._buffer._rows) <= 25 + 10


def test_a_chunk_that_fails_leaves_nothing_of_it_behind():
    reader = Rows(RowGrid(103, 10))
    reader.read(0, 15)
    reader.fails = True
    with pytest.raises(OSError, match="no such chunk"):
        reader.read(15, 30)
    reader.fails = False
    np.testing.assert_array_equal(reader.read(15, 30), ROWS[15:30])
    np.testing.assert_array_equal(reader.read(12, 22), ROWS[12:22])


def test_a_buffer_that_grows_is_freed_first():
    grid, rows = RowGrid(4_000, 1_000), 1_000
    source = SimpleNamespace(shape=(4_000, 125), dtype=np.dtype(np.float64), grid=grid)

    class Zeros(Rows):
        def load(self, chunk, out):
            out[...] = chunk

    reader = Zeros(grid)
    reader._source, reader._buffer = source, RowBuffer(source.shape[1:], source.dtype)
    reader.read(0, rows // 2)
    tracemalloc.start()
    reader.read(rows // 2, 2 * rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the rows that are left, and the new buffer: 0.5 and 1.5 chunks of 1 MB
    assert peak < 2.1e6
