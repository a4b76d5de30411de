"""Sums of residuals with columns by groups of rows, a tile at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels.tiles import tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.blocks import Block, Float64, Int64
    from streamreg.kernels.base import Parallel
    from streamreg.kernels.meat import FittedRows, WriteTile
    from streamreg.kernels.states import GroupSumsState, SortedGroupsState
    from streamreg.kernels.triangle import Triangle

    AddGram = Callable[[Iterator[Float64], Float64, Parallel], None]


def group_sums(
    block: Block,
    state: GroupSumsState,
    *,
    fitted: FittedRows,
    numbers: Int64,
    rows: int,
    write: WriteTile,
) -> None:
    """Add s r [1, z] of each row to the sums of its group, (G, 1 + D)."""
    for each, groups in _residual_tiles(block, fitted, rows, write):
        order = np.argsort(groups, kind="stable")
        first, sums = _summed(each[order], groups[order])
        at = np.searchsorted(numbers, groups[order][first])
        state.sums[at] += sums
        state.rows[at] += np.diff(np.append(first, len(each)))
        state.n[...] += len(each)


def sorted_groups(
    block: Block,
    state: SortedGroupsState,
    parallel: Parallel,
    *,
    fitted: FittedRows,
    triangle: Triangle,
    rows: int,
    write: WriteTile,
    add: AddGram,
) -> None:
    """Add the products of groups that end in a block; rows of a group are consecutive."""

    def complete() -> Iterator[Float64]:
        for each, groups in _residual_tiles(block, fitted, rows, write):
            first, sums = _summed(each, groups)
            ended = append_groups(state, groups[first], sums)
            state.n[...] += len(each)
            if len(ended):
                yield whitened_groups(triangle, ended)

    add(complete(), state.meat, parallel)


def append_groups(state: SortedGroupsState, numbers: Int64, sums: Float64) -> Float64:
    """Append groups (m,), with sums (m, 1 + D), to a state; return the sums of those that ended.

    The first and the last group of a state may continue, and are kept.
    """
    count = int(state.n_groups)
    if count and numbers[0] == _number(state.last):
        np.add(_last(state, count), sums[0], out=_last(state, count))
        numbers, sums = numbers[1:], sums[1:]
    if not len(numbers):
        return sums
    ended = sums[:-1]
    if not count:
        state.first[...] = numbers[:1].view(np.float64)
        state.first_sums[...] = sums[0]
        ended = sums[1:-1]
    elif count > 1:
        ended = np.concatenate([state.last_sums[None], ended])
    if count + len(numbers) > 1:
        state.last_sums[...] = sums[-1]
    state.last[...] = numbers[-1:].view(np.float64)
    state.n_groups[...] += len(numbers)
    return ended


def whitened_groups(triangle: Triangle, sums: Float64) -> Float64:
    """Return [u, Wz] of sums [u, z], (m, 1 + D), with zeros after rank r."""
    rows = np.zeros(sums.shape)
    rows[:, 0] = sums[:, 0]
    room = np.empty((len(sums), sums.shape[1] - 1))
    rows[:, 1 : 1 + triangle.rank] = triangle.whiten(sums[:, 1:].T, room.T).T
    return rows


def groups_scratch_nbytes(n_features: int, rows: int) -> int:
    """Bytes that these kernels need beside state and block, with tiles of this many rows.

    Each row may be a group: z, s r z, in the order of groups, sums, those that ended, Wz. Threads
    take turns to make tiles, and their heaps keep about one freed array more: measured, at
    D = 2,500 with four threads, 1.5 % more than a plan without it.
    """
    return 8 * rows * (8 * n_features + 80) + 16 * n_features


def _last(state: SortedGroupsState, count: int) -> Float64:
    return state.first_sums if count == 1 else state.last_sums


def _number(bits: Float64) -> int:
    return int(bits.view(np.int64)[0])


def _residual_tiles(
    block: Block, fitted: FittedRows, rows: int, write: WriteTile
) -> Iterator[tuple[Float64, Int64]]:
    """Yield s r [1, z] of the rows of each tile, (n, 1 + D), and their groups."""
    if block.groups is None:
        raise TypeError("these rows have no groups")
    n_features, first = block.X.shape[1], 0
    rows = min(rows, block.n_rows)
    room = np.empty((rows, n_features))
    out = np.empty((rows, 1 + n_features))
    for tile, tile_y, weight in tiles(block, rows):
        z = room[: len(tile)]
        r = fitted.read(tile, tile_y, write, z)
        if weight is not None:
            r = r * weight
        each = out[: len(tile)]
        each[:, 0] = r
        np.multiply(z, r[:, None], out=each[:, 1:])
        yield each, block.groups[first : first + len(tile)]
        first += len(tile)


def _summed(rows: Float64, groups: Int64) -> tuple[Int64, Float64]:
    """Return where each run of equal groups begins, and the sums of the runs."""
    starts = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    return starts, np.add.reduceat(rows, starts, axis=0)
