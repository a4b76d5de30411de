"""Fits that are killed and resumed (row R1 of README.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

KILLED_FITS = Path(__file__).parents[1] / "support" / "killed_fits.py"


def store(path, n_rows, n_features):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, n_features)).astype("f4") * rng.uniform(0.1, 3, n_features)
    X = X.astype("f4")
    group = zarr.open_group(path, mode="w")
    rows = max(1, (2 << 20) // X[0].nbytes)
    group.create_array("X", data=X, chunks=(rows, n_features), compressors=None)
    y = X @ rng.normal(size=n_features) + rng.normal(size=n_rows)
    group.create_array("y", data=y, chunks=(rows,), compressors=None)
    return path


@pytest.mark.parametrize(
    ("solver", "n_rows", "n_features", "n_fits", "blocks_between"),
    [
        # saved after each segment, of one block; threads have a few in progress
        ("closed_form", 1_000_000, 32, 5, 4),
        ("cg", 500_000, 32, 5, 8),
        ("gd", 500_000, 32, 5, 8),
        # the state is so large that all threads share one, which is saved after each block
        ("closed_form", 2500, 2100, 3, 1),
    ],
)
def test_r1_fits_killed_at_random_moments_come_to_the_same_bits(
    solver, n_rows, n_features, n_fits, blocks_between, tmp_path
):
    path = store(tmp_path / "data.zarr", n_rows, n_features)
    ran = subprocess.run(
        [sys.executable, KILLED_FITS, path, solver, str(n_fits), "0"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(ran.stdout)
    assert found["same"] == [True] * n_fits
    assert found["killed between blocks"] + found["killed while writing"] >= n_fits
    assert min(found["killed between blocks"], found["killed while writing"]) > 0
    assert found["repeated"] <= blocks_between < found["n_blocks"]
