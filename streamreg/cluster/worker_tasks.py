"""What runs on a cluster's workers: pure functions of their arguments.

Each task opens the data set again, from metadata in its arguments. That takes less than a
millisecond, and leaves nothing on a worker that could be lost with it.
"""

from __future__ import annotations

import pickle
import platform
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.cluster.versions import require_versions
from streamreg.errors import ClusterError

if TYPE_CHECKING:
    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.backend import SegmentReducer
    from streamreg.engines.base import PartialResult
    from streamreg.sources.dataset import Dataset


class Job(NamedTuple):
    """What a task needs beside the accumulator and its part of the rows."""

    dataset: bytes  # pickled
    reducer: SegmentReducer
    versions: dict[str, str]  # of the process that runs the fit
    checks_integers: bool = True


class Done(NamedTuple):
    """What a task returns for a segment."""

    partial: PartialResult
    files: dict[str, dict[int, int]]  # which versions of files it read, by array


def new_key(prefix: str) -> str:
    """Return the key of a task."""
    return f"{prefix}-{uuid.uuid4().hex}"


def reduce_segments(
    job: Job,
    accumulator: bytes,
    segments: list[range],
    part: range | None = None,
    before: list[Done] | None = None,
    start: int = 0,
    chunks: dict[str, list[Any]] | None = None,
) -> list[Done]:
    """Reduce each segment to a partial result.

    Parameters
    ----------
    accumulator
        Pickled.
    part
        Numbers of the parts of a large state to make and return, if not all.
    before
        What this function returned for the blocks of the same segment before, if any.
    start, chunks
        The first row of a block, and its rows by array, as Dask computed them.
    """
    dataset = _opened(job)
    if chunks is not None:
        dataset = dataset.replaced(lambda name, rows: rows.holding(start, chunks.get(name, [])))
    partial = None
    if before is not None:
        ((partial, files),) = before
        for name, stamps in dataset.stamps().items():
            stamps.meet(files[name])
    made: Accumulator[Any, Any] = pickle.loads(accumulator)  # noqa: S301  (it came with the task)
    partials = job.reducer.reduce(
        dataset, made, segments, start=partial, part=part, checks_integers=job.checks_integers
    )
    seen = {name: stamps.seen() for name, stamps in dataset.stamps().items()}
    return [Done(each, seen) for each in partials]


def probe(job: Job) -> str:
    """Open the data, and return on what kind of processor this worker makes sums."""
    _opened(job)
    return job.reducer.describe_processor()


def _opened(job: Job) -> Dataset:
    """Open the data; each task does, because workers may connect after the probes.

    Raises
    ------
    ClusterError
        This worker has other versions, or cannot open the data.
    """
    require_versions(job.versions)
    try:
        dataset: Dataset = pickle.loads(job.dataset)  # noqa: S301  (dask unpickled this function)
        for source in dataset.sources():
            source.require_exists()
    # stores raise errors of many types if they cannot be reached
    except Exception as error:
        raise ClusterError(
            f"a worker on {platform.node()} cannot open the data: {type(error).__name__}: {error}. "
            "Every worker must see the same path, or the store must be a URL that all can reach"
        ) from error
    return dataset
