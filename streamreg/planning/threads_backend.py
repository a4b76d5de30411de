"""The backend of one process: its threads run the passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamreg.engines.partition import HOST
from streamreg.engines.threads import ThreadsEngine, ThreadsReducer
from streamreg.errors import Message, Remedy
from streamreg.planning.backend import Backend
from streamreg.planning.memory_model import HOST_RATES, threads_needs

if TYPE_CHECKING:
    from streamreg.engines.base import Engine, SegmentReducer
    from streamreg.planning.backend import OnRows, Request
    from streamreg.planning.terms import Candidate, Needs
    from streamreg.sources.dataset import Dataset


@dataclass
class ThreadsBackend(Backend):
    """Threads of this process, or of a cluster's workers."""

    memory_limit: int
    n_threads: int
    policy = HOST
    rates = HOST_RATES

    def require_readable(self, dataset: Dataset) -> None:
        dataset.require_on_host(
            Message("pass ", Remedy("device", "cuda"), " to compute on the GPU, or ")
        )

    def needs(self, request: Request, n_threads: int) -> Needs:
        return threads_needs(request, n_threads)

    def open(self, dataset: Dataset, candidate: Candidate, on_rows: OnRows) -> Engine:
        return ThreadsEngine(
            dataset,
            candidate.n_threads,
            on_rows,
            kernels=candidate.kernels,
            cache_nbytes=candidate.cache_nbytes,
            policy=self.policy,
        )

    def segment_reducer(self, candidate: Candidate) -> SegmentReducer:
        return ThreadsReducer(candidate.kernels, self.policy, candidate.uses_blas)
