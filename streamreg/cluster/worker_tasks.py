"""What runs on a cluster's workers: pure functions of their arguments.

Each task opens the data set again, from metadata that come with it. That takes less than a
millisecond, and leaves nothing on a worker that could be lost with it.
"""

from __future__ import annotations

import pickle
import platform
import sys
import uuid
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from streamreg.errors import ClusterError, InputError

if TYPE_CHECKING:
    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.backend import SegmentReducer
    from streamreg.engines.base import PartialResult
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import Dataset
    from streamreg.sources.file_stamps import SeenFiles

# leading numbers of versions that must agree, because other versions may add up in another order
_PACKAGES = {"streamreg": 3, "numpy": 2, "scipy": 2, "zarr": 1, "numcodecs": 2}


class Job(NamedTuple):
    """What a task needs beside the accumulator and its part of the rows."""

    dataset: bytes  # pickled
    reducer: SegmentReducer
    versions: dict[str, str]  # of the process that runs the fit
    checks_integers: bool = True


class Done(NamedTuple):
    """What a task returns."""

    partial: PartialResult
    files: dict[str, SeenFiles]  # which versions of files it read, by array


class Worker(NamedTuple):
    """What a worker says of itself."""

    host: str
    versions: dict[str, str]
    processor: str  # for which its BLAS was built, or its GPU
    refusal: str  # why it cannot do the work; empty if it can


def new_prefix() -> str:
    """Return how the keys of an engine's tasks begin.

    Dask makes one group of all keys with the same first word.
    """
    return f"streamreg-{uuid.uuid4().hex}"


def new_key(prefix: str) -> str:
    """Return the key of a task."""
    return f"{prefix}-{uuid.uuid4().hex}"


def reduce_segments(
    job: Job, accumulator: bytes, segments: list[range], part: range | None = None
) -> list[Done]:
    """Reduce some segments, each to a partial result of its own.

    With ``part`` the state is large, and only this part of it is made and returned.
    """
    return _reduced(job, _opened(job), accumulator, segments, None, part)


def reduce_block(
    job: Job,
    accumulator: bytes,
    before: list[Done] | None,
    number: int,
    start: int,
    chunks: dict[str, list[Any]],
    part: range | None,
) -> list[Done]:
    """Reduce one block, of which Dask computed some arrays, after the blocks before it.

    Parameters
    ----------
    before
        What this function returned for the block before, if that is of the same segment.
    number, start
        Of the block, and of its first row.
    chunks
        The rows of the block by array, as Dask computed them.
    """

    def with_rows(name: str, source: RowSource) -> RowSource:
        return source.holding(start, chunks.get(name, []))

    dataset = _opened(job).replaced(with_rows)
    partial = None
    if before is not None:
        ((partial, files),) = before
        for name, stamps in dataset.stamps().items():
            stamps.meet(files[name])
    return _reduced(job, dataset, accumulator, [range(number, number + 1)], partial, part)


def probe(job: Job) -> Worker:
    """Say what this worker is, and whether it can open the data."""
    refusal, processor = "", ""
    try:
        pickle.loads(job.dataset).require_there()  # noqa: S301  (dask has unpickled this function)
    # stores raise errors of many types if they cannot be reached
    except Exception as error:  # noqa: BLE001
        refusal = (
            f"that it cannot open the data: {type(error).__name__}: {error}. Every worker must see "
            "the same path, or the store must be a URL that all can reach"
        )
    try:
        processor = job.reducer.describe_processor()
    # a missing package or device is an error of any type
    except Exception as error:  # noqa: BLE001
        refusal = refusal or f"{type(error).__name__}: {error}"
    return Worker(platform.node(), versions(), processor, refusal)


def other_versions(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Say which versions differ, if any do."""
    other = [
        f"{name} {theirs[name]} (here {our_version})"
        for name, our_version in ours.items()
        if theirs[name] != our_version
    ]
    if not other:
        return ""
    return f"other versions: {', '.join(other)}; install the same everywhere, since sums may differ"


@cache
def versions() -> dict[str, str]:
    """Return the versions on which the bits of an answer depend."""
    known = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package, numbers in _PACKAGES.items():
        known[package] = ".".join(version(package).split(".")[:numbers])
    return known


def _opened(job: Job) -> Dataset:
    """Open the data for a task, perhaps on a worker that connected after the others were asked."""
    dataset: Dataset = pickle.loads(job.dataset)  # noqa: S301  (dask has unpickled this function)
    other = other_versions(job.versions, versions())
    if other:
        raise ClusterError(f"a worker on {platform.node()} has {other}")
    try:
        dataset.require_there()
    except InputError as error:
        raise ClusterError(
            f"a worker on {platform.node()} cannot open the data: {error}. Every worker must see "
            "the same path"
        ) from error
    return dataset


def _reduced(
    job: Job,
    dataset: Dataset,
    accumulator: bytes,
    segments: list[range],
    start: PartialResult | None,
    part: range | None,
) -> list[Done]:
    made: Accumulator[Any, Any] = pickle.loads(accumulator)  # noqa: S301  (it came with the task)
    partials = job.reducer.reduce(
        dataset,
        made,
        segments,
        start=start,
        part=part,
        checks_integers=job.checks_integers,
    )
    files = {name: stamps.seen() for name, stamps in dataset.stamps().items()}
    return [Done(partial, files) for partial in partials]
