"""Passes on the workers of a Dask cluster: segments folded by pure tasks, merged in order here."""

from __future__ import annotations

import pickle
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any

from streamreg.cluster import worker_tasks
from streamreg.cluster.dask_blocks import DaskBlocks
from streamreg.cluster.tasks import Tasks
from streamreg.engines.base import Engine, PartialResult, merged_in_order
from streamreg.engines.partition import Blocks
from streamreg.formatting import format_nbytes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.cluster.scheduler import Scheduler
    from streamreg.cluster.worker_tasks import Done, ReadJob
    from streamreg.engines.base import OnPartial
    from streamreg.engines.partition import Segments
    from streamreg.sources.dataset import Dataset

# what is sent once for all tasks of a pass, rather than with each
_SHARED_NBYTES = 1 << 16
# bytes and multiplications a second of a worker that is slow, but works
_SLOW_READING, _SLOW_FOLDING = 1e7, 1e9
# tasks for each thread, what one reads, and the states that it returns, where it folds several
_TASKS_A_THREAD, _READ_NBYTES, _RETURNED_NBYTES = 3, 1 << 27, 1 << 24


class ClusterEngine(Engine):
    """Runs passes on the workers of a cluster.

    The segments are those of one machine's engine, and so are the bits. A state too large for one
    copy a segment is made in parts, each by a task that reads all rows; on GPUs it is not. Beside
    what other engines raise, :class:`ClusterError` tells of workers, or a scheduler, that are lost.

    Parameters
    ----------
    dataset
        Rows that every worker can open.
    job
        What tasks need of them.
    scheduler
        Of the cluster.
    on_rows
        Told the rows of each segment that is done, for progress.
    """

    def __init__(
        self,
        dataset: Dataset,
        job: ReadJob,
        scheduler: Scheduler,
        on_rows: Callable[[int], None],
    ) -> None:
        on_device = job.device is not None
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes, on_device=on_device)
        super().__init__(dataset, blocks, on_rows, on_device=on_device)
        self._job = job
        self._scheduler = scheduler
        self._prefix = worker_tasks.new_prefix()
        self._dask_blocks = DaskBlocks(dataset, self._bounds(range(len(blocks))))
        self._suspects: set[str] = set()

    def _begin(self, stack: ExitStack) -> None:
        # Dask remembers each group of tasks until it is restarted; while one task is held, those of
        # all passes are one group
        stack.callback(self._submit(bytes).release)

    def _folded(
        self,
        accumulator: Accumulator[Any, Any],
        start: PartialResult,
        segments: Segments,
        on_partial: OnPartial | None,
    ) -> PartialResult:
        if start.n_blocks == len(self._blocks):
            return start
        if len(segments) == 1:
            # a large state that would have to be sent: its pass begins anew
            start = PartialResult.nothing(accumulator)
            if accumulator.n_parts > 1 and not self._on_device:
                folded = self._folded_in_parts(accumulator)
                if on_partial is not None:
                    on_partial(folded)
                return folded
        states = self._folded_segments(accumulator, segments.after(start.n_blocks))
        with closing(states):
            return merged_in_order(accumulator, start, states, on_partial)

    def _folded_segments(
        self, accumulator: Accumulator[Any, Any], segments: list[range]
    ) -> Generator[PartialResult, None, None]:
        # a GPU's segment is a task of which nothing is heard until it ends
        at_worst = self._nbytes(segments[0]) / _SLOW_READING if self._on_device else 0.0
        sent, tasks = self._sent(accumulator), self._tasks(accumulator, at_worst)
        calls: Iterable[tuple[Any, ...]]
        if self._dask_blocks:
            groups = [[segment] for segment in segments]
            calls = self._dask_blocks.made(self._job, sent, segments, self._prefix)
        else:
            groups = self._grouped(segments, accumulator.state_nbytes)
            calls = (self._call(sent, group) for group in groups)
        # however it ends, no task is left
        with closing(tasks.in_order(calls)) as results:
            for group, result in zip(groups, results, strict=True):
                done = [result] if self._dask_blocks else result
                for segment, each in zip(group, done, strict=True):
                    yield self._met(each)
                    self._told(segment)

    def _call(self, sent: Any, group: list[range]) -> tuple[Any, ...]:  # noqa: ANN401
        """Return the call that folds some segments."""
        if self._on_device:
            return worker_tasks.fold_on_device, self._job, sent, group
        return worker_tasks.fold, self._job, sent, [self._bounds(part) for part in group]

    def _grouped(self, segments: list[range], state_nbytes: int) -> list[list[range]]:
        """Return the segments that are folded by one task each, a state apiece.

        A task costs Dask 1.6 ms (measured, two cores), whatever it does. So small segments are
        folded together: a few tasks for each thread are left, for workers that are not alike.
        """
        n_tasks = _TASKS_A_THREAD * max(1, sum(self._scheduler.workers().values()))
        together = max(
            1,
            min(
                len(segments) // n_tasks,
                _RETURNED_NBYTES // state_nbytes,
                _READ_NBYTES // self._nbytes(segments[0]),
            ),
        )
        return [segments[at : at + together] for at in range(0, len(segments), together)]

    def _folded_in_parts(self, accumulator: Accumulator[Any, Any]) -> PartialResult:
        n_parts, every = accumulator.n_parts, range(len(self._blocks))
        step = min(n_parts, max(1, sum(self._scheduler.workers().values())))
        n_rows, row_nbytes = self._dataset.n_rows, self._dataset.row_nbytes
        # a task is a whole pass, of which nothing is heard until it ends
        at_worst = n_rows * row_nbytes / _SLOW_READING
        at_worst += n_rows * self._dataset.n_features**2 / step / _SLOW_FOLDING
        sent, tasks = self._sent(accumulator), self._tasks(accumulator, at_worst)
        # one in so many: those to the left are the higher ones
        parts = [range(first, n_parts, step) for first in range(step)]
        calls: Iterable[tuple[Any, ...]]
        if self._dask_blocks:
            calls = chain.from_iterable(
                self._dask_blocks.made(self._job, sent, [every], self._prefix, part)
                for part in parts
            )
        else:
            whole = self._bounds(every)
            calls = ((worker_tasks.fold_part, self._job, sent, whole, part) for part in parts)
        last: list[PartialResult] = []

        with closing(tasks.in_order(calls)) as results:

            def states() -> Iterator[tuple[range, Any]]:
                for part, done in zip(parts, results, strict=True):
                    last[:] = [self._met(done)]
                    yield part, last[0].state

            state = accumulator.joined(states())
        self._told(every)
        return last[0]._replace(state=state)

    def _bounds(self, numbers: range) -> list[tuple[int, int]]:
        return [self._blocks[number] for number in numbers]

    def _nbytes(self, numbers: range) -> int:
        rows = self._blocks[numbers[-1]][1] - self._blocks[numbers[0]][0]
        return rows * self._dataset.row_nbytes

    def _told(self, numbers: range) -> None:
        self._on_rows(self._blocks[numbers[-1]][1] - self._blocks[numbers[0]][0])

    def _tasks(self, accumulator: Accumulator[Any, Any], at_worst: float = 0.0) -> Tasks:
        what = type(accumulator).__name__
        block = format_nbytes(self._blocks.max_rows * self._dataset.row_nbytes)
        return Tasks(
            self._scheduler,
            self._compute if self._dask_blocks else self._submit,
            f"{what} of {self._dataset.X.name}",
            prefix=self._prefix,
            holds=f"blocks of {block} and a state of {format_nbytes(accumulator.state_nbytes)}",
            patience=max(self._scheduler.patience, at_worst),
            suspects=self._suspects,
        )

    def _submit(self, *call: Any, **where: Any) -> Any:  # noqa: ANN401
        return self._scheduler.client.submit(
            *call, pure=False, key=worker_tasks.new_key(self._prefix), **where
        )

    def _compute(self, made: Any, **where: Any) -> Any:  # noqa: ANN401
        return self._scheduler.client.compute(made, **where)

    def _sent(self, accumulator: Accumulator[Any, Any]) -> Any:  # noqa: ANN401  (bytes, or a future)
        """Return an accumulator as tasks take it."""
        pickled = pickle.dumps(accumulator)
        if len(pickled) <= _SHARED_NBYTES:
            return pickled
        # a task, not scattered data: those would be lost with a worker
        return self._submit(bytes, pickled)

    def _met(self, done: Done) -> PartialResult:
        """Return what a task folded, if it read what others did."""
        for name, stamps in self._dataset.stamps().items():
            stamps.meet(done.files[name])
        return done.folded
