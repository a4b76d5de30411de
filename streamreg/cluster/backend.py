"""A Dask cluster as the backend of a fit: each worker runs passes on its threads or its GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.cluster.engine import ClusterEngine
from streamreg.cluster.scheduler import scheduler_of
from streamreg.cluster.workers import job_for, require_fit_workers
from streamreg.errors import ClusterError, InputError, Message, Parameter, warn
from streamreg.formatting import format_nbytes
from streamreg.machine import memory_limit_or_default
from streamreg.planning.backend import Backend

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.config.fit_config import FitConfig
    from streamreg.engines.base import Engine, SegmentReducer
    from streamreg.planning.backend import OnRows, Request
    from streamreg.planning.terms import Candidate, Needs
    from streamreg.solvers.base import Solver
    from streamreg.sources.dataset import Dataset

# share of a worker's memory above which Dask moves results to disk
_USABLE_SHARE = 0.6


class ClusterBackend(Backend):
    """The workers of a cluster.

    Workers may differ: the memory limit is that of the smallest, the threads are those of the
    largest.

    Parameters
    ----------
    worker_with
        Returns the backend of each worker, given its memory limit and threads.

    Raises
    ------
    InputError
        The client cannot be used, or its configuration makes no sense.
    ClusterError
        No worker connects within the scheduler's patience.
    """

    caches_blocks = False
    # Dask runs a task on each thread of a worker
    uses_all_threads = True

    def __init__(self, config: FitConfig, worker_with: Callable[[int, int], Backend]) -> None:
        if config.n_threads is not None:
            warn(
                Message(
                    Parameter("n_threads", config.n_threads),
                    " has no effect on a fit with ",
                    Parameter("client"),
                    ": each worker uses the threads that it was started with (dask worker "
                    "--nthreads)",
                )
            )
        self._scheduler = scheduler = scheduler_of(config.client)
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
        self.n_processes = max(1, len(workers))
        self.n_threads = max((worker["nthreads"] for worker in workers), default=1)
        self.memory_limit = memory_limit_or_default(config.memory_limit)
        smallest = min(filter(None, (worker["memory_limit"] for worker in workers)), default=None)
        if smallest is not None:
            self._limit_to_share_of(smallest, config.memory_limit)
        self._worker = worker_with(self.memory_limit, self.n_threads)
        self.policy, self.rates = self._worker.policy, self._worker.rates
        self.n_threads = self._worker.n_threads

    def _limit_to_share_of(self, worker_nbytes: int, given: int | None) -> None:
        usable = int(_USABLE_SHARE * worker_nbytes)
        if given is not None and given <= usable:
            return
        if given is not None:
            warn(
                Message(
                    Parameter("memory_limit"),
                    f" of {format_nbytes(given)} is lowered to {format_nbytes(usable)}, "
                    f"{_USABLE_SHARE:.0%} of the {format_nbytes(worker_nbytes)} of the smallest "
                    "worker",
                )
            )
        self.memory_limit, self.worker_nbytes = usable, worker_nbytes

    def require_readable(self, dataset: Dataset) -> None:
        self._worker.require_readable(dataset)
        for source in dataset.sources():
            if source.why_unreachable_from_workers:
                write = "save it with zarr.save_array(PATH, array) where all can, and pass its path"
                if source.is_sparse:
                    write = (
                        "write it with anndata.AnnData(X).write_zarr(PATH) where all can, and pass "
                        "PATH/X"
                    )
                raise InputError(
                    f"{source.name} {source.why_unreachable_from_workers}, which the workers of a "
                    f"cluster cannot read; {write}, or pass a Dask array"
                )

    def runs(self, solver: Solver) -> bool:
        return solver.runs_on_cluster and self._worker.runs(solver)

    def needs(self, request: Request, n_threads: int) -> Needs:
        return self._worker.needs(request, n_threads)

    def open(self, dataset: Dataset, candidate: Candidate, on_rows: OnRows) -> Engine:
        """Return the engine of a fit, once all workers have said that they can do the work.

        Raises
        ------
        ClusterError
            A worker cannot open the data, or has other versions of packages that compute sums.
        """
        job = job_for(dataset, self.segment_reducer(candidate))
        # without GPUs a fit on this machine's processor is expected to give the same bits
        ours = {job.reducer.describe_processor()} if candidate.device is None else set()
        require_fit_workers(self._scheduler, job, ours)
        return ClusterEngine(dataset, job, self._scheduler, on_rows, self.policy)

    def segment_reducer(self, candidate: Candidate) -> SegmentReducer:
        return self._worker.segment_reducer(candidate)
