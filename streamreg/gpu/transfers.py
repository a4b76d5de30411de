"""Blocks in transfer to a GPU, and blocks that stay on it."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import ALIGNMENT, Block, aligned, is_cupy, namespace
from streamreg.gpu.kernels import tile_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.blocks import Array
    from streamreg.gpu.device import Gpu

# on the device, so that one block is reduced while the next one is copied
N_BUFFERS = 2


class DeviceBlockCache:
    """Blocks on the device, contiguous, so that several are reduced at once.

    They have the dtypes and widths of ``like``. ``whole`` is X and y, if all their rows are on the
    device already.
    """

    def __init__(
        self, gpu: Gpu, like: Block, n_rows: int, whole: tuple[Array | None, Array | None]
    ) -> None:
        self._arrays = [
            gpu.cupy.empty((n_rows, *array.shape[1:]), array.dtype) if rows is None else rows
            for array, rows in zip_longest(_arrays(like), whole)
        ]
        self._places: dict[int, tuple[int, int]] = {}
        self._n_rows = 0

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def slot_for(self, number: int, block: Block) -> Block:
        """Return the place for a block."""
        place = self._n_rows, self._n_rows + block.n_rows
        self._places[number], self._n_rows = place, place[1]
        return self._rows(*place, block.start)

    def run(self, numbers: range) -> tuple[Block, int]:
        """Return the first blocks, joined as far as they are contiguous; and how many."""
        first, stop = self._places[numbers[0]]
        joints = []
        for number in numbers[1:]:
            start, end = self._places.get(number, (-1, -1))
            if start != stop:
                break
            joints.append(start - first)
            stop = end
        return replace(self._rows(first, stop, 0), joints=tuple(joints)), len(joints) + 1

    def _rows(self, first: int, stop: int, start: int) -> Block:
        return _block([array[first:stop] for array in self._arrays], start)


class _Slot(NamedTuple):
    """Memory for a block between the thread that reads it and the one that queues its reduction."""

    buffer: Array  # pinned
    ready: Any  # the event that the arrays on the device are computed
    done: Any  # the event that the block is copied or reduced
    holds: list[Array]  # arrays on the device, which others made


class Filled(NamedTuple):
    """A block whose arrays are in the buffer of a slot, or on the device."""

    slot: _Slot
    block: Block


class Transfers:
    """Blocks in transfer to the device.

    Threads fill slots of ``pinned_nbytes``. One thread queues the copies to two buffers of
    ``device_nbytes``, on one stream, and the reduction of the blocks on the stream ``reducing``;
    states are copied to the host on ``fetching``. A block larger than a buffer is sent in parts;
    rows on the device are reduced in place. The queueing thread never waits for the device; reading
    threads wait for a slot.
    """

    def __init__(self, gpu: Gpu, n_slots: int, pinned_nbytes: int, device_nbytes: int) -> None:
        self._gpu, self._cupy, cuda = gpu, gpu.cupy, gpu.cupy.cuda
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(n_slots):
            # allocated outside CuPy's pool, which rounds sizes up
            memory = cuda.PinnedMemory(pinned_nbytes) if pinned_nbytes else None
            buffer = b"" if memory is None else cuda.PinnedMemoryPointer(memory, 0)
            # events, not host functions: events report a device that failed, functions are not
            # called
            ready, done = (cuda.Event(block=True, disable_timing=True) for _ in range(2))
            self._slots.put(_Slot(np.frombuffer(buffer, np.uint8, pinned_nbytes), ready, done, []))
        streams = (cuda.Stream(non_blocking=True) for _ in range(3))
        self._copying, self.reducing, self.fetching = streams
        n_buffers = N_BUFFERS if device_nbytes else 0
        self._buffers = [self._cupy.empty(device_nbytes, np.uint8) for _ in range(n_buffers)]
        self._reduced = [cuda.Event(disable_timing=True) for _ in range(N_BUFFERS)]
        self._turn = 0

    def fill(self, read: Callable[[], Block]) -> Filled:
        """Read a block into a slot, in native byte order and C order; on any thread."""
        slot = self._slots.get()
        try:
            slot.done.synchronize()
            slot.holds.clear()
            with self._gpu.device:
                block = read()
                filled = _laid_out(block, slot.buffer)
                for target, values in zip(_arrays(filled), _arrays(block), strict=True):
                    if is_cupy(target):
                        self._gpu.require_own(target)
                        slot.holds.append(target)
                    else:
                        np.copyto(target, values)
                if slot.holds:
                    slot.ready.record(self._cupy.cuda.get_current_stream())
        except BaseException:
            self._slots.put(slot)
            raise
        return Filled(slot, filled)

    def cache(
        self, like: Block, n_rows: int, whole: tuple[Array | None, Array | None]
    ) -> DeviceBlockCache | None:
        """Return memory for rows that stay; ``None`` if the device refuses it."""
        try:
            cache = DeviceBlockCache(self._gpu, like, n_rows, whole)
        except self._cupy.cuda.memory.OutOfMemoryError:
            return None
        # its memory may still be used by what was queued before
        self._copying.wait_event(self.reducing.record())
        return cache

    def copy(self, filled: Filled, target: Block) -> None:
        """Queue the copy of a block to its place in the cache."""
        if filled.slot.holds:
            self._copying.wait_event(filled.slot.ready)
        self._copy(filled.block, target)
        self._release(filled.slot, self._copying)

    def parts(self, filled: Filled) -> Iterator[Block]:
        """Yield a block on the device, perhaps in parts, each to be reduced before the next.

        Parts end where tiles end, so that they change no bit.
        """
        slot, block = filled
        try:
            if slot.holds:
                self.reducing.wait_event(slot.ready)
            if block_nbytes(block):
                yield from self._sent(block)
            else:  # all arrays are on the device
                yield block
        finally:
            self._release(slot, self.reducing if slot.holds else self._copying)

    def _sent(self, block: Block) -> Iterator[Block]:
        for rows in _parts(block, self._buffers[0].nbytes):
            part = block.rows(rows.start, rows.stop)
            target = _laid_out(part, self._buffers[self._turn])
            self._copying.wait_event(self._reduced[self._turn])
            self._copy(part, target)
            yield target
            self._reduced[self._turn].record(self.reducing)
            self._turn = (self._turn + 1) % N_BUFFERS

    def close(self) -> None:
        """Wait for queued work, and release memory."""
        for stream in (self._copying, self.reducing, self.fetching):
            stream.synchronize()
        self._slots, self._buffers = SimpleQueue(), []
        # of states
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _copy(self, block: Block, target: Block) -> None:
        to: Any
        for to, values in zip(_arrays(target), _arrays(block), strict=True):
            if not is_cupy(values):
                to.set(values, stream=self._copying)
            elif to.data.ptr != values.data.ptr:  # type: ignore[attr-defined]  # else in its place
                with self._copying:
                    to[...] = values
        self.reducing.wait_event(self._copying.record())

    def _release(self, slot: _Slot, stream: Any) -> None:  # noqa: ANN401
        """Let a slot be filled again after all that is queued on a stream."""
        slot.done.record(stream)
        self._slots.put(slot)


def block_nbytes(block: Block) -> int:
    """Bytes of a buffer for the arrays of a block that are on the host."""
    return sum(aligned(array.nbytes) for array in _arrays(block) if not is_cupy(array))


def _laid_out(block: Block, buffer: Array) -> Block:
    """Return a block of the same shape, in C order, with memory for the host's arrays in a buffer.

    The buffer may be on the host or on the device; arrays on the device stay.
    """
    arrays, first = [], 0
    for array in _arrays(block):
        if is_cupy(array):
            arrays.append(namespace(array).ascontiguousarray(array))
            continue
        room = buffer[first : first + array.nbytes].view(array.dtype.newbyteorder("="))
        arrays.append(room.reshape(array.shape))
        first += aligned(array.nbytes)
    return _block(arrays, block.start)


def _parts(block: Block, nbytes: int) -> Iterator[slice]:
    """Yield the rows of each part that fits a buffer; parts end where tiles end."""
    n, rows, tile = block.n_rows, block.n_rows, tile_rows(block.X.shape[1])
    if block_nbytes(block) > nbytes:
        arrays = [array for array in _arrays(block) if not is_cupy(array)]
        row_nbytes = sum(array[:1].nbytes for array in arrays)
        rows = max(1, (nbytes - len(arrays) * ALIGNMENT) // row_nbytes // tile) * tile
    for first in range(0, n, max(1, rows)):
        yield slice(first, first + rows)


def _arrays(block: Block) -> list[Array]:
    arrays = [block.X, block.y]
    return arrays if block.weight is None else [*arrays, block.weight]


def _block(arrays: list[Array], start: int) -> Block:
    X, y, *weight = arrays
    return Block(X, y, weight[0] if weight else None, start)
