"""Dask clusters on loopback."""

from __future__ import annotations

from contextlib import contextmanager

import pytest


@contextmanager
def loopback_cluster(n_workers=3, **options):
    """Yield the client of a cluster whose workers have one thread and 1 GiB each."""
    distributed = pytest.importorskip("distributed")
    options = {"threads_per_worker": 1, "memory_limit": "1 GiB", "host": "127.0.0.1", **options}
    with (
        distributed.LocalCluster(
            n_workers=n_workers, dashboard_address="127.0.0.1:0", **options
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client
