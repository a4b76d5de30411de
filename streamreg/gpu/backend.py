"""A GPU as the backend of a fit: threads read blocks, and the GPU reduces them."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from streamreg.engines.blas import one_blas_thread
from streamreg.engines.partition import PartitionPolicy
from streamreg.errors import MemoryLimitError, Parameter
from streamreg.formatting import MIB, format_nbytes
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import GpuEngine
from streamreg.gpu.memory_model import gpu_needs
from streamreg.planning.backend import Backend, Rates

if TYPE_CHECKING:
    from streamreg.engines.base import Engine, PartialResult, SegmentReducer, Task
    from streamreg.planning.backend import OnRows, Request
    from streamreg.planning.terms import Candidate, DeviceNeeds, Needs
    from streamreg.solvers.base import Solver
    from streamreg.sources.dataset import Dataset

# The host needs some tenths of a millisecond to queue a block: in this time a present bus transfers
# 16 MiB. It needs as long to fetch the state of a segment: in this time a present GPU reads 1 GiB
# of its memory.
GPU_PARTITION = PartitionPolicy(
    block_nbytes=64 * MIB,
    piece_nbytes=64 * MIB,
    many_segments=1,
    least_segment_nbytes=1,
    segment_nbytes=2048 * MIB,
    shares_large_states=False,
)
# tasks of one worker take turns on its GPU
_TURN = Lock()


class GpuBackend(Backend):
    """The current GPU of this process, or of each worker of a cluster.

    A fit may take ``device_limit`` bytes of it; ``None`` is half of what is free. More than is free
    on the GPU of this process raises :class:`MemoryLimitError`. On workers no blocks stay on the
    device. ``host`` has the threads of the same process, with its limits.
    """

    # figures of a present GPU, not measured: its bus, memory and float64 units
    rates = Rates(read_nbytes=1.5e9, memory_nbytes=2e12, flops=3e13)

    def __init__(self, host: Backend, device_limit: int | None, *, is_local: bool) -> None:
        self._host = host
        self.policy = GPU_PARTITION
        self.memory_limit = host.memory_limit
        self.n_threads = host.n_threads if is_local else 1
        self.caches_blocks = is_local
        if is_local or device_limit is None:
            free = Gpu().free_nbytes
            device_limit = free // 2 if device_limit is None else device_limit
            if device_limit > free:
                raise MemoryLimitError(
                    Parameter("device_memory_limit"),
                    f" is {format_nbytes(device_limit)} and the GPU has {format_nbytes(free)} "
                    "free: stop other programs that use it, or pass a lower one",
                )
        self._device_limit = device_limit

    def require_readable(self, dataset: Dataset) -> None:
        """Accept all rows, on the host and on the device."""

    def runs(self, solver: Solver) -> bool:
        return solver.runs_on_device

    def needs(self, request: Request, n_threads: int) -> Needs:
        limit, caches = self._device_limit, self.caches_blocks
        return gpu_needs(request, self.policy, n_threads, limit, caches=caches)

    def open(self, dataset: Dataset, candidate: Candidate, on_rows: OnRows) -> Engine:
        needs = _device_of(candidate)
        return GpuEngine(dataset, candidate.n_threads, on_rows, Gpu(), needs, self.policy)

    def segment_reducer(self, candidate: Candidate) -> SegmentReducer:
        return GpuReducer(_device_of(candidate))

    def without_device(self, dataset: Dataset) -> Backend | None:
        is_on_host = not any(source.is_cupy for source in dataset.sources())
        return self._host if self.caches_blocks and is_on_host else None


@dataclass(frozen=True)
class GpuReducer:
    """Reduces segments on the GPU of a cluster's worker; one task at a time."""

    needs: DeviceNeeds

    def reduce(self, task: Task) -> list[PartialResult]:
        engine = GpuEngine(task.dataset, 1, lambda _: None, Gpu(), self.needs, GPU_PARTITION)
        engine.checks_integers = task.checks_integers
        with _TURN, one_blas_thread(), engine:
            # whole states, whatever the part
            return list(engine.reduce_segments(task.accumulator, task.segments, task.start))

    def describe_processor(self) -> str:
        return Gpu().kind


def _device_of(candidate: Candidate) -> DeviceNeeds:
    if candidate.device is None:
        raise ValueError(f"{candidate.solver} was planned without a GPU")
    return candidate.device
