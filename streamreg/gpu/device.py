"""A GPU, through CuPy: its memory, its errors, and states that lie there.

Beside ``blocks.py`` this, with the other ``gpu_*.py`` here that are given CuPy by it, is all that
knows CuPy.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from streamreg.errors import (
    InputError,
    MemoryLimitError,
    Message,
    Parameter,
    Remedy,
    StreamregError,
)
from streamreg.formatting import MIB, format_nbytes
from streamreg.gpu.compile import compiler
from streamreg.gpu.fused_gram import CompiledGramTiles
from streamreg.gpu.fused_products import FusedProducts
from streamreg.gpu.kernels import ArrayKernels
from streamreg.kernels.states import GramState, MomentsState, ProductState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from streamreg.blocks import Array

State = TypeVar("State")

# as CUDA's two interfaces and cuBLAS say it
_NO_MEMORY = ("MemoryAllocation", "OUT_OF_MEMORY", "ALLOC_FAILED")
# of no rows, all matrices of these are zeros
_ZERO_MATRICES = (GramState, MomentsState, ProductState)
# of a state: to pin more takes longer than to copy it to memory that is not
_MOST_PINNED_NBYTES = 32 * MIB


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
            from cupy import cublas  # noqa: PLC0415  (which cupy does not import)
        except ImportError as error:
            raise InputError(
                Message(
                    Parameter("device", "cuda"),
                    f" needs CuPy and cuBLAS, and cannot import them ({error}): install those for "
                    'your driver, such as pip install "cupy-cuda12x[ctk]", or pass ',
                    Remedy("device", "cpu"),
                )
            ) from error
        self.cupy: Any = cupy
        self._cublas = cublas
        try:
            self.cupy.cuda.runtime.getDeviceCount()
        except self.cupy.cuda.runtime.CUDARuntimeError as error:
            raise InputError(
                Message(
                    Parameter("device", "cuda"),
                    f" finds no GPU to work on: {error}. See that nvidia-smi lists one, that its "
                    "driver is as new as CuPy wants it, and that CUDA_VISIBLE_DEVICES does not "
                    "hide it; or pass ",
                    Remedy("device", "cpu"),
                )
            ) from error
        self._number = int(self.cupy.cuda.Device().id)
        self._pool = self.cupy.cuda.MemoryPool()

    @property
    def free_nbytes(self) -> int:
        """Bytes of the device that nobody uses, once CuPy has given back what it keeps unused."""
        with self._telling():
            self.cupy.get_default_memory_pool().free_all_blocks()
            free, _ = self.cupy.cuda.runtime.memGetInfo()
        return int(free)

    @property
    def kind(self) -> str:
        """The model, and the version of what adds up on it."""
        name = self.cupy.cuda.runtime.getDeviceProperties(self._number)["name"].decode()
        return f"{name} with CuPy {self.cupy.__version__}"

    def pinned(self, nbytes: int) -> Any:  # noqa: ANN401
        """Return memory of the host that the device copies from by itself: just as much."""
        cuda = self.cupy.cuda
        return cuda.PinnedMemoryPointer(cuda.PinnedMemory(nbytes), 0)

    def here(self) -> AbstractContextManager[object]:
        """Return what makes it the current GPU of a thread, for what others do there."""
        context: AbstractContextManager[object] = self.cupy.cuda.Device(self._number)
        return context

    def synchronize(self) -> None:
        """Synchronise the device, because rows may still be computed on other streams."""
        self.cupy.cuda.Device().synchronize()

    def require_here(self, rows: Any) -> None:  # noqa: ANN401
        """Raise :class:`InputError` if rows lie on another GPU."""
        number = int(rows.device.id)
        if number != self._number:
            raise InputError(
                f"rows lie on GPU {number} and the fit runs on GPU {self._number}: fit within "
                f"`with cupy.cuda.Device({number}):`, or bring all of them to one GPU"
            )

    def kernels(self) -> ArrayKernels:
        """Return the loops that run on the device."""

        def add_gram(rows: Any, gram: Any) -> None:  # noqa: ANN401
            # a symmetric rank-k update in place
            self._cublas.syrk("N", rows.T, out=gram, alpha=1.0, beta=1.0, lower=True)

        with self._telling():
            device = self.cupy.cuda.Device(self._number)
            most = device.attributes["MaxSharedMemoryPerBlockOptin"]
        kernel = compiler(self.cupy)
        return ArrayKernels(
            self.cupy, add_gram, FusedProducts(self.cupy, kernel, most),
            CompiledGramTiles(self.cupy, kernel),
        )  # fmt: skip

    def buffers(self, count: int, nbytes: int, least_nbytes: int) -> list[Array]:
        """Return buffers of so many bytes, or of fewer, where the device refuses those."""
        while True:
            try:
                return [self.cupy.empty(nbytes, np.uint8) for _ in range(count)]
            except self.cupy.cuda.memory.OutOfMemoryError:
                if nbytes <= least_nbytes:
                    raise
                nbytes = max(least_nbytes, nbytes // 2)

    @contextmanager
    def working(self, limit_nbytes: int) -> Iterator[None]:
        """Let this thread take so many bytes of the device at most, and give them back in the end.

        Raises
        ------
        MemoryLimitError
            The device, or the host for what it copies from, refused memory.
        StreamregError
            The device failed.
        """
        self._pool.set_limit(size=limit_nbytes)
        try:
            with self._telling(), self.cupy.cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            self._pool.free_all_blocks()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Say in our words what CUDA, or CuPy, refuses or fails at."""
        try:
            yield
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            raise MemoryLimitError(self._refused(error)) from error
        # of CUDA's two interfaces, its libraries and its compiler, which have no common base
        except Exception as error:
            if not _is_of_cuda(error):
                raise
            if any(word in str(error) for word in _NO_MEMORY):
                raise MemoryLimitError(
                    Message(
                        "the GPU, or the host for what it copies from, refused memory: "
                        f"{error}. End what else uses them, or pass a lower ",
                        Remedy("memory_limit"),
                        ", or fewer ",
                        Remedy("n_threads"),
                    )
                ) from error
            raise StreamregError(
                Message(
                    f"the GPU failed: {type(error).__name__}: {error}. See that its driver and "
                    "CUDA are as new as CuPy wants them, and what nvidia-smi and the system's log "
                    "say, and start a new process; what a checkpoint saved is kept. Or pass ",
                    Remedy("device", "cpu"),
                )
            ) from error

    def _refused(self, error: Exception) -> str:
        """Say why memory was refused, and what helps."""
        limit, free = self._pool.get_limit(), self.cupy.cuda.runtime.memGetInfo()[0]
        what = f"the GPU refused memory: {str(error).rstrip('.')}"
        if free > limit - self._pool.total_bytes():
            return Message(
                f"{what}. The fit may take {format_nbytes(limit)}, and needs more than was "
                "planned: pass a higher ",
                Remedy("device_memory_limit"),
            )
        return Message(
            f"{what}. {format_nbytes(free)} are free: end what else uses it, or pass a lower ",
            Remedy("device_memory_limit"),
            ", or ",
            Remedy("device", "cpu"),
        )


def _is_of_cuda(error: Exception) -> bool:
    """Whether CuPy, or what it calls, raised an error."""
    package = type(error).__module__.partition(".")[0]
    # CuPy has no class of its own for CUDA's headers that are not there
    is_bare = type(error) is RuntimeError and "CUDA" in str(error)
    return is_bare or package in {"cupy", "cupy_backends"}


class DeviceState(Generic[State]):
    """A state that lies on the device in one piece, so that it comes back by one copy.

    Parameters
    ----------
    gpu
        The device.
    host, is_of_no_rows
        What it is at first; of no rows large fields need not be copied.
    stream
        Where it is added to.

    Attributes
    ----------
    state
        Its arrays; the count of rows, ``n``, lies on the host, which decides by it.
    """

    def __init__(
        self,
        gpu: Gpu,
        host: State,
        stream: Any,  # noqa: ANN401
        *,
        is_of_no_rows: bool = False,
    ) -> None:
        self._gpu, self._stream = gpu, stream
        self._fields: dict[str, Array] = host._asdict()  # type: ignore[attr-defined]
        self._there = gpu.cupy.empty(sum(field.size for field in self._fields.values()))
        views = dict(_views(self._there, self._fields))
        is_zero = is_of_no_rows and isinstance(host, _ZERO_MATRICES)
        for name, field in self._fields.items():
            if is_zero and field.ndim > 1:
                views[name].fill(0.0)
            else:
                views[name].set(field, stream=stream)
        if "n" not in self._fields:
            raise TypeError(f"on a GPU, {type(host).__name__} needs a count of rows, n")
        views["n"] = self._n = self._fields["n"].copy()
        self.state: State = type(host)(**views)

    def add(self, state: State) -> None:
        """Take what an accumulator returned: the state that it was given, which it added to.

        Raises
        ------
        TypeError
            It is another one.
        """
        if state is not self.state:
            raise TypeError(
                f"on a GPU, {type(self.state).__name__} must be added to in place: return the "
                "state that update and merge were given"
            )

    def send(self, stream: Any) -> Callable[[], State]:  # noqa: ANN401
        """Have a copy made, on a stream of its own, of what it is once all queued here is done.

        Returns
        -------
        What waits for the copy and returns it, in the host's memory.
        """
        size, nbytes = self._there.size, self._there.nbytes
        if nbytes > _MOST_PINNED_NBYTES:
            here = np.empty(size)
        else:
            memory = self._gpu.cupy.cuda.alloc_pinned_memory(nbytes)
            here = np.frombuffer(memory, np.float64, size)
        stream.wait_event(self._stream.record())
        self._there.get(stream=stream, out=here, blocking=False)
        sent = stream.record()
        n = self._n.copy()

        def fetch() -> State:
            sent.synchronize()
            return type(self.state)(**dict(_views(here, self._fields)) | {"n": n})

        return fetch


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
