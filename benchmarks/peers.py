"""One least-squares fit by streamreg and by other libraries: time, peak memory, answer.

python benchmarks/peers.py [--quick]

Each fit runs in a new process, one at a time, and reads the same uncompressed Zarr store from the
page cache. Memory is the peak that the process adds after its imports.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from harness import (
    case_of_this_process,
    in_new_process,
    keep,
    label_logarithmic,
    peak_nbytes,
    picture,
    plain,
    ratio,
    turn_about,
    write_store,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Fit = Callable[[str], np.ndarray]

_MEMORY_LIMIT = "256 MiB"


def streamreg_closed_form() -> Fit:
    """XᵀX, streamed."""
    return _streamreg(solver="closed_form")


def streamreg_cg() -> Fit:
    """Conjugate gradients, streamed, to the nine digits of the closed form."""
    return _streamreg(solver="cg", tol=1e-11)


def _streamreg(**parameters: Any) -> Fit:  # noqa: ANN401
    from streamreg import LinearRegression

    return lambda path: LinearRegression(memory_limit=_MEMORY_LIMIT, **parameters).fit(path).coef_


def sklearn_linear_regression() -> Fit:
    """Everything in memory."""
    from sklearn.linear_model import LinearRegression

    def fit(path: str) -> np.ndarray:
        group = zarr.open_group(path, mode="r")
        return LinearRegression().fit(group["X"][:], group["y"][:]).coef_

    return fit


def sklearn_sgd() -> Fit:
    """Stochastic gradient descent, block by block, five times over the rows."""
    from sklearn.linear_model import SGDRegressor

    def fit(path: str) -> np.ndarray:
        group = zarr.open_group(path, mode="r")
        X, y = group["X"], group["y"][:]
        model = SGDRegressor(alpha=0.0, random_state=0)
        for _ in range(5):
            for start in range(0, len(y), X.chunks[0]):
                rows = slice(start, start + X.chunks[0])
                model.partial_fit(X[rows], y[rows])
        return model.coef_

    return fit


def sklearnex_incremental() -> Fit:
    """Intel's IncrementalLinearRegression, block by block."""
    from sklearnex.linear_model import IncrementalLinearRegression

    def fit(path: str) -> np.ndarray:
        group = zarr.open_group(path, mode="r")
        X, y = group["X"], group["y"][:]
        model = IncrementalLinearRegression()
        for start in range(0, len(y), X.chunks[0]):
            rows = slice(start, start + X.chunks[0])
            model.partial_fit(X[rows], y[rows])
        return model.coef_.ravel()

    return fit


def dask_normal_equations() -> Fit:
    """XᵀX and Xᵀy by dask.array, centred."""
    import dask
    import dask.array as da

    def fit(path: str) -> np.ndarray:
        X, y = da.from_zarr(f"{path}/X"), da.from_zarr(f"{path}/y")
        y = y.rechunk((X.chunks[0],))
        n = len(y)
        gram, cross, mean, y_mean = dask.compute(X.T @ X, X.T @ y, X.mean(axis=0), y.mean())
        centred = gram - n * np.outer(mean, mean)
        return np.linalg.solve(centred, cross - n * mean * y_mean)

    return fit


def dask_lstsq() -> Fit:
    """dask.array.linalg.lstsq, a tall-and-skinny QR; an intercept as a column of ones."""
    import dask.array as da

    def fit(path: str) -> np.ndarray:
        X, y = da.from_zarr(f"{path}/X"), da.from_zarr(f"{path}/y")
        ones = da.ones((X.shape[0], 1), chunks=(X.chunks[0], 1))
        X = da.concatenate([X, ones], axis=1).rechunk({1: -1})
        return da.linalg.lstsq(X, y.rechunk((X.chunks[0],)))[0].compute()[:-1]

    return fit


def dask_ml_lbfgs() -> Fit:
    """dask-ml's LinearRegression, set as close to least squares as it allows."""
    import dask.array as da
    from dask_ml.linear_model import LinearRegression

    def fit(path: str) -> np.ndarray:
        X, y = da.from_zarr(f"{path}/X"), da.from_zarr(f"{path}/y")
        model = LinearRegression(solver="lbfgs", C=1e12, max_iter=100, tol=1e-12)
        return model.fit(X, y.rechunk((X.chunks[0],))).coef_

    return fit


PEERS = {
    "streamreg closed_form": streamreg_closed_form,
    "streamreg cg": streamreg_cg,
    "scikit-learn LinearRegression": sklearn_linear_regression,
    "scikit-learn SGDRegressor, 5 passes": sklearn_sgd,
    "scikit-learn-intelex Incremental": sklearnex_incremental,
    "dask.array XᵀX": dask_normal_equations,
    "dask.array lstsq": dask_lstsq,
    "dask-ml lbfgs": dask_ml_lbfgs,
}


def run(case: dict[str, Any]) -> None:
    """Fit once, in this process, and print the figures."""
    warnings.simplefilter("ignore")
    fit = PEERS[case["peer"]]()
    peak_nbytes()
    before = peak_nbytes()
    began = time.perf_counter()
    weights = fit(case["path"])
    seconds = time.perf_counter() - began
    added = peak_nbytes() - before
    truth = np.load(case["truth"])
    error = float(np.max(np.abs(weights - truth)) / np.max(np.abs(truth)))
    print(json.dumps({"seconds": seconds, "added": added, "error": error}))


def one_epoch(path: Path, repeats: int) -> dict[str, Any]:
    """Return one row: an epoch (loss, gradient, XᵀX·direction) beside dask.array's gradient."""
    import dask.array as da

    from streamreg.accumulators.gradient import Gradient
    from streamreg.engines.threads import ThreadsEngine
    from streamreg.machine import usable_cpus
    from streamreg.sources.open import open_dataset

    dataset = open_dataset(path)
    d = dataset.n_features
    weights = np.random.default_rng(1).standard_normal((d, 2))
    X, y = da.from_zarr(f"{path}/X"), da.from_zarr(f"{path}/y")
    expression = X.T @ (X @ weights[:, 0] - y.rechunk((X.chunks[0],)))
    with ThreadsEngine(dataset, usable_cpus()) as engine:
        works = {
            "streamreg": lambda: engine.reduce(Gradient(weights, np.zeros(2), 1)),
            "dask.array": expression.compute,
        }
        seconds = turn_about(works, repeats)
    return {
        "streamreg epoch, s": statistics.median(seconds["streamreg"]),
        "dask.array X.T @ (X @ w - y), s": statistics.median(seconds["dask.array"]),
        "times as fast": ratio(seconds, "dask.array", "streamreg"),
    }


def exact(path: Path) -> np.ndarray:
    """Return NumPy's answer to the centred normal equations; columns are nearly orthogonal."""
    group = zarr.open_group(path, mode="r")
    X, y = group["X"][:], group["y"][:]
    X -= X.mean(axis=0)
    weights = np.linalg.solve(X.T @ X, X.T @ (y - y.mean()))
    # a second solve corrects rounding errors of the first
    residual = y - y.mean() - X @ weights
    return weights + np.linalg.solve(X.T @ X, X.T @ residual)


def main() -> None:
    """Run all peers in turn, several rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    quick = parser.parse_args().quick
    n_rows, n_features, rounds = (4_000, 16, 1) if quick else (524_288, 256, 3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_store(folder / "data.zarr", n_rows, n_features)
        np.save(folder / "truth.npy", exact(path))
        found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
        for _ in range(rounds):
            for peer in PEERS:
                case = {"peer": peer, "path": str(path), "truth": str(folder / "truth.npy")}
                # Dask runs tasks on all threads: two BLAS threads a task are up to twice as slow
                alone = {"OPENBLAS_NUM_THREADS": "1"} if peer.startswith("dask") else {}
                found[peer].append(in_new_process(Path(__file__), case, **alone))
        epoch = one_epoch(path, 1 if quick else 7)
    rows = [_row(peer, runs) for peer, runs in found.items()]
    ours = rows[0]["seconds"]
    for row in rows:
        row["of closed_form"] = row["seconds"] / ours if "seconds" in row else ""
    keep("peers", rows, quick=quick)
    keep("one_epoch", [epoch], quick=quick)
    if not quick:
        _draw([row for row in rows if "seconds" in row])


def _row(peer: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    failures = [run["failure"] for run in runs if "failure" in run]
    if failures and peer.startswith("streamreg"):
        sys.exit(f"{peer}: {failures[0]}")
    if failures:
        return {"peer": peer, "did not run": failures[0][:80]}
    return {
        "peer": peer,
        "seconds": statistics.median(run["seconds"] for run in runs),
        "added MiB": max(run["added"] for run in runs) / 2**20,
        "error": max(run["error"] for run in runs),
    }


def _draw(rows: list[dict[str, Any]]) -> None:
    with picture("peers", columns=2) as (time_axes, memory_axes):
        names = [row["peer"] for row in rows]
        colours = ["tab:blue" if name.startswith("streamreg") else "tab:gray" for name in names]
        for axes, key, label in (
            (time_axes, "seconds", "seconds"),
            (memory_axes, "added MiB", "memory added, MiB"),
        ):
            bars = axes.barh(names, [row[key] for row in rows], color=colours)
            axes.bar_label(bars, fmt=plain, padding=2, fontsize=8)
            axes.set(xscale="log", xlabel=label)
            axes.invert_yaxis()
            axes.margins(x=0.25)
            label_logarithmic(axes.xaxis)
        memory_axes.set_yticks([])


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    given = case_of_this_process()
    main() if given is None else run(given)
