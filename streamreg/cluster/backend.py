"""A Dask cluster as the backend of a fit: each worker runs passes on its threads or its GPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, NamedTuple

from streamreg.cluster.engine import ClusterEngine
from streamreg.cluster.scheduler import scheduler_of
from streamreg.cluster.workers import job_for, require_fit_workers
from streamreg.config import memory_limit_or_default
from streamreg.engines.backend import Backend
from streamreg.engines.blas import blas_architecture
from streamreg.errors import (
    ClusterError,
    DataWarning,
    InputError,
    Message,
    Parameter,
)
from streamreg.formatting import format_nbytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.cluster.scheduler import Scheduler
    from streamreg.config import FitConfig
    from streamreg.engines.backend import SegmentReducer
    from streamreg.engines.base import Engine
    from streamreg.planning.memory_model import FitBackend, Request
    from streamreg.planning.terms import Candidate, Needs
    from streamreg.sources.dataset import Dataset

# of a worker's memory; above that Dask moves results to disk
_USABLE_SHARE = 0.6


class ClusterBackend(Backend["Request", "Needs", "Candidate"]):
    """The workers of a cluster.

    Parameters
    ----------
    worker
        The backend of each worker, with the limits of the smallest.
    """

    caches_blocks = False
    # Dask runs a task on each thread of a worker
    uses_all_threads = True

    def __init__(self, limits: WorkerLimits, worker: FitBackend) -> None:
        self._scheduler = scheduler = limits.scheduler
        self.worker_nbytes = limits.worker_nbytes
        self._worker = worker
        self.policy = worker.policy
        self.rates = worker.rates
        self.memory_limit = worker.memory_limit
        self.n_threads = worker.n_threads
        self.n_processes = max(1, len(scheduler.workers()))

    def require_readable(self, dataset: Dataset) -> None:
        self._worker.require_readable(dataset)
        for source in dataset.sources():
            if source.why_unreachable_from_workers:
                raise InputError(
                    f"{source.name} {source.why_unreachable_from_workers}, which the workers of a "
                    "cluster cannot read; save it with zarr.save_array(PATH, array) where all can, "
                    "and pass its path, or pass a Dask array"
                )

    def needs(self, request: Request, n_threads: int) -> Needs:
        return self._worker.needs(request, n_threads)

    def open(
        self, dataset: Dataset, candidate: Candidate, kernels: str, on_rows: Callable[[int], None]
    ) -> Engine:
        """Return the engine of a fit, once all workers have said that they can do the work.

        Raises
        ------
        ClusterError
            A worker cannot open the data, or has other versions of packages that add up.
        """
        job = job_for(dataset, self.segment_reducer(candidate, kernels))
        # without GPUs a fit on this machine's processor is expected to give the same bits
        ours = {blas_architecture()} if candidate.device is None else set()
        require_fit_workers(self._scheduler, job, ours)
        return ClusterEngine(dataset, job, self._scheduler, on_rows, self.policy)

    def segment_reducer(self, candidate: Candidate, kernels: str) -> SegmentReducer:
        return self._worker.segment_reducer(candidate, kernels)


class WorkerLimits(NamedTuple):
    """What a fit may use of each worker."""

    scheduler: Scheduler
    memory_limit: int
    n_threads: int
    worker_nbytes: int | None  # of the smallest worker, if the limit is a share of its memory


def limits_of(config: FitConfig) -> WorkerLimits:
    """Return what a fit may use of each worker.

    Workers may differ: the limit is that of the smallest, the threads are those of the largest.

    Raises
    ------
    InputError
        The client cannot be used, or its configuration makes no sense.
    ClusterError
        No worker connects within the patience.
    """
    if config.n_threads is not None:
        no_effect = Message(
            Parameter("n_threads", config.n_threads),
            " has no effect on a fit with ",
            Parameter("client"),
            ": each worker uses the threads that it was started with (dask worker --nthreads)",
        )
        warnings.warn(no_effect, DataWarning, stacklevel=2)
    scheduler = scheduler_of(config.client)
    client = scheduler.client
    if not scheduler.workers():
        try:
            client.wait_for_workers(1, timeout=scheduler.patience)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler at {client.scheduler.address} has had no worker for "
                f"{scheduler.patience:.0f} s; start some with: dask worker ADDRESS"
            ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    memory = (worker["memory_limit"] for worker in workers)
    worker_nbytes = min((nbytes for nbytes in memory if nbytes), default=None)
    limit = memory_limit_or_default(config.memory_limit)
    if worker_nbytes is not None:
        usable = int(_USABLE_SHARE * worker_nbytes)
        if config.memory_limit is None or config.memory_limit > usable:
            if config.memory_limit is not None:
                _warn_of_limit(config.memory_limit, usable, worker_nbytes)
            limit = usable
        else:
            worker_nbytes = None
    n_threads = max((worker["nthreads"] for worker in workers), default=1)
    return WorkerLimits(scheduler, limit, n_threads, worker_nbytes)


def _warn_of_limit(memory_limit: int, usable: int, worker_nbytes: int) -> None:
    lowered = Message(
        Parameter("memory_limit"),
        f" of {format_nbytes(memory_limit)} is lowered to {format_nbytes(usable)}, "
        f"{_USABLE_SHARE:.0%} of the {format_nbytes(worker_nbytes)} of the smallest worker",
    )
    warnings.warn(lowered, DataWarning, stacklevel=4)
