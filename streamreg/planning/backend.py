"""Where the passes of a fit run: one object that answers for it.

Threads of this process are a backend in ``threads_backend.py``; ``gpu/`` and ``cluster/`` have one
each, which is imported only if a fit asks for it. Nothing else asks where a pass runs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from streamreg.engines.base import Engine, SegmentReducer
    from streamreg.engines.partition import PartitionPolicy
    from streamreg.planning.row_costs import RowCosts
    from streamreg.planning.terms import Candidate, Needs
    from streamreg.solvers.base import Footprint, Problem, Solver
    from streamreg.sources.dataset import Dataset

# called, from any thread, with the number of rows just done, for progress
OnRows = Callable[[int], None]


class Rates(NamedTuple):
    """What one thread, or one device, does in a second: for rough estimates of time."""

    read_nbytes: float  # of stored rows, read and decoded
    memory_nbytes: float  # of rows in memory, reduced
    flops: float  # of matrix products


class Work(Protocol):
    """What runs passes: a solver, or the gathering of statistics."""

    name: ClassVar[str]
    summary: ClassVar[str]

    @property
    def objective(self) -> str:
        """What it minimises."""

    def panel_counts(self, problem: Problem) -> Iterable[int]:
        """Return in how many panels its state can be computed: the fewest first."""

    def with_panels(self, n_panels: int) -> Work:
        """Return the same work, with its state computed in this many panels."""

    def direction_counts(self, problem: Problem) -> Iterable[int]:
        """Return how many directions of a preconditioner spare memory may buy: the most first."""

    def with_directions(self, n_directions: int) -> Work:
        """Return the same work, with this many directions of a preconditioner."""

    def targets_of_pass(self, problem: Problem) -> int:
        """Return the most targets that a pass reads."""

    def footprint(self, problem: Problem) -> Footprint:
        """Return the memory, the passes and the operations that it needs."""


class Request(NamedTuple):
    """What a plan asks a backend about: passes over some rows."""

    dataset: Dataset
    costs: RowCosts
    problem: Problem
    solver: Work


class Backend(ABC):
    """Where the passes of a fit run."""

    policy: PartitionPolicy
    memory_limit: int  # bytes that the fit may add to each process that runs passes
    n_threads: int  # the most threads that run passes in each of these processes
    rates: Rates
    caches_blocks: bool = True  # whether decoded blocks can stay in memory between passes
    n_processes: int = 1  # processes that run passes at the same time
    uses_all_threads: bool = False  # else as many threads as fit the memory limit
    # memory of the smallest worker, if the memory limit is a share of it
    worker_nbytes: int | None = None

    @abstractmethod
    def require_readable(self, dataset: Dataset) -> None:
        """Raise :class:`InputError` if passes cannot read these rows."""

    def runs(self, solver: Solver) -> bool:
        """Whether passes have the kernels of a solver."""
        del solver
        return True

    @abstractmethod
    def needs(self, request: Request, n_threads: int) -> Needs:
        """Return what the passes of a solver keep in memory with this number of threads."""

    @abstractmethod
    def open(self, dataset: Dataset, candidate: Candidate, on_rows: OnRows) -> Engine:
        """Return the engine that runs the passes of a plan's candidate."""

    @abstractmethod
    def segment_reducer(self, candidate: Candidate) -> SegmentReducer:
        """Return what reduces segments where this backend runs, for a cluster's workers."""

    def without_device(self, dataset: Dataset) -> Backend | None:  # noqa: ARG002
        """Return the backend that reduces the rows without a device, if there is a choice."""
        return None
