"""Where the passes of a fit run: one object that answers for it.

Threads of this process are a backend in ``fit.py``; ``gpu/`` and ``cluster/`` have one each, which
is imported only if a fit asks for it. Nothing else asks where a pass runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.base import Engine, PartialResult
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.sources.dataset import Dataset


# of planning, which is above engines: the solver and rows that a plan asks about, what they need,
# and what the plan grants
Request = TypeVar("Request")
Needs = TypeVar("Needs")
Candidate = TypeVar("Candidate")


class Rates(NamedTuple):
    """What one thread, or one device, does in a second: for rough estimates of time."""

    read_nbytes: float  # of stored rows, read and decoded
    memory_nbytes: float  # of rows in memory, reduced
    flops: float  # of matrix products


class SegmentReducer(Protocol):
    """Reduces segments in the calling thread; a cluster sends it to its workers, pickled."""

    def reduce(
        self,
        dataset: Dataset,
        accumulator: Accumulator[Any, Any],
        segments: list[range],
        *,
        start: PartialResult | None = None,
        part: range | None = None,
        checks_integers: bool = True,
    ) -> list[PartialResult]:
        """Return the partial result of each segment.

        Parameters
        ----------
        segments
            As ranges of block numbers.
        start
            The partial result that a single segment continues; it is not written to.
        part
            Numbers of the parts of the state to work on, if not all.
        checks_integers
            Whether to look for integers that float64 cannot represent.
        """

    def describe_processor(self) -> str:
        """Say on what kind of processor sums are made; raise if it cannot be used."""


class Backend(ABC, Generic[Request, Needs, Candidate]):
    """Where the passes of a fit run."""

    policy: PartitionPolicy
    memory_limit: int  # bytes that the fit may add to each process that runs passes
    n_threads: int  # that run passes at most, in each of these processes
    rates: Rates
    caches_blocks: bool = True  # whether decoded blocks can stay in memory between passes
    n_processes: int = 1  # that run passes at the same time
    uses_all_threads: bool = False  # rather than as many as fit the memory limit
    # of the smallest worker, if the memory limit is a share of it
    worker_nbytes: int | None = None

    @abstractmethod
    def require_readable(self, dataset: Dataset) -> None:
        """Raise :class:`InputError` if passes cannot read these rows."""

    @abstractmethod
    def needs(self, request: Request, n_threads: int) -> Needs:
        """Return what the passes of a solver keep in memory with this number of threads."""

    def load_kernels(self, kernels: str) -> str:
        """Return the name of the kernels that a fit runs with, loaded if this process runs them.

        It is part of a checkpoint's identity, because other kernels give other last bits.
        """
        return kernels

    @abstractmethod
    def open(
        self, dataset: Dataset, candidate: Candidate, kernels: str, on_rows: Callable[[int], None]
    ) -> Engine:
        """Return the engine that runs the passes of a plan's candidate."""

    @abstractmethod
    def segment_reducer(self, candidate: Candidate, kernels: str) -> SegmentReducer:
        """Return what reduces segments where this backend runs, for a cluster's workers."""

    def without_device(self, dataset: Dataset) -> Backend[Request, Needs, Candidate] | None:
        """Return the backend that reduces the rows without a device, if there is a choice."""
        del dataset
        return None
