"""The choice of a backend: threads, a GPU or a cluster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from streamreg.machine import memory_limit_or_default, usable_cpus
from streamreg.planning.threads_backend import ThreadsBackend

if TYPE_CHECKING:
    from streamreg.config.fit_config import FitConfig
    from streamreg.planning.backend import Backend


def backend_of(config: FitConfig) -> Backend:
    """Return where the passes of a fit run; a GPU's or a cluster's code is imported only here."""
    if config.client is None:
        limit = memory_limit_or_default(config.memory_limit)
        return _backend_of_process(config, limit, config.n_threads or usable_cpus())
    from streamreg.cluster.backend import ClusterBackend  # noqa: PLC0415

    return ClusterBackend(config, partial(_backend_of_process, config))


def _backend_of_process(config: FitConfig, memory_limit: int, n_threads: int) -> Backend:
    """Return the backend of one process: this one, or one of a cluster's workers."""
    threads = ThreadsBackend(memory_limit, n_threads)
    if config.device == "cpu":
        return threads
    from streamreg.gpu.backend import GpuBackend  # noqa: PLC0415

    is_local = config.client is None
    return GpuBackend(threads, config.device_memory_limit, is_local=is_local)
