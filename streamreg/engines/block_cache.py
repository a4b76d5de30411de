"""Decoded blocks that stay in memory between passes.

The cached blocks are a fixed subset, chosen before the first pass and spread evenly over all. An
LRU cache would never hit, because every pass scans all blocks in the same order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from streamreg.blocks import ALIGNMENT, Block, SparseRows, aligned, piece_rows
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
    """``nbytes`` of memory for some of the blocks of a data set, shared by all readers.

    Other blocks are read again in each pass.
    """

    def __init__(self, dataset: Dataset, blocks: Blocks, nbytes: int) -> None:
        self._blocks = blocks
        self._slot_nbytes = slot_nbytes(dataset, blocks.max_rows)
        self._n_slots = min(len(blocks), nbytes // self._slot_nbytes)
        self._buffer = np.empty(self._n_slots * self._slot_nbytes, np.uint8)
        self._cached: dict[int, _CachedBlock] = {}

    def get(self, start: int) -> _CachedBlock | None:
        """Return the block that begins with this row, if it is cached."""
        return self._cached.get(start)

    def slot(self, start: int) -> int | None:
        """Return the slot of the block that begins with this row, if it is one of the subset."""
        if not self._n_slots:
            return None
        number = self._blocks.number_at(start)
        slot = number * self._n_slots // len(self._blocks)
        return slot if (number + 1) * self._n_slots // len(self._blocks) > slot else None

    def put(self, block: Block, n_omitted: int) -> None:
        """Copy a block into the cache, if it is one of the cached subset."""
        slot = self.slot(block.start)
        if slot is None:
            return
        buffer = self._buffer[slot * self._slot_nbytes : (slot + 1) * self._slot_nbytes]
        X: Any
        if isinstance(block.X, SparseRows):
            X, buffer = _sparse_into(buffer, block.X)
        elif block.kind == "file":
            X, buffer = _read_into(buffer, block)
        elif block.X.flags.c_contiguous or block.X.flags.f_contiguous:
            X, buffer = _copy_into(buffer, block.X)
        else:
            return
        y, buffer = _copy_into(buffer, block.y)
        weight = groups = None
        if block.weight is not None:
            weight, buffer = _copy_into(buffer, block.weight)
        if block.groups is not None:
            groups, buffer = _copy_into(buffer, block.groups)
        cached = Block(X, y, weight, block.start, groups=groups)
        self._cached[block.start] = _CachedBlock(cached, n_omitted)


class CachingReader(BlockReader):
    """Reads each cached block once."""

    def __init__(self, dataset: Dataset, cache: BlockCache) -> None:
        super().__init__(dataset)
        self._cache = cache

    def read(self, start: int, stop: int, *, in_files: bool = False) -> Block:
        cached = self._cache.get(start)
        if cached is not None:
            self.n_omitted += cached.n_omitted
            return cached.block
        before, is_chosen = self.n_omitted, self._cache.slot(start) is not None
        block = super().read(start, stop, in_files=in_files or is_chosen)
        self._cache.put(block, self.n_omitted - before)
        cached = self._cache.get(start)
        return block if cached is None else cached.block

    def prefetch(self, start: int, stop: int) -> None:
        if self._cache.get(start) is None:
            super().prefetch(start, stop)


def slot_nbytes(dataset: Dataset, rows: int, of: Collection[str] | None = None) -> int:
    """Bytes that cache a block of this many rows, each array aligned for the kernels.

    ``of`` names the arrays that are counted: X, y, sample_weight, groups; ``None`` counts all.
    """
    block_nbytes = {name: source.block_nbytes(rows) for name, source in dataset.named().items()}
    # as float64, and as integers of 64 bits
    block_nbytes |= dict.fromkeys(block_nbytes.keys() & {"sample_weight", "groups"}, 8 * rows)
    arrays = sum(aligned(each) for name, each in block_nbytes.items() if of is None or name in of)
    # values, indices and bounds begin at multiples too
    return arrays + (2 * ALIGNMENT if dataset.X.is_sparse else 0)


def _sparse_into(buffer: Array, rows: SparseRows) -> tuple[SparseRows, Array]:
    """Return a copy of sparse rows at the beginning of a buffer, and the rest of the buffer."""
    values, buffer = _copy_into(buffer, rows.values)
    indices, buffer = _copy_into(buffer, rows.indices)
    bounds, buffer = _copy_into(buffer, rows.bounds)
    return replace(rows, values=values, indices=indices, bounds=bounds), buffer


def _read_into(buffer: Array, block: Block) -> tuple[Array, Array]:
    """Read X to the beginning of a buffer, a piece at a time; return it and the rest."""
    row_nbytes = block.X.shape[1] * block.X.dtype.itemsize
    nbytes, step = block.n_rows * row_nbytes, piece_rows(row_nbytes)
    X = buffer[:nbytes].view(block.X.dtype).reshape(block.X.shape)
    for start in range(0, block.n_rows, step):
        X[start : start + step] = block.X[start : start + step]
    return X, buffer[aligned(nbytes) :]


def _copy_into(buffer: Array, values: Array) -> tuple[Array, Array]:
    """Return a copy at the beginning of a buffer, and the rest of the buffer."""
    # kernels add up in the order of memory: a copy in another order would change last bits
    ascending = abs(values.strides[0]) < abs(values.strides[-1])
    order: Literal["C", "F"] = "F" if ascending else "C"
    copy = buffer[: values.nbytes].view(values.dtype).reshape(values.shape, order=order)
    copy[...] = values
    return copy, buffer[aligned(values.nbytes) :]
