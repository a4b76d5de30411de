"""100,000 features: the closed form is refused, cg and gd fit in 256 MiB.

XᵀX would be 100,000² numbers of 8 bytes, 74.5 GiB. Gradients are vectors of 0.8 MB:
cg and gd add some tens of MiB.

    python examples/02_hundred_thousand_features.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import zarr

import streamreg

N, D, LIMIT = 500, 100_000, "256 MiB"


def write(folder: Path) -> tuple[Path, Path]:
    """Write X (N, D), float32, and y, which depends on a hundred features."""
    rng = np.random.default_rng(0)
    weights = np.zeros(D)
    weights[:: D // 100] = rng.standard_normal(100)
    X = zarr.create_array(
        folder / "X.zarr", shape=(N, D), chunks=(20, D), dtype="float32", compressors=None
    )
    y = np.empty(N)
    for start in range(0, N, 20):
        block = rng.standard_normal((20, D), dtype=np.float32)
        X[start : start + 20] = block
        y[start : start + 20] = block @ weights + rng.standard_normal(20)
    zarr.create_array(folder / "y.zarr", data=y)
    return folder / "X.zarr", folder / "y.zarr"


def main(folder: Path) -> None:
    """Write the data, plan, be refused, and fit."""
    X, y = write(folder)
    print(streamreg.plan(X, y, memory_limit=LIMIT), "\n")
    try:
        streamreg.LinearRegression(solver="closed_form", memory_limit=LIMIT).fit(X, y)
    except streamreg.MemoryLimitError as error:
        print(f"MemoryLimitError: {error}\n")
    for solver in ("cg", "gd"):
        # more features than rows: l2 makes the answer unique
        model = streamreg.LinearRegression(solver=solver, l2=10.0, memory_limit=LIMIT, tol=1e-6)
        model.fit(X, y)
        print(
            f"{solver}: {model.n_iter_} epochs, R² {model.score(X, y):.4f}, "
            f"memory added {model.peak_memory_ / 2**20:.0f} MiB of {LIMIT}. {model.status_}"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
