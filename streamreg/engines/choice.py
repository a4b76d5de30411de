"""Who runs the passes of a fit: threads of this process, a GPU, or a cluster."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from streamreg.cluster.engine import ClusterEngine
from streamreg.cluster.worker_tasks import kernels_named
from streamreg.cluster.workers import job_for, require_fit_workers, scheduler_of
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataWarning
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import DeviceEngine
from streamreg.planning.memory_model import loops_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.engines.base import Engine
    from streamreg.planning.terms import Candidate
    from streamreg.sources.dataset import Dataset


def loops_for(candidate: Candidate, client: object) -> str:
    """Return the name of the loops that run a fit, loaded into this process if they run here."""
    if candidate.device is not None:
        return "cuda"
    loops = loops_of(candidate.solver, candidate.bytes_per_pass)
    if client is None:
        try:
            kernels_named(loops)
        # whatever a Numba raises that does not suit NumPy, or LLVM
        except Exception as error:  # noqa: BLE001
            warnings.warn(
                f"Numba is installed but cannot be imported ({type(error).__name__}: {error}): "
                "NumPy's loops serve, which are slower. Mend or remove it, or set "
                "NUMBA_DISABLE_JIT=1",
                DataWarning,
                stacklevel=2,
            )
            return "numpy"
    return loops


def engine_for(
    dataset: Dataset,
    candidate: Candidate,
    loops: str,
    client: object,
    on_rows: Callable[[int], None],
) -> Engine:
    """Return the engine of a fit; a cluster's workers are asked whether they can."""
    if candidate.device is not None and client is None:
        return DeviceEngine(dataset, candidate.n_threads, on_rows, Gpu(), candidate.device)
    if client is None:
        kernels, cache_nbytes = kernels_named(loops), candidate.cache_nbytes
        return ThreadsEngine(dataset, candidate.n_threads, on_rows, kernels, cache_nbytes)
    job, scheduler = job_for(dataset, loops, candidate.device), scheduler_of(client)
    require_fit_workers(scheduler, job)
    return ClusterEngine(dataset, job, scheduler, on_rows)
