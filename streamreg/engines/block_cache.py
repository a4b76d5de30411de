"""Blocks that stay in memory, decoded, from one pass to the next.

Which blocks is fixed before the first pass and spread evenly over all: passes scan the rows in a
cycle, of which a cache of those read last would find none again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from streamreg.blocks import Block, aligned
from streamreg.sources.block_reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Collection

    from streamreg.blocks import Array
    from streamreg.engines.partition import Blocks
    from streamreg.sources.dataset import Dataset


class _CachedBlock(NamedTuple):
    block: Block
    n_omitted: int


class BlockCache:
    """Room for some of the blocks of a data set, shared by the readers of all threads.

    Parameters
    ----------
    dataset, blocks
        The rows and how they are cut.
    nbytes
        Room in bytes: what does not fit in it is read anew in each pass.
    """

    def __init__(self, dataset: Dataset, blocks: Blocks, nbytes: int) -> None:
        self._blocks = blocks
        self._slot_nbytes = slot_nbytes(dataset, blocks.max_rows)
        self._n_slots = min(len(blocks), nbytes // self._slot_nbytes)
        self._room = np.empty(self._n_slots * self._slot_nbytes, np.uint8)
        self._kept: dict[int, _CachedBlock] = {}

    def get(self, start: int) -> _CachedBlock | None:
        """Return the block that begins with this row, if it is kept."""
        return self._kept.get(start)

    def put(self, block: Block, n_omitted: int) -> None:
        """Keep a copy of a block, if it is one of those that are kept."""
        number = self._blocks.number_at(block.start)
        slot = number * self._n_slots // len(self._blocks)
        chosen = (number + 1) * self._n_slots // len(self._blocks) > slot
        flags = block.X.flags
        if not chosen or not (flags.c_contiguous or flags.f_contiguous):
            return
        room = self._room[slot * self._slot_nbytes : (slot + 1) * self._slot_nbytes]
        X, room = _moved(block.X, room)
        y, room = _moved(block.y, room)
        weight = None if block.weight is None else _moved(block.weight, room)[0]
        self._kept[block.start] = _CachedBlock(Block(X, y, weight, block.start), n_omitted)


class CachingReader(BlockReader):
    """Reads each kept block once."""

    def __init__(self, dataset: Dataset, kept: BlockCache) -> None:
        super().__init__(dataset)
        self._kept = kept

    def read(self, start: int, stop: int) -> Block:
        kept = self._kept.get(start)
        if kept is not None:
            self.n_omitted += kept.n_omitted
            return kept.block
        before = self.n_omitted
        block = super().read(start, stop)
        self._kept.put(block, self.n_omitted - before)
        return block

    def expect(self, start: int, stop: int) -> None:
        if self._kept.get(start) is None:
            super().expect(start, stop)


def slot_nbytes(dataset: Dataset, rows: int, of: Collection[str] | None = None) -> int:
    """Bytes that keep a block of so many rows, each array where the loops can read it.

    ``of`` names the arrays that are counted, of X, y and sample_weight; ``None`` for all.
    """
    row_nbytes = {name: source.row_nbytes for name, source in dataset.named().items()}
    if dataset.weight is not None:
        row_nbytes["sample_weight"] = 8  # as float64
    return sum(
        aligned(rows * each) for name, each in row_nbytes.items() if of is None or name in of
    )


def _moved(values: Array, room: Array) -> tuple[Array, Array]:
    """Return a copy at the beginning of ``room``, and the room that is left."""
    # in the same order, and aligned: else it would be added up otherwise, to other last bits
    order: Literal["C", "F"] = "C" if values.flags.c_contiguous else "F"
    copy = room[: values.nbytes].view(values.dtype).reshape(values.shape, order=order)
    copy[...] = values
    return copy, room[aligned(values.nbytes) :]
