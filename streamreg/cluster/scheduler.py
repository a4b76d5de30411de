"""A cluster's scheduler. Every question to it has a deadline."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from streamreg.errors import ClusterError, InputError
from streamreg.formatting import shown

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(eq=False)
class Scheduler:
    """The scheduler of a ``distributed.Client``, for one fit."""

    client: Any  # distributed publishes no types
    # seconds without progress after which the fit gives the cluster up
    patience: float = 300.0
    clock: Callable[[], float] = time.monotonic
    tick_seconds: float = 0.5  # how often a wait looks at the clock
    # Only the keys of this fit's tasks begin with it. Dask makes one group of all keys with the
    # same first word.
    prefix: str = field(default_factory=lambda: f"streamreg-{uuid.uuid4().hex}")
    # addresses of workers that hang: they are given no new tasks
    suspects: set[str] = field(default_factory=set)

    def submit(self, *call: Any, workers: list[str] | None = None) -> Any:  # noqa: ANN401
        """Submit a call, to any worker or to ``workers`` only, and return its future."""
        return self.client.submit(*call, pure=False, key=self.new_key(), workers=workers)

    def new_key(self) -> str:
        """Return the key of a task."""
        return f"{self.prefix}-{uuid.uuid4().hex}"

    def workers(self) -> dict[str, int]:
        """Return the threads of each connected worker, by address."""
        threads: dict[str, int] = self._ask("ncores")
        return threads

    def n_threads(self) -> int:
        """Return the threads of all connected workers, but at least 1."""
        return max(1, sum(self.workers().values()))

    def processing(self) -> dict[str, set[str]]:
        """Return the keys of the tasks that each connected worker runs, by address."""
        return {at: {*keys} for at, keys in self._ask("processing").items()}

    def holding(self, keys: set[str]) -> set[str]:
        """Return the addresses of the workers that hold a result."""
        return set().union(*self._ask("who_has", keys=[*keys]).values())

    def _ask(self, method: str, **given: object) -> Any:  # noqa: ANN401
        # a client that is "connecting" tries to connect again
        if self.client.status not in {"running", "connecting"}:
            raise given_up("an answer of its scheduler", "the client is closed")
        try:
            ask = getattr(self.client.scheduler, method)
            return self.client.sync(ask, callback_timeout=self.patience, **given)
        # distributed raises errors of many types when a connection is lost
        except Exception as error:
            why = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                why = f"none came for {self.patience:.0f} s"
            raise given_up("an answer of its scheduler", why) from error


def scheduler_of(client: Any) -> Scheduler:  # noqa: ANN401  (distributed publishes no types)
    """Return a client's scheduler, with Dask's setting ``streamreg.no-progress-timeout``.

    Raises
    ------
    InputError
        It is not a client, or asynchronous or closed; or the setting is not a duration.
    """
    import dask  # noqa: PLC0415  (an extra)
    from dask.utils import parse_timedelta  # noqa: PLC0415

    given = dask.config.get("streamreg.no-progress-timeout", "300 s")
    try:
        seconds = float(parse_timedelta(given))
    # dask raises KeyError of units that it does not know
    except (ValueError, TypeError, KeyError):
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"streamreg.no-progress-timeout={given!r} in Dask's configuration is not a duration; "
            'set "300 s", or "10 min"'
        )
    if type(client).__module__.partition(".")[0] != "distributed":
        raise InputError(
            f"client={shown(client)} is of type {type(client).__name__}; pass a "
            "dask.distributed.Client, or None"
        )
    if client.asynchronous:
        raise InputError("client is asynchronous; pass one made with asynchronous=False")
    if client.status != "running":
        raise InputError(f"client is {client.status}; connect it to a scheduler first")
    return Scheduler(client, seconds)


def given_up(waited_for: str, why: str) -> ClusterError:
    """Return the error that ends a fit."""
    return ClusterError(
        f"the fit stopped waiting for {waited_for}: {why.removesuffix('.')}. "
        "Repair the cluster and start the fit again, which resumes from its checkpoint, if it has "
        "one. A longer wait is set by streamreg.no-progress-timeout in Dask's configuration"
    )
