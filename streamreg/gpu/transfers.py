"""Blocks in transfer to a GPU, and blocks that stay on it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, zip_longest
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import ALIGNMENT, Block, aligned, is_cupy, namespace
from streamreg.gpu.kernels import tile_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from streamreg.blocks import Array
    from streamreg.gpu.device import Gpu

# buffers on the device: one block is reduced while the next one is copied
N_BUFFERS = 2


@dataclass
class Slot:
    """Host memory in which a thread leaves a block for the thread that queues its reduction."""

    buffer: Array  # pinned
    done: Any  # CUDA's event that the block is reduced
    block: Block | None = None  # referenced until it is reduced: its arrays may be on the device


class Transfers:
    """Blocks in transfer to the device.

    Threads read blocks into slots of ``pinned_nbytes``; they wait for a free slot. One thread
    queues all other work and never waits for the device. Blocks are copied to two buffers of
    ``device_nbytes`` on one stream, and reduced on the stream ``reducing``. States are copied to
    the host on the stream ``fetching``.
    """

    def __init__(self, gpu: Gpu, n_slots: int, pinned_nbytes: int, device_nbytes: int) -> None:
        self._gpu, self._cupy, cuda = gpu, gpu.cupy, gpu.cupy.cuda
        self._slots: SimpleQueue[Slot] = SimpleQueue()
        for _ in range(n_slots):
            # allocated outside CuPy's pool, which rounds sizes up
            memory = cuda.PinnedMemoryPointer(cuda.PinnedMemory(max(1, pinned_nbytes)), 0)
            buffer = np.frombuffer(memory, np.uint8, pinned_nbytes)
            # an event raises if the device failed; a host callback would then never run
            self._slots.put(Slot(buffer, cuda.Event(block=True, disable_timing=True)))
        streams = (cuda.Stream(non_blocking=True) for _ in range(3))
        self._copying, self.reducing, self.fetching = streams
        buffers = [self._cupy.empty(device_nbytes, np.uint8) for _ in range(N_BUFFERS)]
        # each buffer, and the event that its block is reduced
        self._buffers = cycle([(each, cuda.Event(disable_timing=True)) for each in buffers])

    def fill(self, read: Callable[[], Block]) -> tuple[Slot, Block]:
        """Read a block into a slot, in native byte order and C order; on any thread."""
        slot = self._slots.get()
        try:
            slot.done.synchronize()
            slot.block = None
            with self._gpu.device:
                block = read()
                slot.block = filled = _placed_in_buffer(block, slot.buffer)
                for target, values in zip(_arrays(filled), _arrays(block), strict=True):
                    if is_cupy(target):
                        self._gpu.require_own(target)
                    else:
                        np.copyto(target, values)
                # arrays on the device may still be computed
                slot.done.record(self._cupy.cuda.get_current_stream())
                slot.done.synchronize()
        except BaseException:
            self._slots.put(slot)
            raise
        return slot, filled

    def new_cache(self, like: Block, n_rows: int, whole: tuple[Array | None, ...]) -> Block:
        """Return device memory for ``n_rows`` rows, with the dtypes and widths of ``like``.

        ``whole`` holds X and y if all their rows are on the device already; else ``None``.
        """
        arrays = [
            self._cupy.empty((n_rows, *each.shape[1:]), each.dtype) if rows is None else rows
            for each, rows in zip_longest(_arrays(like), whole)
        ]
        # work that was queued before may still use the memory
        self._copying.wait_event(self.reducing.record())
        return _block(arrays, 0)

    def send(self, slot: Slot, block: Block, place: Block | None) -> Generator[Block, None, None]:
        """Yield a block on the device: in ``place``, its rows of the cache, or in a buffer.

        A block larger than a buffer comes in parts, each to be reduced before the next. A part is
        whole tiles, so no bit changes. Rows that are on the device are not copied.
        """
        try:
            if place is None:
                yield from self._parts(block)
            else:
                self._copy(block, place)
                yield place
        finally:
            slot.done.record(self.reducing)
            self._slots.put(slot)

    def close(self) -> None:
        """Wait for queued work, and release memory."""
        for stream in (self._copying, self.reducing, self.fetching):
            stream.synchronize()
        self._slots, self._buffers = SimpleQueue(), cycle([])
        # the pinned memory of states
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _parts(self, block: Block) -> Generator[Block, None, None]:
        start = 0
        while start < block.n_rows:
            buffer, reduced = next(self._buffers)
            part = block.rows(start, start + _rows_that_fit(block, buffer.nbytes))
            target = _placed_in_buffer(part, buffer)
            self._copying.wait_event(reduced)
            self._copy(part, target)
            yield target
            reduced.record(self.reducing)
            start += part.n_rows

    def _copy(self, block: Block, target: Block) -> None:
        to: Any
        for to, values in zip(_arrays(target), _arrays(block), strict=True):
            if not is_cupy(values):
                to.set(values, stream=self._copying)
            elif to.data.ptr != values.data.ptr:  # type: ignore[attr-defined]  # not its own memory
                with self._copying:
                    to[...] = values
        self.reducing.wait_event(self._copying.record())


def _placed_in_buffer(block: Block, buffer: Array) -> Block:
    """Return a block of the same shape, in C order, with memory of a buffer; nothing is copied.

    The buffer may be on the host or on the device. Arrays that are on the device stay there.
    """
    arrays, first = [], 0
    for array in _arrays(block):
        if is_cupy(array):
            arrays.append(namespace(array).ascontiguousarray(array))
            continue
        values = buffer[first : first + array.nbytes].view(array.dtype.newbyteorder("="))
        arrays.append(values.reshape(array.shape))
        first += aligned(array.nbytes)
    return _block(arrays, block.start)


def _rows_that_fit(block: Block, nbytes: int) -> int:
    """Return how many rows fit a buffer: all rows, or else a whole number of tiles."""
    arrays = [array for array in _arrays(block) if not is_cupy(array)]
    if sum(aligned(array.nbytes) for array in arrays) <= nbytes:
        return block.n_rows
    row_nbytes, tile = sum(array[:1].nbytes for array in arrays), tile_rows(block.X.shape[1])
    return max(1, (nbytes - len(arrays) * ALIGNMENT) // row_nbytes // tile) * tile


def _arrays(block: Block) -> list[Array]:
    arrays = [block.X, block.y]
    return arrays if block.weight is None else [*arrays, block.weight]


def _block(arrays: list[Array], start: int) -> Block:
    X, y, *weight = arrays
    return Block(X, y, weight[0] if weight else None, start)
