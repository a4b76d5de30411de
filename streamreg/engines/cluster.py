"""Passes on the workers of a Dask cluster: one pure task a segment, merged in order here."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Self, TypeVar

from streamreg.engines import remote
from streamreg.engines.base import Folded, merged_in_order
from streamreg.engines.tasks import Tasks
from streamreg.layout import Blocks, Segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.accumulators.base import Accumulator
    from streamreg.engines.base import OnFolded
    from streamreg.engines.remote import Done, Job
    from streamreg.sources.dataset import DataSet

Result = TypeVar("Result")

# what is sent once for all tasks of a pass, rather than with each
_SHARED_NBYTES = 1 << 16


class ClusterEngine:
    """Runs passes over one data set; use it as a context manager.

    The segments are those of :class:`ThreadsEngine`, and so are the bits. A state too large for
    one copy a segment is made in parts, each by a task that reads all rows.

    Parameters
    ----------
    dataset
        Rows that every worker can open.
    job
        What tasks need of them.
    client
        A ``distributed.Client``.
    patience
        Seconds without progress after which the cluster is given up.
    on_rows
        Told the rows of each segment that is done, for progress.

    Attributes
    ----------
    n_omitted, rounded
        As of every :class:`Engine`.
    """

    def __init__(
        self,
        dataset: DataSet,
        job: Job,
        client: Any,  # noqa: ANN401  (distributed publishes no types)
        patience: float,
        on_rows: Callable[[int], None],
    ) -> None:
        self._dataset = dataset
        self._job = job
        self._client = client
        self._patience = patience
        self._on_rows = on_rows
        self._blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
        self._longest: dict[str, float] = {}
        self.n_omitted = 0
        self.rounded: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the cluster as it is: nothing of ours lies there."""

    def reduce(
        self,
        accumulator: Accumulator[Any, Result],
        start: Folded | None = None,
        on_folded: OnFolded = lambda _: None,
    ) -> Result:
        """Run one pass and return the accumulator's statistic.

        Raises
        ------
        InputError, DataCorruptionError
            As a worker met them.
        ClusterError
            The workers, or the scheduler, are lost or do not answer.
        """
        pass_nbytes = self._dataset.n_rows * self._dataset.row_nbytes
        segments = Segments.of(len(self._blocks), pass_nbytes, accumulator.state_nbytes)
        start = start or Folded.nothing(accumulator)
        if start.n_blocks == len(self._blocks):
            folded = start
        elif accumulator.n_parts > 1 and len(segments) == 1:
            # a part of a pass would have to be sent to every worker: it begins anew
            folded = self._folded_in_parts(accumulator)
            on_folded(folded)
        else:
            rest = [segment for segment in segments if segment.start >= start.n_blocks]
            states = self._folded_segments(accumulator, rest)
            folded = merged_in_order(accumulator, start, states, on_folded)
        self.n_omitted = folded.n_omitted
        self.rounded.update(folded.rounded)
        return accumulator.finalize(folded.state)

    def _folded_segments(
        self, accumulator: Accumulator[Any, Any], segments: list[range]
    ) -> Iterator[Folded]:
        sent = self._sent(accumulator)
        tasks = self._tasks(remote.fold, type(accumulator).__name__)
        bounds = [[self._blocks[number] for number in segment] for segment in segments]
        calls = ((self._job, sent, blocks) for blocks in bounds)
        for blocks, done in zip(bounds, tasks.in_order(calls), strict=True):
            self._longest[type(accumulator).__name__] = tasks.longest
            yield self._met(done)
            self._on_rows(blocks[-1][1] - blocks[0][0])

    def _folded_in_parts(self, accumulator: Accumulator[Any, Any]) -> Folded:
        n_threads = sum(self._client.nthreads().values())
        n_parts = accumulator.n_parts
        step = min(n_parts, max(1, n_threads))
        # one panel in so many: those to the left are the higher ones
        parts = [range(first, n_parts, step) for first in range(step)]
        tasks = self._tasks(remote.fold_part, f"parts of {type(accumulator).__name__}")
        sent, blocks = self._sent(accumulator), list(self._blocks)
        calls = ((self._job, sent, blocks, part) for part in parts)
        last: list[Folded] = []

        def states() -> Iterator[tuple[range, Any]]:
            for part, done in zip(parts, tasks.in_order(calls), strict=True):
                last[:] = [self._met(done)]
                yield part, last[0].state

        state = accumulator.joined(states())
        self._on_rows(self._dataset.n_rows)
        return last[0]._replace(state=state)

    def _tasks(self, function: Callable[..., Done], what: str) -> Tasks:
        return Tasks(
            self._client, function, f"{what} of {self._dataset.X.name}",
            patience=self._patience, longest=self._longest.get(what, 0.0),
        )  # fmt: skip

    def _sent(self, accumulator: Accumulator[Any, Any]) -> Any:  # noqa: ANN401  (bytes, or a future)
        """Return an accumulator as tasks take it."""
        pickled = pickle.dumps(accumulator)
        if len(pickled) <= _SHARED_NBYTES:
            return pickled
        # a task, not scattered data: those would be lost with a worker
        return self._client.submit(bytes, pickled, pure=False)

    def _met(self, done: Done) -> Folded:
        """Return what a task folded, if it read what others did."""
        for name, stamps in self._dataset.stamps().items():
            stamps.meet(done.files[name])
        return done.folded
