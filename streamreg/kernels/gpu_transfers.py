"""Blocks on their way to a GPU, and those that stay there."""

from __future__ import annotations

from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import ALIGNMENT, Block
from streamreg.kernels.arrays import tile_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array
    from streamreg.kernels.gpu import Gpu

# on the device, so that one block is folded while the next one is copied
N_BUFFERS = 2


class KeptRows:
    """Rows that stay on the device, one block after another, so that many are folded at once.

    Parameters
    ----------
    gpu
        The device.
    like
        A block of the same form.
    n_rows
        Room for so many rows.
    """

    def __init__(self, gpu: Gpu, like: Block, n_rows: int) -> None:
        self._arrays = [
            gpu.cupy.empty((n_rows, *array.shape[1:]), array.dtype) for array in _arrays(like)
        ]
        self._places: dict[int, tuple[int, int]] = {}
        self._n_rows = 0

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def room_for(self, number: int, block: Block) -> Block:
        """Return where a block is to lie."""
        place = self._n_rows, self._n_rows + len(block.X)
        self._places[number], self._n_rows = place, place[1]
        return self._block(*place, block.start)

    def run(self, numbers: range) -> tuple[Block, int]:
        """Return the blocks from the first on that lie side by side, joined; and how many."""
        first, stop = self._places[numbers[0]]
        cuts = []
        for number in numbers[1:]:
            start, end = self._places.get(number, (-1, -1))
            if start != stop:
                break
            cuts.append(start - first)
            stop = end
        joined = self._block(first, stop, 0)
        return replace(joined, cuts=tuple(cuts)), len(cuts) + 1

    def _block(self, first: int, stop: int, start: int) -> Block:
        X, y, *weight = (array[first:stop] for array in self._arrays)
        return Block(X, y, weight[0] if weight else None, start)


class Filled(NamedTuple):
    """A block in memory that the device copies from by itself."""

    buffer: Array
    copied: Any  # the event that all is copied from it
    block: Block  # of views into the buffer


class Transfers:
    """Blocks on their way to the device.

    Threads fill buffers of pinned memory; one thread has them copied, on a stream of their own,
    into buffers on the device, and folds them on another. Nobody waits, but for a buffer.

    Parameters
    ----------
    gpu
        The device.
    n_pinned, pinned_nbytes
        Buffers in the host's memory, each for a block.
    device_nbytes, least_nbytes
        Of the two buffers on the device, and, where it refuses those, of smaller ones at least: a
        block that is larger comes in parts.

    Attributes
    ----------
    folding
        The stream on which blocks are folded: a context manager.
    """

    def __init__(
        self, gpu: Gpu, n_pinned: int, pinned_nbytes: int, device_nbytes: int, least_nbytes: int
    ) -> None:
        self._cupy, cuda = gpu.cupy, gpu.cupy.cuda
        self._pinned: SimpleQueue[tuple[Array, Any]] = SimpleQueue()
        for _ in range(n_pinned):
            memory = cuda.alloc_pinned_memory(pinned_nbytes)
            # an event, not a function for the host: of a device that failed it tells, where none
            # would be called
            copied = cuda.Event(block=True, disable_timing=True)
            self._pinned.put((np.frombuffer(memory, np.uint8, pinned_nbytes), copied))
        self._copying, self.folding = (cuda.Stream(non_blocking=True) for _ in range(2))
        self._buffers = gpu.buffers(N_BUFFERS, device_nbytes, least_nbytes)
        self._folded = [cuda.Event(disable_timing=True) for _ in range(N_BUFFERS)]
        self._turn = 0

    def fill(self, block: Block) -> Filled:
        """Copy a block into pinned memory, in this machine's byte order; any thread may."""
        buffer, copied = self._pinned.get()
        copied.synchronize()
        filled = _laid_out(block, buffer)
        for here, values in zip(_arrays(filled), _arrays(block), strict=True):
            np.copyto(here, values)
        return Filled(buffer, copied, filled)

    def kept(self, gpu: Gpu, like: Block, n_rows: int) -> KeptRows | None:
        """Return room for rows that stay; ``None`` if the device refuses it."""
        try:
            kept = KeptRows(gpu, like, n_rows)
        except self._cupy.cuda.memory.OutOfMemoryError:
            return None
        # it may lie where something is in work that was queued before
        self._copying.wait_event(self.folding.record())
        return kept

    def copy(self, filled: Filled, there: Block) -> None:
        """Have a block copied to where it stays."""
        self._copy(filled.block, there)
        self._release(filled)

    def parts(self, filled: Filled) -> Iterator[Block]:
        """Yield a block as it lies on the device for a while, perhaps in parts.

        Each is to be folded before the next is asked for. Parts end where tiles do, so that they
        change no bit.
        """
        block = filled.block
        for rows in _parts(block, self._buffers[0].nbytes):
            part = block.rows(rows.start, rows.stop)
            there = _laid_out(part, self._buffers[self._turn])
            self._copying.wait_event(self._folded[self._turn])
            self._copy(part, there)
            yield there
            self._folded[self._turn].record(self.folding)
            self._turn = (self._turn + 1) % N_BUFFERS
        self._release(filled)

    def close(self) -> None:
        """Wait for what is under way, and give memory back."""
        for stream in (self._copying, self.folding):
            stream.synchronize()
        self._pinned, self._buffers = SimpleQueue(), []
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _copy(self, here: Block, there: Block) -> None:
        targets: list[Any] = _arrays(there)
        for target, values in zip(targets, _arrays(here), strict=True):
            target.set(values, stream=self._copying)
        self.folding.wait_event(self._copying.record())

    def _release(self, filled: Filled) -> None:
        """Let a buffer be filled anew once all is copied from it."""
        filled.copied.record(self._copying)
        self._pinned.put((filled.buffer, filled.copied))


def block_nbytes(block: Block) -> int:
    """Bytes of a buffer that holds a block."""
    return sum(_aligned(array.nbytes) for array in _arrays(block))


def _laid_out(block: Block, buffer: Array) -> Block:
    """Return a block of the same form, whose arrays lie in a buffer, here or on the device."""
    arrays, first = [], 0
    for array in _arrays(block):
        here = buffer[first : first + array.nbytes].view(array.dtype.newbyteorder("="))
        arrays.append(here.reshape(array.shape))
        first += _aligned(array.nbytes)
    X, y, *weight = arrays
    return Block(X, y, weight[0] if weight else None, block.start)


def _parts(block: Block, nbytes: int) -> Iterator[slice]:
    """Yield the rows of each part that fits a buffer of so many bytes; parts end where tiles do."""
    n, rows, tile = len(block.X), len(block.X), tile_rows(block.X.shape[1])
    if block_nbytes(block) > nbytes:
        row_nbytes = sum(array[:1].nbytes for array in _arrays(block))
        fitting = (nbytes - len(_arrays(block)) * ALIGNMENT) // row_nbytes
        rows = max(1, fitting // tile) * tile
    for first in range(0, n, max(1, rows)):
        yield slice(first, first + rows)


def _arrays(block: Block) -> list[Array]:
    arrays = [block.X, block.y]
    return arrays if block.weight is None else [*arrays, block.weight]


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
