"""Many targets: an encoding model, with the best of 20 penalties for each target.

The responses of 12,000 places of a brain to 400 stimuli, here generated: noisy sums of 16 latent
dimensions that 128 features share. XᵀY is the only large array, and the weights overwrite it. Then
the plan of a full study, 94,251 places and 8,192 features: from metadata, without data.

    python examples/07_encoding_model.py
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import numpy as np
import zarr

import streamreg

L2S = np.geomspace(1e-4, 1e2, 20)


def write(path: Path, n: int, d: int, k: int) -> Path:
    """Write features X (N, D) and responses y (N, K), in chunks of rows and of columns."""
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((n, 16), dtype="f4")
    X = latent @ rng.standard_normal((16, d), dtype="f4") + rng.standard_normal((n, d), dtype="f4")
    # some places respond to the stimuli, others hardly
    weights = rng.standard_normal((16, k), dtype="f4") * rng.uniform(0, 0.5, k).astype("f4")
    y = latent @ weights + rng.standard_normal((n, k), dtype="f4")
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=X, chunks=(100, d))
    group.create_array("y", data=y, chunks=(100, 3_000))
    return path


def describe(path: Path, n: int, d: int, k: int) -> Path:
    """Write the metadata of a data set alone."""
    group = zarr.open_group(path, mode="w")
    group.create_array("X", shape=(n, d), chunks=(1_000, d), dtype="f4")
    group.create_array("y", shape=(n, k), chunks=(1_000, 4_000), dtype="f4")
    return path


def main(folder: Path) -> None:
    """Fit the small study, and plan the full one."""
    train = write(folder / "train.zarr", 400, 128, 12_000)
    model = streamreg.LinearRegressionCV(
        l2=L2S, l2_per_target=True, memory_limit="512 MiB", coef_out=folder / "weights.zarr"
    )
    model.fit(train)
    r2 = streamreg.evaluate(model, train).r2
    print(
        f"{len(r2):,} targets, weights {model.coef_.shape} in {model.coef_.path.name}: "
        f"penalties {model.l2_.min():.3g} to {model.l2_.max():.3g}, "
        f"R² {np.quantile(r2, 0.1):.2f} to {np.quantile(r2, 0.9):.2f} (of 8 in 10 targets)"
    )
    print(
        f"memory added {model.peak_memory_ / 2**20:.0f} MiB, "
        f"planned {model.planned_peak_ / 2**20:.0f} MiB\n"
    )
    full = describe(folder / "full.zarr", 23_000, 8_192, 94_251)
    for limit in ("12 GiB", "4 GiB"):
        plan = streamreg.plan(
            full,
            cv="gcv",
            l2=L2S,
            l2_per_target=True,
            coef_out=folder / "full_weights.zarr",
            memory_limit=limit,
        )
        print(plan, "\n")


if __name__ == "__main__":
    # of the best penalties, some are at the edge of the grid: targets that nothing predicts
    warnings.simplefilter("ignore", streamreg.DataWarning)
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
