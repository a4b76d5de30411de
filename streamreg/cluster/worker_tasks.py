"""What runs on a cluster's workers: pure functions of what is sent with them.

A data set is opened anew for each task, from metadata that come along: that takes less than a
millisecond, and leaves nothing on a worker that could be lost with it.
"""

from __future__ import annotations

import pickle
import platform
import sys
import uuid
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import version
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from threadpoolctl import threadpool_info

from streamreg.engines.base import PartialResult, reduce_segment
from streamreg.engines.blas import one_blas_thread
from streamreg.engines.partition import Blocks
from streamreg.errors import ClusterError, InputError
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import DeviceEngine
from streamreg.kernels import numba as numba_kernels
from streamreg.kernels import numpy as numpy_kernels
from streamreg.sources.block_reader import BlockReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Accumulator
    from streamreg.kernels.base import Kernels
    from streamreg.planning.terms import DeviceNeeds
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import Dataset
    from streamreg.sources.zarr.versions import SeenFiles

# tasks of one worker share its GPU
_ONE_ON_DEVICE = Lock()
# of these the first numbers must agree: other versions may add up in another order
_PACKAGES = {"streamreg": 3, "numpy": 2, "scipy": 2, "zarr": 1, "numcodecs": 2}


class ReadJob(NamedTuple):
    """What a task needs beside the accumulator and its part of the rows."""

    dataset: bytes  # pickled
    loops: str  # "numpy", "numba" or "cuda"
    versions: dict[str, str]  # of who sends it
    device: DeviceNeeds | None = None  # of a GPU, where workers fold on theirs


class Done(NamedTuple):
    """What a task gives back."""

    folded: PartialResult
    files: dict[str, SeenFiles]  # which versions of files it read, by array


class Worker(NamedTuple):
    """What a worker says of itself."""

    host: str
    versions: dict[str, str]
    processor: str  # what its BLAS was built for, or its GPU
    refusal: str  # why it cannot do the work; empty if it can


def new_prefix() -> str:
    """Return what the keys of an engine's tasks begin with.

    By its first word Dask takes all of them for one group.
    """
    return f"streamreg-{uuid.uuid4().hex}"


def new_key(prefix: str) -> str:
    """Return the key of a task."""
    return f"{prefix}-{uuid.uuid4().hex}"


def kernels_named(loops: str) -> Kernels:
    """Return the loops of that name."""
    if loops == "numba":
        numba_kernels.load()
        return numba_kernels.KERNELS
    return numpy_kernels.KERNELS


def fold(job: ReadJob, accumulator: bytes, segments: list[list[tuple[int, int]]]) -> list[Done]:
    """Fold some segments, each into a state of its own, with one reader."""
    dataset = _opened(job)
    made = _unpickled(accumulator)
    return _fold(dataset, made, segments, kernels_named(job.loops))


def fold_on_device(job: ReadJob, accumulator: bytes, segments: list[range]) -> list[Done]:
    """Fold some segments, of blocks by their numbers, on this worker's GPU; one task at a time."""
    return _fold_there(job, _opened(job), accumulator, segments)


def fold_part(job: ReadJob, accumulator: bytes, blocks: list[tuple[int, int]], part: range) -> Done:
    """Fold all blocks into a part of a state that is too large for one copy a worker."""
    dataset = _opened(job)
    made = _unpickled(accumulator)
    some = kernels_named(job.loops)._replace(parallel=partial(_some, part))
    (done,) = _fold(dataset, made, [blocks], some)
    return done._replace(folded=done.folded._replace(state=made.part(done.folded.state, part)))


def fold_chunks(
    job: ReadJob,
    accumulator: bytes,
    before: Done | None,
    bounds: tuple[int, int],
    chunks: dict[str, list[Any]],
    part: range | None,
) -> Done:
    """Fold one block, of which Dask computed some arrays, after those before it.

    A state of which only a part is made is sent on as that part.
    """
    start, _ = bounds

    def holding(name: str, source: RowSource) -> RowSource:
        return source.holding(start, chunks.get(name, []))

    dataset = _opened(job).replaced(holding)
    if before is not None:
        for name, stamps in dataset.stamps().items():
            stamps.meet(before.files[name])
    if job.device is not None:
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, on_device=True)
        number = blocks.number_at(start)
        there = range(number, number + 1)
        (done,) = _fold_there(job, dataset, accumulator, [there], before and before.folded)
        return done
    made = _unpickled(accumulator)
    kernels, folded = kernels_named(job.loops), None
    if part is not None:
        kernels = kernels._replace(parallel=partial(_some, part))
    if before is not None:
        # what another task gave stays as it is, in case that this one is run again
        given = before.folded.state
        state = type(given)(*(array.copy(order="K") for array in given))
        if part is not None:
            state = made.joined([(part, state)])
        folded = before.folded._replace(state=state)
    (done,) = _fold(dataset, made, [[bounds]], kernels, folded)
    if part is not None:
        done = done._replace(folded=done.folded._replace(state=made.part(done.folded.state, part)))
    return done


def probe(job: ReadJob) -> Worker:
    """Say what this worker is, and whether it can open the data."""
    refusal, kind = "", ""
    try:
        dataset: Dataset = pickle.loads(job.dataset)  # noqa: S301
        dataset.require_there()
    # whatever a store may raise that is not where it should be
    except Exception as error:  # noqa: BLE001
        refusal = (
            f"that it cannot open the data: {type(error).__name__}: {error}. Every worker must see "
            "the same path, or the store must be a URL that all can reach"
        )
    try:
        if job.device is None:
            kernels_named(job.loops)
        kind = processor() if job.device is None else Gpu().kind
    # whatever makes it unfit for the work
    except Exception as error:  # noqa: BLE001
        refusal = refusal or f"{type(error).__name__}: {error}"
    return Worker(platform.node(), versions(), kind, refusal)


def other_versions(ours: dict[str, str], theirs: dict[str, str]) -> str:
    """Say which versions differ, if any do."""
    other = [
        f"{name} {theirs[name]} (here {here})"
        for name, here in ours.items()
        if theirs[name] != here
    ]
    if not other:
        return ""
    return f"other versions: {', '.join(other)}; install the same everywhere, since sums may differ"


def _unpickled(accumulator: bytes) -> Accumulator[Any, Any]:
    """Return an accumulator as it was sent with a task, by whom the task comes from; no file."""
    made: Accumulator[Any, Any] = pickle.loads(accumulator)  # noqa: S301
    return made


def _opened(job: ReadJob) -> Dataset:
    """Open the data for a task, perhaps on a worker that came after the others were asked."""
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


@cache
def versions() -> dict[str, str]:
    """Return the versions on which the bits of an answer depend."""
    known = {"python": ".".join(map(str, sys.version_info[:2]))}
    for package, numbers in _PACKAGES.items():
        known[package] = ".".join(version(package).split(".")[:numbers])
    return known


def processor() -> str:
    """Return for which processor BLAS's loops were chosen."""
    kinds = {
        str(each.get("architecture")) for each in threadpool_info() if each["user_api"] == "blas"
    }
    return ", ".join(sorted(kinds))


def _some(part: range, task: Callable[[int], None], count: int) -> None:
    for number in part:
        if number < count:
            task(number)


def _fold(
    dataset: Dataset,
    accumulator: Accumulator[Any, Any],
    segments: list[list[tuple[int, int]]],
    kernels: Kernels,
    before: PartialResult | None = None,
) -> list[Done]:
    with one_blas_thread():
        reader = BlockReader(dataset)
        try:
            folded = [
                reduce_segment(
                    reader,
                    accumulator,
                    before or PartialResult.nothing(accumulator),
                    blocks,
                    kernels,
                    lambda _: None,
                )
                for blocks in segments
            ]
        finally:
            reader.close()
    return _done(dataset, folded)


def _fold_there(
    job: ReadJob,
    dataset: Dataset,
    accumulator: bytes,
    segments: list[range],
    before: PartialResult | None = None,
) -> list[Done]:
    if job.device is None:
        raise ValueError("the plan has no device")
    made = _unpickled(accumulator)
    needs = replace(job.device, n_slots=min(job.device.n_slots, sum(map(len, segments))))
    with _ONE_ON_DEVICE, DeviceEngine(dataset, 1, lambda _: None, Gpu(), needs) as engine:
        return _done(dataset, list(engine.folded(made, segments, before)))


def _done(dataset: Dataset, folded: list[PartialResult]) -> list[Done]:
    files = {name: stamps.seen() for name, stamps in dataset.stamps().items()}
    return [Done(each, files) for each in folded]
