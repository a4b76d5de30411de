"""Passes on the workers of a Dask cluster: pure tasks reduce segments; the client merges them."""

from __future__ import annotations

import pickle
from contextlib import closing
from typing import TYPE_CHECKING, Any

from streamreg.cluster import worker_tasks
from streamreg.cluster.tasks import TASKS_A_THREAD, Tasks
from streamreg.engines.base import Engine, PartialResult
from streamreg.engines.partition import HOST, PartitionPolicy
from streamreg.errors import warn
from streamreg.formatting import format_nbytes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from contextlib import ExitStack

    from streamreg.accumulators.base import Accumulator
    from streamreg.cluster.scheduler import Scheduler
    from streamreg.cluster.worker_tasks import Done, Job
    from streamreg.engines.base import Pass
    from streamreg.sources.dataset import Dataset

# an accumulator above this size is sent once for all tasks of a pass, not with each
_SHARED_NBYTES = 1 << 16
# bytes and multiplications a second of a worker that is slow but not broken
_SLOW_READING, _SLOW_MULTIPLYING = 1e7, 1e9
# what one task reads and returns at most if it reduces several segments
_READ_NBYTES, _RETURNED_NBYTES = 1 << 27, 1 << 24


class ClusterEngine(Engine):
    """Runs passes on the workers of a cluster.

    Segments are those of the engine of one machine, so the result is bitwise identical. If a state
    is too large to keep one for each segment, each task reads all rows and computes one part of the
    state; a GPU computes whole states. A pass raises :class:`ClusterError` if workers or the
    scheduler are lost.
    """

    def __init__(
        self,
        dataset: Dataset,
        job: Job,
        scheduler: Scheduler,
        on_rows: Callable[[int], None],
        policy: PartitionPolicy = HOST,
    ) -> None:
        super().__init__(dataset, on_rows, policy)
        self._job = job
        self._scheduler = scheduler
        # the chunks of each block of the Dask arrays, by the name of the array
        self._chunks = {
            name: chunks
            for name, source in dataset.named().items()
            if (chunks := source.delayed_chunks(list(self.blocks))) is not None
        }
        self._has_warned = False

    def _begin(self, stack: ExitStack) -> None:
        # Dask remembers each group of tasks until it is restarted. While one task is held, the
        # tasks of all passes are one group.
        stack.callback(self._scheduler.submit(bytes).release)

    def _run_pass(self, work: Pass) -> PartialResult:
        accumulator, start, segments, on_partial = work
        if start.n_blocks == len(self.blocks):
            return start
        if len(segments) == 1:
            is_large = self.policy.is_large(accumulator.state_nbytes)
            if on_partial is not None and is_large and not self._has_warned:
                self._has_warned = True
                warn(
                    f"on a cluster a state of {format_nbytes(accumulator.state_nbytes)} is not "
                    "saved within a pass: a fit that is interrupted runs its last pass again from "
                    "the start"
                )
            # a large state would have to be sent to the workers: its pass starts over
            work = work._replace(start=PartialResult(accumulator.zero()))
            if accumulator.n_parts > 1 and self.policy.shares(accumulator.n_parts):
                whole = self._reduce_in_parts(accumulator)
                if on_partial is not None:
                    on_partial(whole)
                return whole
        self._report_rows_before(work.start.n_blocks)
        with closing(self._reduce_segments(accumulator, work.rest())) as partials:
            return work.merge_in_order(partials)

    def _reduce_segments(
        self, accumulator: Accumulator[Any, Any], segments: list[range]
    ) -> Generator[PartialResult, None, None]:
        groups = self._grouped(segments, accumulator.state_nbytes)
        # closed, so that no task is left, however the pass ends
        with closing(self._run(accumulator, [(group, None) for group in groups])) as results:
            for group, done in zip(groups, results, strict=True):
                for segment, partial in zip(group, done.partials, strict=True):
                    yield partial
                    self._on_rows(self._n_rows(segment))

    def _reduce_in_parts(self, accumulator: Accumulator[Any, Any]) -> PartialResult:
        n_parts = accumulator.n_parts
        step = min(n_parts, self._scheduler.n_threads())
        # every ``step``-th part, because the first parts are larger
        parts = [range(first, n_parts, step) for first in range(step)]
        calls = [([range(len(self.blocks))], part) for part in parts]
        counts = PartialResult(None)

        def states(results: Iterable[Done]) -> Iterator[tuple[range, Any]]:
            nonlocal counts
            for part, done in zip(parts, results, strict=True):
                (partial,) = done.partials
                counts = partial._replace(state=None)
                yield part, partial.state

        with closing(self._run(accumulator, calls)) as results:
            state = accumulator.joined(states(results))
        self._on_rows(self._dataset.n_rows)
        return counts._replace(state=state)

    def _run(
        self, accumulator: Accumulator[Any, Any], calls: Sequence[tuple[list[range], range | None]]
    ) -> Generator[Done, None, None]:
        """Yield in order what tasks return for segments, or for a part of the state."""
        job = self._job._replace(checks_integers=self.checks_integers)
        sent: dict[tuple[str, ...], Any] = {}

        def submit(segments: list[range], part: range | None, workers: list[str] | None) -> Any:  # noqa: ANN401
            # if another worker hangs, the chosen ones must not fetch the accumulator from it
            chosen = tuple(workers or ())
            if chosen not in sent:
                sent[chosen] = self._send(accumulator, workers)
            if self._chunks:
                (segment,) = segments
                last_block = self._chained(job, sent[chosen], segment, part)
                return self._scheduler.client.compute(last_block, workers=workers)
            call = (worker_tasks.reduce_segments, job, sent[chosen], segments, part)
            return self._scheduler.submit(*call, workers=workers)

        segments, part = calls[0]
        # seconds that a slow worker needs: a GPU, or a whole pass, shows no progress before it ends
        at_worst = sum(map(self._nbytes, segments)) / _SLOW_READING
        if part is not None:
            share = len(part) / accumulator.n_parts
            flops = self._dataset.n_rows * self._dataset.n_features**2 * share
            at_worst += flops / _SLOW_MULTIPLYING
        block = format_nbytes(self.blocks.max_rows * self._dataset.row_nbytes)
        tasks = Tasks(
            self._scheduler,
            submit,
            f"{type(accumulator).__name__} of {self._dataset.X.name}",
            f"blocks of {block} and a state of {format_nbytes(accumulator.state_nbytes)}",
            max(self._scheduler.patience, at_worst),
        )
        with closing(tasks.in_order(calls)) as results:
            for done in results:
                worker_tasks.merge_stamps(self._dataset, done)
                yield done

    def _chained(self, job: Job, accumulator: Any, segment: range, part: range | None) -> Any:  # noqa: ANN401
        """Return the partial result of a segment of Dask arrays, as a ``Delayed`` of Dask.

        Each block is a task, so that chunks stay on their workers. A task sends its partial result
        to the task of the next block: O(D) numbers; one part of a D² state, or to a GPU all of it.
        """
        from dask.delayed import delayed  # noqa: PLC0415  (an extra)

        reduce_segments = delayed(worker_tasks.reduce_segments, pure=False)
        done = None
        for number in segment:
            done = reduce_segments(
                job,
                accumulator,
                [range(number, number + 1)],
                part,
                done,
                self.blocks[number][0],
                {name: chunks[number] for name, chunks in self._chunks.items()},
                dask_key_name=self._scheduler.new_key(),
            )
        return done

    def _grouped(self, segments: list[range], state_nbytes: int) -> list[list[range]]:
        """Return groups of segments; one task reduces each group.

        A task costs Dask 1.6 ms (measured, two cores), whatever it does. So small segments are
        reduced together. A few tasks for each thread are left, because workers differ in speed.
        """
        together = min(
            len(segments) // (TASKS_A_THREAD * self._scheduler.n_threads()),
            _RETURNED_NBYTES // state_nbytes,
            _READ_NBYTES // self._nbytes(segments[0]),
        )
        if self._chunks or together < 1:
            together = 1
        return [segments[at : at + together] for at in range(0, len(segments), together)]

    def _n_rows(self, numbers: range) -> int:
        return self.blocks[numbers[-1]][1] - self.blocks[numbers[0]][0]

    def _nbytes(self, numbers: range) -> int:
        return self._n_rows(numbers) * self._dataset.row_nbytes

    def _send(self, accumulator: Accumulator[Any, Any], workers: list[str] | None) -> Any:  # noqa: ANN401
        """Return an accumulator as tasks take it: bytes, or a future of bytes."""
        pickled = pickle.dumps(accumulator)
        if len(pickled) <= _SHARED_NBYTES:
            return pickled
        # a task, not scattered data, which would be lost with a worker
        return self._scheduler.submit(bytes, pickled, workers=workers)
