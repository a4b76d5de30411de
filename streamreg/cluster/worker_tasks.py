"""What runs on a cluster's workers: pure functions of their arguments.

Each task opens the data set again, from metadata in its arguments. That takes less than a
millisecond, and leaves nothing on a worker that could be lost with it.
"""

from __future__ import annotations

import pickle
import platform
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.cluster.versions import require_versions
from streamreg.engines.base import Task
from streamreg.errors import ClusterError

if TYPE_CHECKING:
    from streamreg.engines.base import PartialResult, SegmentReducer
    from streamreg.sources.dataset import Dataset


class Job(NamedTuple):
    """What a task needs besides the accumulator and the numbers of its blocks."""

    dataset: bytes  # pickled
    reducer: SegmentReducer
    versions: dict[str, str]  # of the process that runs the fit
    checks_integers: bool = True


class Done(NamedTuple):
    """What a task returns."""

    partials: list[PartialResult]  # of its segments
    files: dict[str, dict[int, int]]  # which versions of files it read, by array


def reduce_segments(
    job: Job,
    accumulator: bytes,  # pickled
    segments: list[range],
    part: range | None = None,  # numbers of the parts of a state to make and return, if not all
    before: Done | None = None,  # for the earlier blocks of a single segment, if any
    start: int = 0,  # the first row of a block of Dask arrays
    chunks: dict[str, list[Any]] | None = None,  # its rows, by array, as Dask computed them
) -> Done:
    """Reduce each segment to a partial result."""
    dataset = _opened(job)
    if chunks is not None:
        dataset = dataset.replaced(lambda name, rows: rows.holding(start, chunks.get(name, [])))
    partial = None
    if before is not None:
        (partial,) = before.partials
        merge_stamps(dataset, before)
    made = pickle.loads(accumulator)  # noqa: S301  (it came with the task)
    partials = job.reducer.reduce(Task(dataset, made, segments, partial, part, job.checks_integers))
    return Done(partials, {name: stamps.seen() for name, stamps in dataset.stamps().items()})


def merge_stamps(dataset: Dataset, done: Done) -> None:
    """Raise :class:`DataCorruptionError` if a task read another version of a file."""
    for name, stamps in dataset.stamps().items():
        stamps.merge(done.files[name])


def probe(job: Job) -> str:
    """Open the data, and return the kind of processor that computes this worker's sums."""
    _opened(job)
    return job.reducer.describe_processor()


def _opened(job: Job) -> Dataset:
    """Open the data; each task does, because workers may connect after the probes."""
    require_versions(job.versions)
    try:
        dataset: Dataset = pickle.loads(job.dataset)  # noqa: S301  (Dask unpickles all tasks)
        for source in dataset.sources():
            source.require_exists()
    # stores raise errors of many types if they cannot be reached
    except Exception as error:
        raise ClusterError(
            f"a worker on {platform.node()} cannot open the data: {type(error).__name__}: {error}. "
            "Every worker must see the same path, or the store must be a URL that all can reach"
        ) from error
    return dataset
