"""Blocks and segments hold each row once, in order, and depend on the data alone."""

from __future__ import annotations

import inspect
from itertools import pairwise

import pytest
import strategies as ours
from hypothesis import given
from hypothesis import strategies as st

from streamreg.engines import partition
from streamreg.engines.partition import HOST, Blocks, PartitionPolicy, segments_after, segments_of
from streamreg.errors import CheckpointError
from streamreg.formatting import MIB
from streamreg.sources.base import RowGrid

BLOCK_NBYTES, PIECE_NBYTES = HOST.block_nbytes, HOST.piece_nbytes
ROW_NBYTES = st.sampled_from([1, 8, 800, BLOCK_NBYTES // 3, BLOCK_NBYTES, 3 * BLOCK_NBYTES])


@st.composite
def grids(draw: st.DrawFn) -> RowGrid:
    n_rows = draw(st.integers(1, 200))
    if draw(st.booleans()):
        return RowGrid.irregular(draw(ours.heights(n_rows)))
    return RowGrid(n_rows, draw(st.integers(1, 250)), divisible=draw(st.booleans()))


@given(grids(), ROW_NBYTES)
def test_blocks_hold_each_row_once_and_in_order(grid, row_nbytes):
    blocks = Blocks.of(grid, row_nbytes)
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(grid.n_rows))
    assert len(blocks) == len(list(blocks))
    assert blocks.max_rows == max(stop - start for start, stop in blocks)
    with pytest.raises(IndexError):
        blocks[len(blocks)]


@given(grids(), ROW_NBYTES)
def test_a_block_is_whole_chunks_or_a_piece_of_one(grid, row_nbytes):
    edges = {grid.rows(chunk)[0] for chunk in range(len(grid))} | {grid.n_rows}
    for start, stop in Blocks.of(grid, row_nbytes):
        whole = start in edges and stop in edges
        inside = grid.chunk_at(start) == grid.chunk_at(stop - 1)
        assert whole or (grid.divisible and inside)


@given(grids(), ROW_NBYTES)
def test_blocks_are_as_large_as_the_policy_and_the_chunks_allow(grid, row_nbytes):
    rows = max(1, BLOCK_NBYTES // row_nbytes)
    if grid.divisible:
        # the nearest number of chunks or pieces of a chunk; at least the four rows of a kernel
        rows = max(4, 3 * PIECE_NBYTES // (2 * row_nbytes))
    spans = list(Blocks.of(grid, row_nbytes))
    chunks = [grid.rows(chunk) for chunk in range(len(grid))]
    for start, stop in spans:
        assert stop - start <= rows or (start, stop) in chunks
    if grid.divisible:
        assert all(stop - start <= rows for start, stop in spans)
    # two neighbours that fit in one block would have been joined
    pair_heights = [b[1] - a[0] for a, b in pairwise(spans)]
    if grid.bounds is not None:
        assert all(height > rows for height in pair_heights)


@given(st.integers(1, 10**6), st.integers(0, 10**12), st.integers(0, 64 * MIB))
def test_segments_hold_each_block_once_and_in_order(n_blocks, pass_nbytes, state_nbytes):
    segments = segments_of(n_blocks, HOST.n_segments(n_blocks, pass_nbytes, state_nbytes))
    assert 1 <= len(segments) <= 1024
    bounds = [(segment.start, segment.stop) for segment in segments]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == n_blocks
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    assert all(start < stop for start, stop in bounds)


def test_chunks_that_fill_a_block_exactly_are_joined():
    grid = RowGrid.irregular((1, 2, 3, 4, 1))
    assert list(Blocks.of(grid, BLOCK_NBYTES // 3)) == [(0, 3), (3, 6), (6, 10), (10, 11)]


@pytest.mark.parametrize(("chunk_nbytes", "n_blocks"), [(8, 8), (16, 8), (20, 8), (32, 16)])
def test_a_chunk_of_about_the_size_of_a_piece_is_not_divided(chunk_nbytes, n_blocks):
    rows = chunk_nbytes * MIB // 1024
    n_rows = rows * (16 if chunk_nbytes < 16 else 8)
    # y adds 8 bytes to each row
    assert len(Blocks.of(RowGrid(n_rows, rows, divisible=True), 1032)) == n_blocks


def test_a_pass_with_a_state_above_32_mib_has_one_segment():
    assert HOST.n_segments(1000, 10**12, 33 * MIB) == 1
    assert HOST.n_segments(1000, 10**10, 31 * MIB) == 32


def test_segments_are_at_most_1024_and_each_at_least_32_times_as_large_as_a_state():
    assert HOST.n_segments(10**6, 10**12, 8) == 1024
    assert HOST.n_segments(10**6, 10**11, 30 * MIB) == 10**11 // (32 * 30 * MIB)


@pytest.mark.parametrize(
    ("pass_nbytes", "n_segments"),
    [(31 * MIB, 1), (32 * MIB, 2), (512 * MIB, 32), (1024 * MIB, 32), (1280 * MIB, 40)],
)
def test_the_number_of_segments_grows_with_the_bytes_of_a_pass(pass_nbytes, n_segments):
    assert HOST.n_segments(1000, pass_nbytes, 8) == n_segments


def test_a_pass_resumes_only_where_a_segment_begins():
    segments = segments_of(10, HOST.n_segments(10, 64 * MIB, 8))
    assert segments == [range(2), range(2, 5), range(5, 7), range(7, 10)]
    assert segments_after(segments, 0) == segments
    assert segments_after(segments, 5) == [range(5, 7), range(7, 10)]
    assert segments_after(segments, 10) == []
    for between in (1, 3, 9):
        with pytest.raises(CheckpointError, match=f"after {between} of 10 blocks.*Remove it"):
            segments_after(segments, between)


def test_the_partition_of_1e15_rows_takes_no_memory():
    blocks = Blocks.of(RowGrid(10**15, 1000, divisible=True), 8_000)
    assert len(blocks) == 10**12 // 2
    assert blocks[len(blocks) - 1] == (10**15 - 2000, 10**15)
    segments = segments_of(len(blocks), HOST.n_segments(len(blocks), 8 * 10**18, 8))
    assert segments[1023].stop == len(blocks)


def test_no_partition_depends_on_memory_or_threads():
    # else the last bits of a result would depend on the machine
    for function in (Blocks.of, PartitionPolicy.n_segments, segments_of):
        assert not {"memory_limit", "n_threads", "workers"} & set(
            inspect.signature(function).parameters
        )
    assert "available_nbytes" not in inspect.getsource(partition)


@given(ours.heights(50))
def test_a_grid_finds_the_chunk_of_each_row(heights):
    grid = RowGrid.irregular(heights)
    assert len(grid) == sum(height > 0 for height in heights)
    for chunk in range(len(grid)):
        start, stop = grid.rows(chunk)
        assert all(grid.chunk_at(row) == chunk for row in range(start, stop))
        assert stop - start <= grid.chunk_rows
    assert grid.rows(len(grid) - 1)[1] == grid.n_rows == 50


def test_chunks_of_one_height_are_a_regular_grid():
    assert RowGrid.irregular((10, 10, 0, 3)) == RowGrid(23, 10)
    assert RowGrid.irregular((3, 10, 10)).bounds == (0, 3, 13, 23)
    assert RowGrid.irregular(()).n_rows == 0
