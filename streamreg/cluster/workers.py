"""Checks of a cluster's workers before a fit runs on them."""

from __future__ import annotations

import pickle
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from streamreg.cluster import worker_tasks
from streamreg.cluster.shipped_source import ShippedSource
from streamreg.cluster.versions import versions
from streamreg.cluster.worker_tasks import Job
from streamreg.errors import ClusterError, StreamregError, warn
from streamreg.formatting import count

if TYPE_CHECKING:
    from streamreg.cluster.scheduler import Scheduler
    from streamreg.engines.base import SegmentReducer
    from streamreg.sources.dataset import Dataset

_MOST_NAMED = 5
# workers answer slowly the first time, because they import all that a fit needs
_ANSWER_SECONDS = 60.0


def job_for(dataset: Dataset, reducer: SegmentReducer) -> Job:
    """Return what tasks need of a data set."""
    sent = dataset.replaced(
        lambda _, source: ShippedSource(source) if source.is_computed else source
    )
    return Job(pickle.dumps(sent), reducer, versions())


def require_fit_workers(scheduler: Scheduler, job: Job, processors: set[str]) -> None:
    """Refuse workers that cannot do the work; warn of those that may give other bits.

    ``processors`` are the kinds that workers are expected to have. :class:`ClusterError`: no worker
    answers, or one cannot open the data, has other versions of packages that compute sums, or lacks
    what its device needs.
    """
    answers = _answers(scheduler, job)
    refusals = {at: probe.exception() for at, probe in answers.items() if probe.status == "error"}
    if refusals:
        at, error = next(iter(refusals.items()))
        why = str(error) + "; give the worker the same streamreg version and what its device needs"
        raise ClusterError(
            f"{count(len(refusals), 'worker')} of {len(answers):,} cannot do the work: "
            f"{_named([*refusals])}; {at} says {type(error).__name__}: ",
            error.args[0] if isinstance(error, StreamregError) else why,
        ) from error
    kinds = processors | {probe.result(timeout=_ANSWER_SECONDS) for probe in answers.values()}
    if len(kinds) > 1:
        warn(
            f"the fit uses processors of several kinds ({', '.join(sorted(kinds))}): the last "
            "digits may differ from run to run"
        )


def _answers(scheduler: Scheduler, job: Job) -> dict[str, Any]:
    """Return the probe that each worker answered, as a future, and warn of the other workers."""
    from distributed import wait  # noqa: PLC0415  (an extra)

    seconds = min(scheduler.patience, _ANSWER_SECONDS)
    probes = {
        at: scheduler.client.submit(worker_tasks.probe, job, workers=[at], pure=False)
        for at in scheduler.workers()
    }
    with scheduler.client.as_current(), suppress(TimeoutError):
        wait(list(probes.values()), timeout=seconds)  # type: ignore[no-untyped-call]
    answers = {at: probe for at, probe in probes.items() if probe.done()}
    if not answers:
        raise ClusterError(
            f"none of {count(len(probes), 'worker')} answered within {seconds:.0f} s: "
            f"{_named([*probes])}; are they busy, or stopped?"
        )
    silent = [at for at in scheduler.workers() if at in probes and at not in answers]
    if silent:
        warn(
            f"{count(len(silent), 'worker')} of {len(probes):,} did not answer within "
            f"{seconds:.0f} s ({_named(silent)}); the fit runs on the others"
        )
    return answers


def _named(addresses: list[str]) -> str:
    more = len(addresses) - _MOST_NAMED
    return ", ".join(addresses[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
