"""A GPU, through CuPy: its memory, its errors, and states on it. Only this module imports CuPy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.errors import InputError, MemoryLimitError, Parameter, Remedy, StreamregError
from streamreg.formatting import MIB, format_nbytes
from streamreg.gpu.compile import DeviceArray, compiler
from streamreg.gpu.fused_gram import compiled_centring
from streamreg.gpu.fused_products import FusedProducts
from streamreg.gpu.kernels import ArrayKernels
from streamreg.kernels.states import GramState, MomentsState, ProductState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array

State = MomentsState | ProductState | GramState
# waits for a copy of a state to the host, and returns it
Fetch = Callable[[], State]

# words for refused memory in the messages of CUDA's two interfaces and of cuBLAS
_NO_MEMORY = ("MemoryAllocation", "OUT_OF_MEMORY", "ALLOC_FAILED")
# a larger state is copied to memory that is not pinned, because pinning takes longer
_MOST_PINNED_NBYTES = 32 * MIB


class Gpu:
    """CuPy's current GPU; raises :class:`InputError` without CuPy, or without a usable GPU."""

    def __init__(self) -> None:
        try:
            import cupy  # noqa: PLC0415  (an extra)
            from cupy import cublas  # noqa: PLC0415  (cupy does not import it)
        except ImportError as error:
            raise InputError(
                Parameter("device", "cuda"),
                f" needs CuPy and cuBLAS, and cannot import them ({error}): install those for "
                'your driver, such as pip install "cupy-cuda12x[ctk]", or pass ',
                Remedy("device", "cpu"),
            ) from error
        self.cupy: Any = cupy
        self._cublas = cublas
        try:
            self.cupy.cuda.runtime.getDeviceCount()
        except self.cupy.cuda.runtime.CUDARuntimeError as error:
            raise InputError(
                Parameter("device", "cuda"),
                f" finds no GPU to work on: {error}. Check that nvidia-smi lists one, that its "
                "driver is new enough for CuPy, and that CUDA_VISIBLE_DEVICES does not hide it; "
                "or pass ",
                Remedy("device", "cpu"),
            ) from error
        self._number = int(self.cupy.cuda.Device().id)
        self._pool = self.cupy.cuda.MemoryPool()

    @property
    def free_nbytes(self) -> int:
        """Free bytes of the device, after CuPy's pool has released what it does not use."""
        with self._translated_errors():
            self.cupy.get_default_memory_pool().free_all_blocks()
            free, _ = self.cupy.cuda.runtime.memGetInfo()
        return int(free)

    @property
    def kind(self) -> str:
        """The model of the GPU, and the version of CuPy: both determine the last bits."""
        name = self.cupy.cuda.runtime.getDeviceProperties(self._number)["name"].decode()
        return f"{name} with CuPy {self.cupy.__version__}"

    @property
    def device(self) -> Any:  # noqa: ANN401
        """CuPy's device: a context manager that makes it the current one of a thread."""
        return self.cupy.cuda.Device(self._number)

    def require_own(self, rows: Any) -> None:  # noqa: ANN401
        """Raise :class:`InputError` if rows are on another GPU."""
        number = int(rows.device.id)
        if number != self._number:
            raise InputError(
                f"rows are on GPU {number} and the fit runs on GPU {self._number}: fit within "
                f"`with cupy.cuda.Device({number}):`, or move all of them to one GPU"
            )

    def kernels(self) -> ArrayKernels:
        """Return the kernels that run on the device."""

        def add_gram(rows: Any, gram: Any) -> None:  # noqa: ANN401
            # a symmetric rank-k update in place
            self._cublas.syrk("N", rows.T, out=gram, alpha=1.0, beta=1.0, lower=True)

        kernel = compiler(self.cupy)
        fused, centre = FusedProducts(self.cupy, kernel), compiled_centring(self.cupy, kernel)
        return ArrayKernels(self.cupy, add_gram, fused, centre)

    @contextmanager
    def working(self, limit_nbytes: int) -> Iterator[None]:
        """Limit the device memory of this thread, and release it at the end.

        Raises :class:`MemoryLimitError` if the device, or the host for pinned memory, refuses
        memory, and :class:`StreamregError` if the device fails.
        """
        self._pool.set_limit(size=limit_nbytes)
        try:
            with self._translated_errors(), self.cupy.cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            self._pool.free_all_blocks()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except self.cupy.cuda.memory.OutOfMemoryError as error:
            limit, free = self._pool.get_limit(), self.cupy.cuda.runtime.memGetInfo()[0]
            what = f"the GPU refused memory: {str(error).rstrip('.')}"
            if free > limit - self._pool.total_bytes():
                raise MemoryLimitError(
                    f"{what}. The fit may take {format_nbytes(limit)}, and needs more than was "
                    "planned: pass a higher ",
                    Remedy("device_memory_limit"),
                ) from error
            raise MemoryLimitError(
                f"{what}. {format_nbytes(free)} are free: stop other programs that use it, or pass "
                "a lower ",
                Remedy("device_memory_limit"),
                ", or ",
                Remedy("device", "cpu"),
            ) from error
        # the errors of CUDA's interfaces, libraries and compiler have no common base
        except Exception as error:
            if not _is_cuda_error(error):
                raise
            if any(word in str(error) for word in _NO_MEMORY):
                raise MemoryLimitError(
                    f"the GPU, or the host for pinned memory, refused memory: {error}. "
                    "Stop other programs that use them, or pass a lower ",
                    Remedy("memory_limit"),
                    ", or fewer ",
                    Remedy("n_threads"),
                ) from error
            raise StreamregError(
                f"the GPU failed: {type(error).__name__}: {error}. Check that its driver "
                "and CUDA are new enough for CuPy, read what nvidia-smi and the system's log say, "
                "and start a new process; a checkpoint stays valid. Or pass ",
                Remedy("device", "cpu"),
            ) from error


def _is_cuda_error(error: Exception) -> bool:
    package = type(error).__module__.partition(".")[0]
    # CuPy raises RuntimeError itself if CUDA's headers are absent
    is_bare = type(error) is RuntimeError and "CUDA" in str(error)
    return is_bare or package in {"cupy", "cupy_backends"}


class DeviceState:
    """A state in one piece of device memory, so that one copy brings it to the host.

    It starts as a copy of ``host``. If that has no rows, its matrices are zeros and are not sent.
    Kernels write to it in place, on ``stream``. The number of rows, ``state.n``, is on the host,
    because kernels branch on it.
    """

    def __init__(self, gpu: Gpu, host: State, stream: Any) -> None:  # noqa: ANN401
        self._gpu, self._stream, self._host = gpu, stream, host
        self._flat = gpu.cupy.empty(sum(field.size for field in host))
        state = _divided(self._flat, host)
        part: DeviceArray
        for part, field in zip(state, host, strict=True):
            if field.ndim > 1 and not host.n:
                part.fill(0.0)
            else:
                part.set(field, stream=stream)
        self.state = state._replace(n=host.n.copy())

    def send(self, stream: Any) -> Fetch:  # noqa: ANN401
        """Queue a copy to the host on ``stream``, after the work that is queued."""
        if self._flat.nbytes > _MOST_PINNED_NBYTES:
            host = np.empty(self._flat.size)
        else:
            memory = self._gpu.cupy.cuda.alloc_pinned_memory(self._flat.nbytes)
            host = np.frombuffer(memory, np.float64, self._flat.size)
        stream.wait_event(self._stream.record())
        self._flat.get(stream=stream, out=host, blocking=False)
        sent = stream.record()
        n = self.state.n.copy()

        def fetch() -> State:
            sent.synchronize()
            return _divided(host, self._host)._replace(n=n)

        return fetch


def _divided(flat: Array, like: State) -> State:
    """Return parts of a flat array, with the shapes and memory orders of the fields of a state."""
    parts, first = [], 0
    for field in like:
        part = flat[first : first + field.size]
        first += field.size
        is_by_columns = field.flags.f_contiguous and not field.flags.c_contiguous
        parts.append(
            part.reshape(field.shape[::-1]).T if is_by_columns else part.reshape(field.shape)
        )
    return type(like)(*parts)
