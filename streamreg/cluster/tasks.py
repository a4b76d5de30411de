"""Tasks on the workers of a cluster: results in order, in a bounded window, with a deadline."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from streamreg.cluster.scheduler import given_up
from streamreg.errors import ClusterError, StreamregError
from streamreg.formatting import count

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from streamreg.cluster.scheduler import Scheduler

# tasks in flight for each thread of the cluster, so that no thread waits for work
TASKS_A_THREAD = 3
# the least number of tasks in flight
_LEAST_WINDOW = 16
# how many times within its patience the scheduler is asked for the tasks that run
_LOOKS = 60
# a worker is suspected to hang if no task ends for this share of the patience
_SUSPICION = 1 / 20


@dataclass(eq=False)
class _Task:
    """One call, and the futures of all attempts to make it."""

    call: tuple[Any, ...]
    futures: list[Any] = field(default_factory=list)
    is_done: bool = False
    result: Any = None

    def keys(self) -> set[str]:
        return {future.key for future in self.futures}

    def release(self) -> None:
        for future in self.futures:
            future.release()
        self.futures.clear()


class Tasks:
    """Runs calls on a cluster and yields their results in order.

    Dask itself repeats the tasks of a worker that dies, but waits 300 s for one that hangs. So if
    no task ends for a while, the tasks of a worker that hangs are submitted to other workers too.
    The first result counts, because all attempts give the same bits. (Chunks of a Dask array on a
    worker that hangs are computed again only when Dask removes that worker.)
    """

    def __init__(
        self,
        scheduler: Scheduler,
        submit: Callable[..., Any],  # returns a call's future; ``workers`` limits where it runs
        what: str,  # what the client waits for, in messages
        holds: str,  # what a task holds in memory, in messages
        patience: float | None = None,  # ``None`` means that of the scheduler
    ) -> None:
        self._scheduler, self._clock = scheduler, scheduler.clock
        self._submit_call = submit
        self._what, self._holds = what, holds
        self._patience = scheduler.patience if patience is None else patience
        self._suspects = scheduler.suspects
        self._ended: SimpleQueue[tuple[_Task, Any]] = SimpleQueue()
        self._running: set[str] = set()
        self._looked = self._clock()
        self._note_progress()

    def in_order(self, calls: Iterable[tuple[Any, ...]]) -> Generator[Any, None, None]:
        """Yield the result of each call.

        Raises
        ------
        ClusterError
            The workers or the scheduler are lost or do not answer.
        StreamregError
            A call raised it.
        """
        window = max(_LEAST_WINDOW, TASKS_A_THREAD * self._scheduler.n_threads())
        waiting: deque[_Task] = deque()
        try:
            for call in calls:
                if len(waiting) == window:
                    yield self._first_result(waiting)
                waiting.append(_Task(call))
                self._submit(waiting[-1])
            while waiting:
                yield self._first_result(waiting)
        finally:
            for task in waiting:
                task.release()

    def _first_result(self, waiting: deque[_Task]) -> Any:  # noqa: ANN401  (as the call returns)
        # the time that the caller spent between results does not count as time without progress
        self._note_progress()
        while not waiting[0].is_done:
            with suppress(Empty):
                self._take(*self._ended.get(timeout=self._scheduler.tick_seconds))
            self._look(waiting)
        return waiting.popleft().result

    def _note_progress(self) -> None:
        self._last_progress = self._clock()
        self._suspicion = _SUSPICION * self._patience

    def _look(self, waiting: deque[_Task]) -> None:
        """Ask the scheduler, from time to time, which tasks run.

        A task that ran at the last look but not now counts as progress, because a result may need
        a chain of tasks. Tasks of other users of the cluster do not count.
        """
        if self._clock() - self._looked < self._scheduler.patience / _LOOKS:
            return
        processing = self._scheduler.processing()
        keys = set().union(*processing.values())
        running = {key for key in keys if str(key).startswith(self._scheduler.prefix)}
        if self._running - running:
            self._note_progress()
        self._running, self._looked = running, self._clock()
        idle = self._looked - self._last_progress
        # a task may take longer than the scheduler's patience, but only while a worker is connected
        if idle > (self._patience if processing else self._scheduler.patience):
            connected = count(len(processing), "worker")
            why = f"no task ended for {idle:.0f} s, with {connected} connected"
            raise given_up(self._what, why)
        if idle > self._suspicion:
            self._submit_elsewhere(waiting, processing)
            self._suspicion = 2 * idle

    def _submit_elsewhere(self, waiting: deque[_Task], processing: dict[str, set[str]]) -> None:
        """Suspect the first task's workers; submit that task and all suspects' tasks elsewhere."""
        first, keys = waiting[0], waiting[0].keys()
        self._suspects |= {at for at, theirs in processing.items() if keys & theirs}
        self._suspects |= self._scheduler.holding(keys)
        if self._suspects >= processing.keys():
            # all workers are suspected, so none is better than another
            self._suspects.clear()
        stuck = set().union(*(processing.get(at, ()) for at in self._suspects))
        for task in waiting:
            # the first task may be on no worker at all
            if task is first or (not task.is_done and task.keys() & stuck):
                self._submit(task)

    def _submit(self, task: _Task) -> None:
        others = set()
        if self._suspects:
            others = self._scheduler.workers().keys() - self._suspects
        future = self._submit_call(*task.call, workers=sorted(others) or None)
        task.futures.append(future)
        future.add_done_callback(lambda ended: self._ended.put((task, ended)))

    def _take(self, task: _Task, future: Any) -> None:  # noqa: ANN401  (distributed has no types)
        """Fetch the result of an attempt that ended."""
        if future not in task.futures:
            return
        try:
            task.result = future.result(timeout=self._patience / 10)
        except StreamregError:
            raise
        except Exception as error:
            if future.status == "error":
                raise self._failed(error) from error
            # the worker that holds the result, or the connection, does not answer
            if isinstance(error, TimeoutError):
                self._suspects |= self._scheduler.holding({future.key})
            task.futures.remove(future)
            # Dask computes tasks with these keys again only after the future is released
            future.release()
            self._submit(task)
            return
        if self._suspects:
            # a worker that gives a result does not hang
            self._suspects -= self._scheduler.holding({future.key})
        task.is_done = True
        task.release()
        self._note_progress()

    def _failed(self, error: Exception) -> ClusterError:
        from distributed import KilledWorker  # noqa: PLC0415  (an extra)

        cure = "if rows come from a Dask array, check that it can be computed"
        if isinstance(error, KilledWorker | MemoryError):
            cure = f"give the workers more memory, or fewer threads: a task holds {self._holds}"
        return ClusterError(
            f"{self._what} failed on a worker: {type(error).__name__}: {error}; {cure}"
        )
