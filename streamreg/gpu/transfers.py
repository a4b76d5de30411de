"""Blocks on their way to a GPU, and those that stay there."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import ALIGNMENT, Block, aligned, is_on_device, namespace
from streamreg.gpu.kernels import tile_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.blocks import Array
    from streamreg.gpu.device import Gpu

# on the device, so that one block is folded while the next one is copied
N_BUFFERS = 2


class DeviceBlockCache:
    """Blocks that stay on the device, one after another, so that many are reduced at once.

    Parameters
    ----------
    gpu
        The device.
    like
        A block of the same form.
    n_rows
        Room for so many rows.
    whole
        X and y, where all their rows lie on the device already.
    """

    def __init__(
        self, gpu: Gpu, like: Block, n_rows: int, whole: tuple[Array | None, Array | None]
    ) -> None:
        self._arrays = [
            gpu.cupy.empty((n_rows, *array.shape[1:]), array.dtype) if there is None else there
            for array, there in zip_longest(_arrays(like), whole)
        ]
        self._places: dict[int, tuple[int, int]] = {}
        self._n_rows = 0

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def slot_for(self, number: int, block: Block) -> Block:
        """Return where a block is to lie."""
        place = self._n_rows, self._n_rows + block.n_rows
        self._places[number], self._n_rows = place, place[1]
        return self._block(*place, block.start)

    def run(self, numbers: range) -> tuple[Block, int]:
        """Return the blocks from the first on that lie side by side, joined; and how many."""
        first, stop = self._places[numbers[0]]
        joints = []
        for number in numbers[1:]:
            start, end = self._places.get(number, (-1, -1))
            if start != stop:
                break
            joints.append(start - first)
            stop = end
        joined = self._block(first, stop, 0)
        return replace(joined, joints=tuple(joints)), len(joints) + 1

    def _block(self, first: int, stop: int, start: int) -> Block:
        X, y, *weight = (array[first:stop] for array in self._arrays)
        return Block(X, y, weight[0] if weight else None, start)


class _Slot:
    """Room for a block between the thread that reads it and the one that has it folded."""

    def __init__(self, buffer: Array, ready: Any, done: Any) -> None:  # noqa: ANN401
        self.buffer = buffer  # in memory that the device copies from by itself
        self.ready = ready  # the event that what it holds has been made
        self.done = done  # the event that all was copied from it, and what it holds was folded
        self.holds: list[Array] = []  # on the device, by whoever made them


class Filled(NamedTuple):
    """A block whose arrays lie in a slot's buffer, or on the device."""

    slot: _Slot
    block: Block


class Transfers:
    """Blocks on their way to the device.

    Threads fill slots; one thread has them copied, on a stream of their own, into buffers on the
    device, and folds them on another. What lies on the device is folded there. The thread that
    folds never waits for the device; those that read do for a slot.

    Parameters
    ----------
    gpu
        The device.
    n_slots, pinned_nbytes
        How many, and the bytes of the host's memory that each has for a block.
    device_nbytes, least_nbytes
        Of the two buffers on the device, and, where it refuses those, of smaller ones at least: a
        block that is larger comes in parts.

    Attributes
    ----------
    reducing
        The stream on which blocks are reduced: a context manager.
    fetching
        The stream on which states come back.
    """

    def __init__(
        self, gpu: Gpu, n_slots: int, pinned_nbytes: int, device_nbytes: int, least_nbytes: int
    ) -> None:
        self._gpu, self._cupy, cuda = gpu, gpu.cupy, gpu.cupy.cuda
        self._slots: SimpleQueue[_Slot] = SimpleQueue()
        for _ in range(n_slots):
            memory = gpu.pinned(pinned_nbytes) if pinned_nbytes else b""
            # events, not functions for the host: of a device that failed they tell, where none
            # would be called
            events = (cuda.Event(block=True, disable_timing=True) for _ in range(2))
            self._slots.put(_Slot(np.frombuffer(memory, np.uint8, pinned_nbytes), *events))
        streams = (cuda.Stream(non_blocking=True) for _ in range(3))
        self._copying, self.reducing, self.fetching = streams
        n_buffers = N_BUFFERS if device_nbytes else 0
        self._buffers = gpu.buffers(n_buffers, device_nbytes, least_nbytes)
        self._folded = [cuda.Event(disable_timing=True) for _ in range(N_BUFFERS)]
        self._turn = 0

    def fill(self, read: Callable[[], Block]) -> Filled:
        """Read a block into a slot, in this machine's byte order and C order; any thread may."""
        slot = self._slots.get()
        try:
            slot.done.synchronize()
            slot.holds.clear()
            with self._gpu.here():
                block = read()
                filled = _laid_out(block, slot.buffer)
                for here, values in zip(_arrays(filled), _arrays(block), strict=True):
                    if not is_on_device(here):
                        np.copyto(here, values)
                        continue
                    self._gpu.require_here(here)
                    slot.holds.append(here)
                if slot.holds:
                    slot.ready.record(self._cupy.cuda.get_current_stream())
        except BaseException:
            self._slots.put(slot)
            raise
        return Filled(slot, filled)

    def cache(
        self, like: Block, n_rows: int, whole: tuple[Array | None, Array | None]
    ) -> DeviceBlockCache | None:
        """Return room for rows that stay; ``None`` if the device refuses it."""
        try:
            kept = DeviceBlockCache(self._gpu, like, n_rows, whole)
        except self._cupy.cuda.memory.OutOfMemoryError:
            return None
        # it may lie where something is in work that was queued before
        self._copying.wait_event(self.reducing.record())
        return kept

    def copy(self, filled: Filled, there: Block) -> None:
        """Have a block copied to where it stays."""
        if filled.slot.holds:
            self._copying.wait_event(filled.slot.ready)
        self._copy(filled.block, there)
        self._release(filled.slot, self._copying)

    def parts(self, filled: Filled) -> Iterator[Block]:
        """Yield a block as it lies on the device for a while, perhaps in parts.

        Each is to be folded before the next is asked for. Parts end where tiles do, so that they
        change no bit.
        """
        slot, block = filled
        try:
            if slot.holds:
                self.reducing.wait_event(slot.ready)
            if block_nbytes(block):
                yield from self._sent(block)
            else:  # all of it lies there
                yield block
        finally:
            self._release(slot, self.reducing if slot.holds else self._copying)

    def _sent(self, block: Block) -> Iterator[Block]:
        for rows in _parts(block, self._buffers[0].nbytes):
            part = block.rows(rows.start, rows.stop)
            there = _laid_out(part, self._buffers[self._turn])
            self._copying.wait_event(self._folded[self._turn])
            self._copy(part, there)
            yield there
            self._folded[self._turn].record(self.reducing)
            self._turn = (self._turn + 1) % N_BUFFERS

    def close(self) -> None:
        """Wait for what is under way, and give memory back."""
        for stream in (self._copying, self.reducing, self.fetching):
            stream.synchronize()
        self._slots, self._buffers = SimpleQueue(), []
        # of states
        self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    def _copy(self, here: Block, there: Block) -> None:
        for target, values in zip(_arrays(there), _arrays(here), strict=True):
            _have_copied(target, values, self._copying)
        self.reducing.wait_event(self._copying.record())

    def _release(self, slot: _Slot, stream: Any) -> None:  # noqa: ANN401
        """Let a slot be filled anew once a stream has done what was queued."""
        slot.done.record(stream)
        self._slots.put(slot)


def _have_copied(there: Any, values: Any, stream: Any) -> None:  # noqa: ANN401
    """Queue a copy, unless the rows lie where they are to."""
    if not is_on_device(values):
        there.set(values, stream=stream)
    elif there.data.ptr != values.data.ptr:
        with stream:
            there[...] = values


def block_nbytes(block: Block) -> int:
    """Bytes of a buffer for a block: for those of its arrays that lie on the host."""
    return sum(aligned(array.nbytes) for array in _arrays(block) if not is_on_device(array))


def _laid_out(block: Block, buffer: Array) -> Block:
    """Return a block of the same form, in C order: what lies on the host, in a buffer.

    The buffer may lie here or on the device; what lies on the device stays there.
    """
    arrays, first = [], 0
    for array in _arrays(block):
        if is_on_device(array):
            arrays.append(namespace(array).ascontiguousarray(array))
            continue
        here = buffer[first : first + array.nbytes].view(array.dtype.newbyteorder("="))
        arrays.append(here.reshape(array.shape))
        first += aligned(array.nbytes)
    X, y, *weight = arrays
    return Block(X, y, weight[0] if weight else None, block.start)


def _parts(block: Block, nbytes: int) -> Iterator[slice]:
    """Yield the rows of each part that fits a buffer of so many bytes; parts end where tiles do."""
    n, rows, tile = block.n_rows, block.n_rows, tile_rows(block.X.shape[1])
    if block_nbytes(block) > nbytes:
        here = [array for array in _arrays(block) if not is_on_device(array)]
        row_nbytes = sum(array[:1].nbytes for array in here)
        fitting = (nbytes - len(here) * ALIGNMENT) // row_nbytes
        rows = max(1, fitting // tile) * tile
    for first in range(0, n, max(1, rows)):
        yield slice(first, first + rows)


def _arrays(block: Block) -> list[Array]:
    arrays = [block.X, block.y]
    return arrays if block.weight is None else [*arrays, block.weight]
