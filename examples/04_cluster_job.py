"""A fit on a Dask cluster that loses a worker, is interrupted, and is resumed on one machine.

Starts a scheduler and two workers on this machine, on its loopback address. Needs the extra
``[cluster]``. README's section on clusters shows how to start them on several machines.

    python examples/04_cluster_job.py
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import zarr
from dask.distributed import Client, LocalCluster

import streamreg

if TYPE_CHECKING:
    from streamreg.solvers.base import EpochRecord

N, D = 200_000, 64


def write(path: Path) -> Path:
    """Write X (N, D) and y, which workers open by their path."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D)) * np.geomspace(0.1, 10, D)
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=X, chunks=(8_000, D))
    group.create_array("y", data=X.sum(axis=1) + rng.standard_normal(N), chunks=(50_000,))
    return path


class Accidents:
    """Kills a worker after the second epoch, and interrupts the fit after the fourth."""

    def __init__(self, client: Client) -> None:
        self._workers = list(client.run(os.getpid).values())

    def __call__(self, record: EpochRecord) -> None:
        """Print the record of an epoch, then kill or interrupt."""
        print(f"epoch {record.epoch}: loss {record.loss:.4f}")
        if record.epoch == 2:  # noqa: PLR2004
            print("a worker is killed")
            os.kill(self._workers[0], signal.SIGKILL)
        if record.epoch == 4:  # noqa: PLR2004
            raise KeyboardInterrupt


def main(folder: Path) -> None:
    """Fit on the cluster, resume on this machine, and compare with an undisturbed fit."""
    data, checkpoint = write(folder / "data.zarr"), folder / "fit.checkpoint"
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        model = streamreg.LinearRegression(
            client=client,
            checkpoint=checkpoint,
            progress=Accidents(client),
            solver="cg",
            tol=1e-12,
        )
        try:
            model.fit(data)
        except KeyboardInterrupt as interrupt:
            print(f"interrupted: {interrupt.__notes__[0]}")
    # a checkpoint does not depend on where passes run
    model = streamreg.LinearRegression(solver="cg", tol=1e-12, checkpoint=checkpoint).fit(data)
    undisturbed = streamreg.LinearRegression(solver="cg", tol=1e-12).fit(data)
    same = model.coef_.tobytes() == undisturbed.coef_.tobytes()
    print(f"{model.n_iter_} epochs in all; bitwise identical to the undisturbed fit: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
