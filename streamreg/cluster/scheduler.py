"""A cluster's scheduler, asked for nothing without a deadline."""

from __future__ import annotations

from typing import Any

from streamreg.errors import ClusterError
from streamreg.formatting import count

# in which a scheduler that is there answers, where an error is to tell of its workers
_ANSWER_SECONDS = 5.0


class Scheduler:
    """The scheduler of a client.

    Parameters
    ----------
    client
        A ``distributed.Client``.
    patience
        Seconds without any sign of progress after which a cluster is given up.
    """

    def __init__(self, client: Any, patience: float) -> None:  # noqa: ANN401  (it has no types)
        self.client = client
        self.patience = patience

    @property
    def is_there(self) -> bool:
        """Whether the client has a connection, or tries to have one again."""
        return self.client.status in {"running", "connecting"}

    def workers(self, seconds: float | None = None) -> dict[str, int]:
        """Return the addresses of the workers that are there, and their threads."""
        threads: dict[str, int] = self._ask("ncores", seconds)
        return threads

    def at_work(self, keys: set[str]) -> set[str]:
        """Return the workers that are said to be at work on a task."""
        return {at for at, theirs in self.in_work().items() if keys & theirs}

    def in_work(self, seconds: float | None = None) -> dict[str, set[str]]:
        """Return the workers that are there, and the tasks that they are said to be at work on."""
        return {at: {*keys} for at, keys in self._ask("processing", seconds).items()}

    def holding(self, key: str) -> set[str]:
        """Return the workers that are said to hold a result."""
        return {at for holders in self._ask("who_has", keys=[key]).values() for at in holders}

    def given_up(self, waited_for: str, why: str) -> ClusterError:
        """Return the error that ends a fit."""
        try:
            there = f"with {count(len(self.workers(_ANSWER_SECONDS)), 'worker')} there"
        except ClusterError:
            there = "and the scheduler does not answer"
        return _given_up(waited_for, f"{why}, {there}")

    def _ask(self, method: str, seconds: float | None = None, **given: Any) -> Any:  # noqa: ANN401
        seconds = self.patience if seconds is None else min(seconds, self.patience)
        if not self.is_there:
            raise _given_up("an answer of its scheduler", "the client is closed")
        try:
            return self.client.sync(
                getattr(self.client.scheduler, method), callback_timeout=seconds, **given
            )
        # whatever a lost connection makes distributed raise
        except Exception as error:
            why = str(error) or type(error).__name__
            if isinstance(error, TimeoutError):
                why = f"none came for {seconds:.0f} s"
            raise _given_up("an answer of its scheduler", why) from error


def _given_up(waited_for: str, why: str) -> ClusterError:
    return ClusterError(
        f"the cluster was given up while {waited_for} was waited for: {why}. Mend it and start the "
        "fit again; what its checkpoint saved is kept. A longer wait is set by "
        "streamreg.no-progress-timeout in Dask's configuration"
    )
