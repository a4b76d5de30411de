"""What a cluster's workers must be before a fit runs on them."""

from __future__ import annotations

import pickle
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.cluster import worker_tasks
from streamreg.cluster.shipped_source import ShippedSource
from streamreg.cluster.worker_tasks import Job, Worker
from streamreg.errors import ClusterError, DataWarning, InputError
from streamreg.formatting import count

if TYPE_CHECKING:
    from streamreg.cluster.scheduler import Scheduler
    from streamreg.engines.backend import SegmentReducer
    from streamreg.sources.dataset import Dataset

# of a worker's memory; above that Dask moves results to disk
_USABLE_SHARE = 0.6
_MOST_NAMED = 5
# workers answer slowly the first time, because they import all that a fit needs
_ANSWER_SECONDS = 60.0


class Room(NamedTuple):
    """What the smallest worker has."""

    n_threads: int  # of the worker with most of them
    memory_nbytes: int | None  # what a worker may use; None without a limit


def room_on(scheduler: Scheduler) -> Room:
    """Return what the workers have, once there is one.

    Raises
    ------
    ClusterError
        No worker connects within the patience.
    """
    patience, client = scheduler.patience, scheduler.client
    if not scheduler.workers():
        try:
            client.wait_for_workers(1, timeout=patience)
        except TimeoutError as error:
            raise ClusterError(
                f"the scheduler at {client.scheduler.address} has had no worker for "
                f"{patience:.0f} s; start some with: dask worker ADDRESS"
            ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Room(
        max((worker["nthreads"] for worker in workers), default=1),
        int(_USABLE_SHARE * min(limits)) if limits else None,
    )


def require_reachable(dataset: Dataset) -> None:
    """Raise :class:`InputError` if workers cannot open a source, because it is in this process."""
    for source in dataset.sources():
        if source.why_unreachable_from_workers:
            raise InputError(
                f"{source.name} {source.why_unreachable_from_workers}, which the workers of a "
                "cluster cannot read; save it with zarr.save_array(PATH, array) where all can, and "
                "pass its path, or pass a Dask array"
            )


def job_for(dataset: Dataset, reducer: SegmentReducer) -> Job:
    """Return what tasks need of a data set."""
    sent = dataset.replaced(
        lambda _, source: ShippedSource(source) if source.is_computed else source
    )
    return Job(pickle.dumps(sent), reducer, worker_tasks.versions())


def require_fit_workers(scheduler: Scheduler, job: Job, processors: set[str]) -> None:
    """Refuse workers that cannot do the work, or would give other bits.

    Parameters
    ----------
    processors
        Kinds of processors whose bits are expected; another kind among the workers is a warning.

    Raises
    ------
    ClusterError
        A worker cannot open the data, or has other versions of packages that add up.
    """
    found = _answers(scheduler, job)
    refusing = {at: worker for at, worker in found.items() if worker.refusal}
    if refusing:
        at, worker = next(iter(refusing.items()))
        raise ClusterError(
            f"{count(len(refusing), 'worker')} of {len(found):,} cannot do the work: "
            f"{_named(refusing)}; {at} says {worker.refusal}"
        )
    for at, worker in found.items():
        other = worker_tasks.other_versions(job.versions, worker.versions)
        if other:
            raise ClusterError(f"worker {at} on {worker.host} has {other}")
    kinds = processors | {worker.processor for worker in found.values()}
    if len(kinds) > 1:
        warnings.warn(
            f"processors of several kinds add up ({', '.join(sorted(kinds))}): the last digits may "
            "differ from run to run",
            DataWarning,
            stacklevel=2,
        )


def _answers(scheduler: Scheduler, job: Job) -> dict[str, Worker]:
    """Ask every worker what it is, and warn of those that do not answer.

    Workers that connect later are not asked: each task checks its worker again.
    """
    from distributed import wait  # noqa: PLC0415  (an extra)

    seconds = min(scheduler.patience, _ANSWER_SECONDS)
    probes = {
        at: scheduler.client.submit(worker_tasks.probe, job, workers=[at], pure=False)
        for at in scheduler.workers()
    }
    with scheduler.client.as_current(), suppress(TimeoutError):
        wait(list(probes.values()), timeout=seconds)  # type: ignore[no-untyped-call]
    found = {at: _answer(at, probe) for at, probe in probes.items() if probe.done()}
    silent = [at for at in scheduler.workers() if at in probes and at not in found]
    named = ", ".join(silent[:_MOST_NAMED])
    if not found:
        raise ClusterError(
            f"none of {count(len(probes), 'worker')} answered within {seconds:.0f} s: {named}; are "
            "they busy, or stopped?"
        )
    if silent:
        warnings.warn(
            f"{count(len(silent), 'worker')} of {len(probes):,} did not answer within "
            f"{seconds:.0f} s ({named}); the fit goes on with the others",
            DataWarning,
            stacklevel=2,
        )
    return found


def _answer(at: str, probe: Any) -> Worker:  # noqa: ANN401
    if probe.status == "error":
        error = probe.exception()
        raise ClusterError(
            f"worker {at} cannot run streamreg: {type(error).__name__}: {error}; install the "
            "same version on it"
        ) from error
    answer: Worker = probe.result(timeout=_ANSWER_SECONDS)
    return answer


def _named(workers: dict[str, Worker]) -> str:
    shown = [f"{at} on {worker.host}" for at, worker in workers.items()]
    more = f" and {len(shown) - _MOST_NAMED:,} more" if len(shown) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more
