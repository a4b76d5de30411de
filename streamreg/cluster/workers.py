"""What a cluster must be before a fit begins on it."""

from __future__ import annotations

import math
import pickle
import time
import warnings
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.cluster import worker_tasks
from streamreg.cluster.scheduler import Scheduler
from streamreg.cluster.shipped_source import ShippedSource
from streamreg.errors import ClusterError, DataWarning, InputError, MemoryLimitError
from streamreg.formatting import count, shown
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from streamreg.cluster.worker_tasks import ReadJob, Worker
    from streamreg.planning.terms import Candidate, DeviceNeeds
    from streamreg.sources.dataset import Dataset

# of a worker's memory: from there on Dask moves what it holds to disk
_USABLE_SHARE = 0.6
_MOST_NAMED = 5
# how long workers may take to say what they are: the first time they import all that a fit needs
_ANSWER_SECONDS = 60.0
_TICK_SECONDS = 0.5


class Room(NamedTuple):
    """What the smallest worker has."""

    n_threads: int  # of the worker with most of them
    memory_nbytes: int | None  # what a worker may use; None where it has no limit

    def within(self, memory_limit: int | str | None) -> tuple[int | str | None, int]:
        """Return the memory limit of a plan for a worker, and its threads."""
        if memory_limit is None or self.memory_nbytes is None:
            return memory_limit or self.memory_nbytes, self.n_threads
        return min(parse_nbytes(memory_limit), self.memory_nbytes), self.n_threads


def require_client(client: object) -> Any:  # noqa: ANN401  (distributed publishes no types)
    """Return a ``distributed.Client`` that is connected.

    Raises
    ------
    InputError
        It is something else, asynchronous or closed.
    """
    if type(client).__module__.partition(".")[0] != "distributed":
        raise InputError(
            f"client={shown(client)} is of type {type(client).__name__}; pass a "
            "dask.distributed.Client, or None"
        )
    made: Any = client
    if made.asynchronous:
        raise InputError("client is asynchronous; pass one made with asynchronous=False")
    if made.status != "running":
        raise InputError(f"client is {made.status}; connect it to a scheduler first")
    return made


def scheduler_of(client: Any) -> Scheduler:  # noqa: ANN401
    """Return a client's scheduler, with Dask's setting ``streamreg.no-progress-timeout``.

    Raises
    ------
    InputError
        The setting is no time.
    """
    import dask  # noqa: PLC0415  (an extra)
    from dask.utils import parse_timedelta  # noqa: PLC0415

    given = dask.config.get("streamreg.no-progress-timeout", "300 s")
    try:
        seconds = float(parse_timedelta(given))
    # dask raises KeyError of units that it does not know
    except (ValueError, TypeError, KeyError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"streamreg.no-progress-timeout={given!r} in Dask's configuration is no time; set "
            '"300 s", or "10 min"'
        )
    return Scheduler(client, seconds)


def room_on(scheduler: Scheduler) -> Room:
    """Return what the workers have, once there is one.

    Raises
    ------
    ClusterError
        None came.
    """
    patience, client = scheduler.patience, scheduler.client
    deadline = time.monotonic() + patience
    while not scheduler.workers():
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the scheduler at {client.scheduler.address} has had no worker for "
                f"{patience:.0f} s; start some with: dask worker ADDRESS"
            )
        time.sleep(_TICK_SECONDS)
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    limits = [worker["memory_limit"] for worker in workers if worker["memory_limit"]]
    return Room(
        max((worker["nthreads"] for worker in workers), default=1),
        int(_USABLE_SHARE * min(limits)) if limits else None,
    )


def require_threads(scheduler: Scheduler, candidate: Candidate) -> None:
    """Refuse workers that run more tasks at once than their memory holds.

    Raises
    ------
    MemoryLimitError
        They have too many threads.
    """
    most = max(scheduler.workers().values(), default=1)
    if candidate.n_threads < most:
        raise MemoryLimitError(
            f"{candidate.solver} fits the memory of a worker with {candidate.n_threads} of its "
            f"{most} threads at work, and Dask uses all; start workers with --nthreads "
            f"{candidate.n_threads}, or with more memory"
        )


def job_for(dataset: Dataset, loops: str, device: DeviceNeeds | None = None) -> ReadJob:
    """Return what tasks need of a data set, and of the GPU of each worker.

    Raises
    ------
    InputError
        Workers could not open it: it lies in this process.
    """
    for source in dataset.sources():
        if source.why_unreachable_from_workers:
            raise InputError(
                f"{source.name} {source.why_unreachable_from_workers}, which the workers of a "
                "cluster cannot read; save it with zarr.save_array(PATH, array) where all can, and "
                "pass its path, or pass a Dask array"
            )
    sent = dataset.replaced(
        lambda _, source: ShippedSource(source) if source.is_computed else source
    )
    return worker_tasks.ReadJob(pickle.dumps(sent), loops, worker_tasks.versions(), device)


def require_fit_workers(scheduler: Scheduler, job: ReadJob) -> None:
    """Refuse workers that could not do the work, or would do it otherwise.

    Raises
    ------
    ClusterError
        A worker cannot open the data, or has other versions of what adds up.
    """
    found = _answers(scheduler, job)
    blind = {at: worker for at, worker in found.items() if worker.refusal}
    if blind:
        at, worker = next(iter(blind.items()))
        raise ClusterError(
            f"{count(len(blind), 'worker')} of {len(found):,} cannot do the work: "
            f"{_named(blind)}; {at} says {worker.refusal}"
        )
    for at, worker in found.items():
        other = worker_tasks.other_versions(job.versions, worker.versions)
        if other:
            raise ClusterError(f"worker {at} on {worker.host} has {other}")
    kinds = {worker.processor for worker in found.values()}
    if job.device is None:
        kinds.add(worker_tasks.processor())
    if len(kinds) > 1:
        warnings.warn(
            f"processors of several kinds add up ({', '.join(sorted(kinds))}): the last digits may "
            "differ from run to run",
            DataWarning,
            stacklevel=2,
        )


def _answers(scheduler: Scheduler, job: ReadJob) -> dict[str, Worker]:
    """Ask every worker what it is; those that do not answer are told of."""
    ended: SimpleQueue[Any] = SimpleQueue()
    probes: dict[str, Any] = {}
    found: dict[str, Worker] = {}
    seconds = min(scheduler.patience, _ANSWER_SECONDS)
    deadline = time.monotonic() + seconds
    # workers may come and go meanwhile: asked are all that are there
    while time.monotonic() < deadline:
        there = scheduler.workers()
        for at in there.keys() - probes.keys():
            probes[at] = scheduler.client.submit(worker_tasks.probe, job, workers=[at], pure=False)
            probes[at].add_done_callback(ended.put)
        for at, probe in probes.items():
            if at in there and at not in found and probe.done():
                found[at] = _answer(at, probe)
        if there and there.keys() <= found.keys():
            return found
        with suppress(Empty):
            ended.get(timeout=_TICK_SECONDS)
    there = scheduler.workers()
    probes = {at: probe for at, probe in probes.items() if at in there}
    silent = [at for at in probes if at not in found]
    if not found:
        raise ClusterError(
            f"none of {count(len(probes), 'worker')} answered within {seconds:.0f} s: "
            f"{', '.join(silent[:_MOST_NAMED])}; are they busy, or stopped?"
        )
    if silent:
        warnings.warn(
            f"{count(len(silent), 'worker')} of {len(probes):,} did not answer within "
            f"{seconds:.0f} s ({', '.join(silent[:_MOST_NAMED])}); the fit goes on with the others",
            DataWarning,
            stacklevel=2,
        )
    return found


def _answer(at: str, probe: Any) -> Worker:  # noqa: ANN401
    if probe.status == "error":
        error = probe.exception()
        raise ClusterError(
            f"worker {at} cannot run streamreg: {type(error).__name__}: {error}; install the "
            "same version there as here"
        ) from error
    answer: Worker = probe.result(timeout=_ANSWER_SECONDS)
    return answer


def _named(workers: dict[str, Worker]) -> str:
    shown = [f"{at} on {worker.host}" for at, worker in workers.items()]
    more = f" and {len(shown) - _MOST_NAMED:,} more" if len(shown) > _MOST_NAMED else ""
    return ", ".join(shown[:_MOST_NAMED]) + more
