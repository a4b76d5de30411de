"""A Dask cluster as the backend of a fit: each worker runs passes on its threads or its GPU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from streamreg.cluster.engine import ClusterEngine
from streamreg.cluster.scheduler import scheduler_of
from streamreg.cluster.workers import job_for, require_fit_workers, require_reachable, room_on
from streamreg.engines.backend import Backend
from streamreg.engines.blas import blas_architecture
from streamreg.errors import DataWarning, MemoryLimitError
from streamreg.planning.memory_model import memory_limit_or_default

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.cluster.scheduler import Scheduler
    from streamreg.config import FitConfig
    from streamreg.engines.backend import SegmentReducer
    from streamreg.engines.base import Engine
    from streamreg.planning.memory_model import FitBackend, Request
    from streamreg.planning.terms import Candidate, Needs
    from streamreg.sources.dataset import Dataset


class ClusterBackend(Backend["Request", "Needs", "Candidate"]):
    """The workers of a cluster; all but where passes run is the backend's of one worker.

    Parameters
    ----------
    worker
        The backend of each worker, with the limits of the smallest.
    """

    caches_blocks = False

    def __init__(self, scheduler: Scheduler, worker: FitBackend) -> None:
        self._scheduler = scheduler
        self._worker = worker
        self.policy = worker.policy
        self.rates = worker.rates
        self.memory_limit = worker.memory_limit
        self.n_threads = worker.n_threads
        self.n_processes = max(1, len(scheduler.workers()))

    def require_readable(self, dataset: Dataset) -> None:
        self._worker.require_readable(dataset)
        require_reachable(dataset)

    def needs(self, request: Request, n_threads: int) -> Needs:
        return self._worker.needs(request, n_threads)

    def open(
        self,
        dataset: Dataset,
        candidate: Candidate,
        kernels: str,
        on_rows: Callable[[int], None],
    ) -> Engine:
        """Return the engine of a fit, once all workers have said that they can do the work.

        Raises
        ------
        MemoryLimitError
            Workers run more tasks at once than their memory holds.
        ClusterError
            A worker cannot open the data, or has other versions of packages that add up.
        """
        if candidate.n_threads < self.n_threads:
            raise MemoryLimitError(
                f"{candidate.solver} fits the memory of a worker with {candidate.n_threads} of its "
                f"{self.n_threads} threads at work, and Dask uses all; start workers with "
                f"--nthreads {candidate.n_threads}, or with more memory"
            )
        job = job_for(dataset, self.segment_reducer(candidate, kernels))
        # without GPUs a fit on this machine's processor is expected to give the same bits
        ours = {blas_architecture()} if candidate.device is None else set()
        require_fit_workers(self._scheduler, job, ours)
        return ClusterEngine(dataset, job, self._scheduler, on_rows, self.policy)

    def segment_reducer(self, candidate: Candidate, kernels: str) -> SegmentReducer:
        return self._worker.segment_reducer(candidate, kernels)


def limits_of(config: FitConfig) -> tuple[Scheduler, int, int]:
    """Return the client's scheduler, and the memory limit in bytes and the threads of a worker.

    Raises
    ------
    InputError
        The client is none, or its configuration makes no sense.
    ClusterError
        There is no worker.
    """
    if config.n_threads is not None:
        warnings.warn(
            f"n_threads={config.n_threads} has no effect on a fit with client: each worker uses "
            "the threads that it was started with (dask worker --nthreads)",
            DataWarning,
            stacklevel=2,
        )
    scheduler = scheduler_of(config.client)
    room = room_on(scheduler)
    limits = [limit for limit in (config.memory_limit, room.memory_nbytes) if limit is not None]
    return scheduler, min(limits) if limits else memory_limit_or_default(None), room.n_threads
