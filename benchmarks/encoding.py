"""An encoding model: ridge of very many targets, each with its best of 20 penalties.

python benchmarks/encoding.py [--quick | --full]

23,000 rows of 2,048 features of float32, 20,000 targets. In one process and run: the products of
BLAS and the eigenvectors that any such fit needs, then the fit, from a Zarr store whose targets are
chunked by rows and columns, in the page cache. 200 of the targets are compared with scikit-learn's
Ridge at the chosen penalties. With ``--full`` 8,192 features and 94,251 targets: the plan, then
the fit alone, whose weights are written to Zarr. It takes 17 GB of disk and about an hour.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import zarr
from harness import keep, peak_nbytes
from scipy.linalg import blas, eigh
from sklearn.linear_model import Ridge

from streamreg import LinearRegressionCV

if TYPE_CHECKING:
    from collections.abc import Callable

_L2S = np.geomspace(1e-4, 1e2, 20)
_LATENT = 64  # dimensions on which targets depend
_ROWS = 1_000  # of a chunk
_COMPARED = 200  # targets


class Sizes(NamedTuple):
    """The sizes of a case."""

    n_rows: int
    n_features: int
    n_targets: int
    memory_limit: str


_USUAL = Sizes(23_000, 2_048, 20_000, "1.5 GiB")
_FULL = Sizes(23_000, 8_192, 94_251, "12 GiB")
_QUICK = Sizes(600, 96, 12_000, "512 MiB")


def write_data(path: Path, sizes: Sizes) -> None:
    """Write features that share latent dimensions, and targets that are noisy sums of those."""
    n, d, k, _ = sizes
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((_LATENT, d), dtype="f4") / np.sqrt(_LATENT, dtype="f4")
    weights = rng.standard_normal((_LATENT, k), dtype="f4") / np.sqrt(_LATENT, dtype="f4")
    # targets are predicted well, or hardly
    weights *= rng.uniform(0, 1, k).astype("f4")
    group = zarr.open_group(path, mode="w")
    rows = min(_ROWS, n)
    X = group.create_array(
        "X", shape=(n, d), chunks=(rows, d), dtype="f4", compressors=None, fill_value=0
    )
    y = group.create_array(
        "y", shape=(n, k), chunks=(rows, 4_000), dtype="f4", compressors=None, fill_value=0
    )
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        latent = rng.standard_normal((stop - start, _LATENT), dtype="f4")
        noise = rng.standard_normal((stop - start, d), dtype="f4")
        X[start:stop] = latent @ mixing + noise
        for first in range(0, k, 4_000):
            some = slice(first, min(first + 4_000, k))
            target = latent @ weights[:, some]
            target += rng.standard_normal(target.shape, dtype="f4")
            y[start:stop, some] = target


def seconds_of(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def least_seconds(sizes: Sizes) -> dict[str, float]:
    """Return the seconds of what no fit avoids, on blocks of float64 in memory."""
    n, d, k, _ = sizes
    rng = np.random.default_rng(1)
    rows = min(_ROWS, n)
    x = np.asfortranarray(rng.standard_normal((d, rows)))
    y = np.asfortranarray(rng.standard_normal((rows, k)))
    gram, cross = np.zeros((d, d), order="F"), np.zeros((d, k), order="F")
    n_blocks = n / rows

    def syrk() -> None:
        blas.dsyrk(1.0, x, beta=1.0, c=gram, lower=1, overwrite_c=1)

    def gemm() -> None:
        blas.dgemm(1.0, x, y, beta=1.0, c=cross, overwrite_c=1)

    def whole(work: Callable[[], None]) -> float:
        return sum(seconds_of(work) for _ in range(int(n_blocks))) * n_blocks / int(n_blocks)

    found = {"dsyrk": whole(syrk), "dgemm": whole(gemm)}
    square = gram + np.tril(gram, -1).T
    found["eigh"] = seconds_of(lambda: eigh(square, driver="evd"))
    found["rotations"] = 2 * seconds_of(lambda: blas.dgemm(1.0, square, cross))
    return found


def fit(path: Path, sizes: Sizes, out: Path | None = None) -> tuple[LinearRegressionCV, float, int]:
    """Return the model, seconds and bytes that the fit added."""
    model = LinearRegressionCV(
        l2=_L2S, l2_per_target=True, memory_limit=sizes.memory_limit, coef_out=out
    )
    peak_nbytes()
    before = peak_nbytes()
    seconds = seconds_of(lambda: model.fit(path))
    return model, seconds, peak_nbytes() - before


def difference(path: Path, model: LinearRegressionCV, sizes: Sizes) -> float:
    """Return the largest difference of weights from scikit-learn's, of some targets.

    Relative to the largest weight of the target.
    """
    n_targets = min(_COMPARED, sizes.n_targets)
    numbers = np.linspace(0, sizes.n_targets - 1, n_targets).astype(int)
    group = zarr.open_group(path, mode="r")
    X = group["X"][:].astype(float)
    y = group["y"].oindex[:, numbers].astype(float)
    exact = Ridge(model.l2_[numbers] * sizes.n_rows, solver="cholesky", copy_X=False).fit(X, y)
    off = np.abs(model.coef_[numbers] - exact.coef_).max(axis=1)
    return float(np.max(off / np.abs(exact.coef_).max(axis=1)))


def row_of(model: LinearRegressionCV, seconds: float, added: int, sizes: Sizes) -> dict[str, Any]:
    """Return the figures of a fit."""
    candidate = model.plan_.candidates[model.plan_.chosen]
    return {
        "rows": sizes.n_rows,
        "features": sizes.n_features,
        "targets": sizes.n_targets,
        "penalties": len(_L2S),
        "fit s": seconds,
        "reads of X": candidate.passes,
        "added MiB": added / 2**20,
        "planned MiB": model.planned_peak_ / 2**20,
    }


def main() -> None:
    """Write the data, measure, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    parser.add_argument("--full", action="store_true", help="the full size: about an hour")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sizes = _FULL if options.full else _QUICK if options.quick else _USUAL
    folder = Path(tempfile.mkdtemp(prefix="encoding-"))
    try:
        path = folder / "data.zarr"
        write_data(path, sizes)
        if options.full:
            model, seconds, added = fit(path, sizes, folder / "weights.zarr")
            print(model.plan_)
            keep("encoding_full", [row_of(model, seconds, added, sizes)], quick=False)
            return
        least = least_seconds(sizes)
        model, seconds, added = fit(path, sizes)
        row = row_of(model, seconds, added, sizes)
        row |= {f"{name} s": value for name, value in least.items()}
        row["times as long"] = seconds / sum(least.values())
        row["difference"] = difference(path, model, sizes)
        keep("encoding", [row], quick=options.quick)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
