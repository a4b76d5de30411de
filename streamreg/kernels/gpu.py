"""A GPU, through CuPy: its memory, states that lie there, and blocks on their way there.

Beside ``blocks.py`` this is the one module that knows CuPy.
"""

from __future__ import annotations

from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np

from streamreg.blocks import ALIGNMENT, Block
from streamreg.errors import InputError, MemoryLimitError
from streamreg.kernels.arrays import TILE_NBYTES, ArrayKernels, tile_rows
from streamreg.memory import format_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array

State = TypeVar("State")

# on the device, so that one block is folded while the next one is copied
N_BUFFERS = 2
# what holds a tile of any dtype
LEAST_BUFFER_NBYTES = 2 * TILE_NBYTES


class Gpu:
    """The GPU that CuPy takes for the current one.

    Raises
    ------
    InputError
        There is no CuPy, or no GPU that it can use.
    """

    def __init__(self) -> None:
        try:
            import cupy  # noqa: PLC0415  (an extra)
        except ImportError as error:
            raise InputError(
                f'device="cuda" needs CuPy, which cannot be imported ({error}): install the one '
                'for your driver, such as pip install cupy-cuda12x, or pass device="cpu"'
            ) from error
        self.cupy: Any = cupy
        try:
            n_devices = self.cupy.cuda.runtime.getDeviceCount()
        except self.cupy.cuda.runtime.CUDARuntimeError as error:
            raise InputError(
                f'device="cuda" finds no GPU to work on: {error}. See that nvidia-smi lists one, '
                'and that its driver is as new as CuPy wants it; or pass device="cpu"'
            ) from error
        if not n_devices:
            raise InputError(
                'device="cuda" finds no GPU: CUDA sees none. If CUDA_VISIBLE_DEVICES hides it, '
                'change that; or pass device="cpu"'
            )
        self._pool = self.cupy.cuda.MemoryPool()

    @property
    def free_nbytes(self) -> int:
        """Bytes of the device that nobody uses."""
        free, _ = self.cupy.cuda.runtime.memGetInfo()
        return int(free)

    def kernels(self) -> ArrayKernels:
        """Return the loops that run on the device."""

        def add_gram(rows: Any, gram: Any) -> None:  # noqa: ANN401
            # a symmetric rank-k update in place
            self.cupy.cublas.syrk("N", rows.T, out=gram, alpha=1.0, beta=1.0, lower=True)

        return ArrayKernels(self.cupy, add_gram)

    def buffers(self, count: int, nbytes: int) -> list[Array]:
        """Return buffers of so many bytes, or of fewer, where the device refuses those."""
        while True:
            try:
                return [self.cupy.empty(nbytes, np.uint8) for _ in range(count)]
            except self.cupy.cuda.memory.OutOfMemoryError:
                if nbytes <= LEAST_BUFFER_NBYTES:
                    raise
                nbytes //= 2

    @contextmanager
    def working(self, limit_nbytes: int) -> Iterator[None]:
        """Let this thread take so many bytes of the device at most, and give them back in the end.

        Raises
        ------
        MemoryLimitError
            The device refused what was asked of it.
        """
        self._pool.set_limit(size=limit_nbytes)
        try:
            with self.cupy.cuda.using_allocator(self._pool.malloc):
                yield
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryLimitError(
                f"the GPU refused memory: {error}. The fit may take {format_nbytes(limit_nbytes)} "
                f"there, and {format_nbytes(self.free_nbytes)} are free. End what else uses it, "
                'pass a lower device_memory_limit, or device="cpu"'
            ) from error
        finally:
            self._pool.free_all_blocks()


class DeviceState(Generic[State]):
    """A state that lies on the device in one piece, so that it comes back by one copy.

    Attributes
    ----------
    state
        Its arrays; the count of rows, ``n``, lies on the host, which decides by it.
    """

    def __init__(self, gpu: Gpu, host: State, stream: Any) -> None:  # noqa: ANN401
        self._fields: dict[str, Array] = host._asdict()  # type: ignore[attr-defined]
        self._there = gpu.cupy.empty(sum(field.size for field in self._fields.values()))
        views = dict(_views(self._there, self._fields))
        for name, field in self._fields.items():
            views[name].set(field, stream=stream)
        views["n"] = self._n = self._fields["n"].copy()
        self.state: State = type(host)(**views)

    def fetch(self) -> State:
        """Wait for all that was queued, and return the state in the host's memory."""
        fields = dict(_views(self._there.get(), self._fields)) | {"n": self._n}
        return type(self.state)(**fields)


class Filled(NamedTuple):
    """A block in memory that the device copies from by itself."""

    buffer: Array
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
    device_nbytes
        Of the two buffers on the device, or less where it refuses that: a block that is larger
        comes in parts.

    Attributes
    ----------
    folding
        The stream on which blocks are folded: a context manager.
    """

    def __init__(self, gpu: Gpu, n_pinned: int, pinned_nbytes: int, device_nbytes: int) -> None:
        self._cupy, cuda = gpu.cupy, gpu.cupy.cuda
        self._pinned: SimpleQueue[Array] = SimpleQueue()
        for _ in range(n_pinned):
            memory = cuda.alloc_pinned_memory(pinned_nbytes)
            self._pinned.put(np.frombuffer(memory, np.uint8, pinned_nbytes))
        self._copying, self.folding = (cuda.Stream(non_blocking=True) for _ in range(2))
        self._buffers = gpu.buffers(N_BUFFERS, device_nbytes)
        self._folded = [cuda.Event(disable_timing=True) for _ in range(N_BUFFERS)]
        self._turn = 0

    def fill(self, block: Block) -> Filled:
        """Copy a block into pinned memory, in this machine's byte order; any thread may."""
        buffer = self._pinned.get()
        filled = _laid_out(block, buffer)
        for here, values in zip(_arrays(filled), _arrays(block), strict=True):
            np.copyto(here, values)
        return Filled(buffer, filled)

    def kept(self, filled: Filled) -> Block:
        """Return a block that stays on the device."""
        there = _laid_out(filled.block, self._cupy.empty(block_nbytes(filled.block), np.uint8))
        self._copy(filled.block, there)
        self._release(filled)
        return there

    def parts(self, filled: Filled) -> Iterator[Block]:
        """Yield a block as it lies on the device for a while, perhaps in parts.

        Each is to be folded before the next is asked for. Parts end where tiles do, so that they
        change no bit.
        """
        block = filled.block
        for rows in _parts(block, self._buffers[0].nbytes):
            weight = None if block.weight is None else block.weight[rows]
            part = Block(block.X[rows], block.y[rows], weight, block.start)
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
        self._copying.launch_host_func(self._pinned.put, filled.buffer)


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


def _views(flat: Array, fields: dict[str, Array]) -> Iterator[tuple[str, Any]]:
    """Yield parts of a flat array in the forms of some others, in the order of their elements."""
    first = 0
    for name, field in fields.items():
        part = flat[first : first + field.size]
        first += field.size
        if field.flags.f_contiguous and not field.flags.c_contiguous:
            yield name, part.reshape(field.shape[::-1]).T
        else:
            yield name, part.reshape(field.shape)


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
