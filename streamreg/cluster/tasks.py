"""Pure tasks on the workers of a cluster, in order, with a deadline for everything."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from streamreg.errors import ClusterError, StreamregError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from streamreg.cluster.scheduler import Scheduler

# tasks that are under way for each thread of the cluster, so that none waits for work
_TASKS_A_THREAD, _LEAST_WINDOW = 3, 16
# a task that fails for no fault of the data is begun again so often
_MOST_ATTEMPTS = 10
# how often the wait for a task looks at the clock
_TICK_SECONDS = 0.5
# without a sign for so many times what the longest task took, a worker is suspected to hang
_SUSPECT_AFTER, _LEAST_SUSPICION_SECONDS = 4, 5.0
# how often in a patience the scheduler is asked what is in work
_ASKED_IN_PATIENCE = 5
# of no_progress_timeout, while it is not known how long tasks take
_FIRST_SUSPICION = 6


Submit = Callable[..., Any]


@dataclass(eq=False)
class _Task:
    """One call, and the attempts that were made to have it done."""

    arguments: tuple[Any, ...]
    began: float
    futures: list[Any] = field(default_factory=list)
    n_attempts: int = 0
    n_failures: int = 0
    is_done: bool = False
    result: Any = None


class Tasks:
    """Has a cluster call a function of pure values, and yields results in order.

    A call on a worker that dies is made again by the scheduler. One whose worker does not answer
    is made again on others, and whichever ends first counts: both give the same bits. (Chunks of a
    Dask array that such a worker holds, or computes, come again once Dask itself gives it up.)

    Parameters
    ----------
    scheduler
        Of the cluster.
    submit
        Has the cluster make a call, perhaps by some workers only; returns its future.
    what
        What is waited for, in messages.
    prefix
        What the keys of its tasks begin with, and no others.
    holds
        What a task holds in memory, for messages.
    patience
        Seconds without any sign of progress after which the cluster is given up.
    longest
        Seconds that such a task took at most so far; 0 if none was seen.
    suspects
        Addresses of workers that did not answer: added to, and given no more to do.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        submit: Submit,
        what: str,
        *,
        prefix: str,
        holds: str,
        patience: float,
        longest: float = 0.0,
        suspects: set[str] | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._patience, self._prefix, self._holds = patience, prefix, holds
        self._submit_call = submit
        self._what = what
        self._ended: SimpleQueue[tuple[_Task, Any]] = SimpleQueue()
        self._suspects: set[str] = set() if suspects is None else suspects
        self.longest = longest
        self._in_work: set[str] = set()
        self._last_sign = self._asked = self._manned = time.monotonic()

    def in_order(self, calls: Iterable[tuple[Any, ...]]) -> Generator[Any, None, None]:
        """Yield the result of each call.

        Raises
        ------
        ClusterError
            The workers, or the scheduler, are lost or do not answer.
        StreamregError
            As a call raised it.
        """
        window = max(_LEAST_WINDOW, _TASKS_A_THREAD * sum(self._scheduler.workers().values()))
        waiting: deque[_Task] = deque()
        try:
            for call in calls:
                if len(waiting) == window:
                    yield self._result(waiting)
                waiting.append(_Task(call, time.monotonic()))
                self._submit(waiting[-1])
            while waiting:
                yield self._result(waiting)
        finally:
            for task in waiting:
                _forget(task)

    def _result(self, waiting: deque[_Task]) -> Any:  # noqa: ANN401  (whatever is called returns)
        """Wait for the first task, and return its result."""
        first, suspected_at = waiting[0], self._suspicion
        self._seen()
        while not first.is_done:
            try:
                task, future = self._ended.get(timeout=_TICK_SECONDS)
            except Empty:
                idle = time.monotonic() - self._last_sign
                self._require_hope(idle)
                self._require_life()
                if idle > suspected_at:
                    self._suspect(self._scheduler.at_work(_keys(first)))
                    self._again_elsewhere(waiting)
                    suspected_at = idle + self._suspicion
                continue
            if future in task.futures and self._take(task, future):
                suspected_at = self._suspicion
                self._seen()
        return waiting.popleft().result

    def _require_hope(self, idle: float) -> None:
        if idle > self._patience:
            raise self._scheduler.given_up(self._what, f"nothing came for {idle:.0f} s")
        if not self._scheduler.is_there:
            raise self._scheduler.given_up(self._what, "the connection is lost")

    def _require_life(self) -> None:
        """Ask the scheduler now and then what workers do: what is waited for may take long.

        If something is done that was in work before, that is a sign of progress.
        """
        patience = self._scheduler.patience
        if time.monotonic() - self._asked < patience / _ASKED_IN_PATIENCE:
            return
        in_work = self._scheduler.in_work(patience / 2)
        if in_work:
            self._manned = time.monotonic()
        elif time.monotonic() - self._manned > patience:
            raise self._scheduler.given_up(self._what, f"no worker was there for {patience:.0f} s")
        # others may share the cluster: that theirs end is no sign
        keys = {key for each in in_work.values() for key in each if self._is_mine(key)}
        if self._in_work - keys:
            self._seen()
        self._in_work, self._asked = keys, time.monotonic()

    def _is_mine(self, key: object) -> bool:
        return isinstance(key, str) and key.startswith(self._prefix)

    def _seen(self) -> None:
        """Take note of a sign of progress."""
        self._last_sign = self._asked = self._manned = time.monotonic()

    @property
    def _suspicion(self) -> float:
        """Seconds without a sign after which a worker is suspected not to answer any more."""
        if not self.longest:
            return self._patience / _FIRST_SUSPICION
        likely = max(_LEAST_SUSPICION_SECONDS, _SUSPECT_AFTER * self.longest)
        return min(likely, self._patience / 2)

    def _take(self, task: _Task, future: Any) -> bool:  # noqa: ANN401
        """Take the result of an attempt that ended; if there is none, try again."""
        from distributed import KilledWorker  # noqa: PLC0415  (an extra)

        try:
            task.result = future.result(timeout=max(_LEAST_SUSPICION_SECONDS, self._patience / 10))
        except StreamregError:
            raise
        except Exception as error:
            self._require_hope(0)
            if isinstance(error, TimeoutError):
                # it is done, but whoever has it does not hand it out
                self._suspect(self._scheduler.holding(future.key))
            if future.status == "error" and not isinstance(error, KilledWorker):
                raise self._failed(error) from error
            # a worker died or cannot be reached, whatever distributed calls that
            task.futures.remove(future)
            # else Dask would not run a chain of the same keys again
            future.release()
            task.n_failures += 1
            if task.n_failures >= _MOST_ATTEMPTS:
                raise self._scheduler.given_up(
                    self._what,
                    f"a task failed {task.n_failures} times, last by {type(error).__name__}: "
                    f"{error}. If workers die for want of memory, give them more, or fewer "
                    f"threads: a task holds {self._holds}",
                ) from error
            self._submit(task)
            return False
        if task.n_attempts == 1:
            # else much of it was waiting for a worker that is lost
            self.longest = max(self.longest, time.monotonic() - task.began)
        task.is_done = True
        _forget(task)
        return True

    def _submit(self, task: _Task) -> None:
        where = {}
        if self._suspects:
            others = [at for at in self._scheduler.workers() if at not in self._suspects]
            where = {"workers": others} if others else {}
        task.n_attempts += 1
        future = self._submit_call(*task.arguments, **where)
        task.futures.append(future)
        future.add_done_callback(lambda done: self._ended.put((task, done)))

    def _suspect(self, workers: set[str]) -> None:
        self._suspects |= workers
        if self._suspects >= {*self._scheduler.workers()}:
            # nobody is left to prefer
            self._suspects.clear()

    def _again_elsewhere(self, waiting: Iterable[_Task]) -> None:
        """Make calls again, by others: the one waited for, and those that suspects are at work on.

        Nobody need be at work on the first: those who were to be may have gone.
        """
        for number, task in enumerate(waiting):
            if number == 0 or (
                not task.is_done and self._scheduler.at_work(_keys(task)) & self._suspects
            ):
                self._submit(task)

    def _failed(self, error: Exception) -> StreamregError:
        if isinstance(error, MemoryError):
            cure = "give the workers more memory, or fewer threads"
        else:
            cure = "if rows come from a Dask array, see that it can be computed"
        return ClusterError(
            f"{self._what} failed on a worker: {type(error).__name__}: {error}; {cure}"
        )


def _keys(task: _Task) -> set[str]:
    return {future.key for future in task.futures}


def _forget(task: _Task) -> None:
    for future in task.futures:
        future.release()
    task.futures.clear()
