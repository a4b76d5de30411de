"""Ridge of fewer rows than columns by streamreg and by other libraries: time, memory, answer.

python benchmarks/wide.py [--quick]

Each fit runs in a new process, one at a time, and reads the same uncompressed Zarr store of float32
from the page cache. Memory is the peak that the process adds after its imports. The difference is
the largest of predictions for 100 rows, relative to the largest prediction, from scikit-learn in
float64. himalaya runs if it is installed: ``pip install himalaya``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from harness import case_of_this_process, in_new_process, keep, peak_nbytes, write_store

if TYPE_CHECKING:
    from collections.abc import Callable

    # of a path, N and l2; returns w (K, D) and b (K,)
    Fit = Callable[[str, int, float], tuple[np.ndarray, np.ndarray]]

_L2 = 1e-2
_SHOWN_ROWS = 100
_EXACT = "scikit-learn Ridge, float64"


def streamreg_dual() -> Fit:
    """XXᵀ, streamed."""
    from streamreg import LinearRegression

    def fit(path: str, _: int, l2: float) -> tuple[np.ndarray, np.ndarray]:
        model = LinearRegression(solver="dual", l2=l2, memory_limit="1 GiB").fit(path)
        return model.coef_, model.intercept_

    return fit


def sklearn_ridge(dtype: str) -> Fit:
    """Everything in memory."""
    from sklearn.linear_model import Ridge

    def fit(path: str, n: int, l2: float) -> tuple[np.ndarray, np.ndarray]:
        model = Ridge(l2 * n, copy_X=False).fit(*_loaded(path, dtype))
        return model.coef_, model.intercept_

    return fit


def himalaya_ridge(dtype: str) -> Fit:
    """Everything in memory."""
    from himalaya.kernel_ridge import KernelRidge

    def fit(path: str, n: int, l2: float) -> tuple[np.ndarray, np.ndarray]:
        model = KernelRidge(alpha=l2 * n, kernel="linear", fit_intercept=True)
        model.fit(*_loaded(path, dtype))
        return np.asarray(model.get_primal_coef()).T, np.asarray(model.intercept_)

    return fit


def _loaded(path: str, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Read X and y, with no second copy of X."""
    group = zarr.open_group(path, mode="r")
    stored = group["X"]
    X = np.empty(stored.shape, dtype)
    for start in range(0, len(X), 100):
        X[start : start + 100] = stored[start : start + 100]
    return X, group["y"][:].astype(dtype)


PEERS = {
    "streamreg dual": streamreg_dual,
    _EXACT: lambda: sklearn_ridge("f8"),
    "scikit-learn Ridge, float32": lambda: sklearn_ridge("f4"),
    "himalaya KernelRidge, float32": lambda: himalaya_ridge("f4"),
}


def run(case: dict[str, Any]) -> None:
    """Fit once, in this process, and print the figures."""
    warnings.simplefilter("ignore")
    fit, X = PEERS[case["peer"]](), zarr.open_array(f"{case['path']}/X", mode="r")
    peak_nbytes()
    before = peak_nbytes()
    began = time.perf_counter()
    w, b = fit(case["path"], X.shape[0], _L2)
    seconds = time.perf_counter() - began
    added = peak_nbytes() - before
    np.save(case["out"], X[:_SHOWN_ROWS].astype(float) @ w.T + b)
    print(json.dumps({"seconds": seconds, "added": added}))


def main() -> None:
    """Run all peers in turn, once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    quick = parser.parse_args().quick
    n_rows, n_features = (300, 1_000) if quick else (5_000, 100_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_store(folder / "data.zarr", n_rows, n_features, dtype="float32")
        _add_targets(path, n_targets=10)
        rows, predictions = [], {}
        for peer in PEERS:
            out = folder / f"{len(rows)}.npy"
            case = {"peer": peer, "path": str(path), "out": str(out)}
            found = in_new_process(Path(__file__), case)
            if "failure" in found:
                if peer.startswith("streamreg"):
                    sys.exit(f"{peer}: {found['failure']}")
                rows.append({"peer": peer, "did not run": found["failure"][:80]})
                continue
            predictions[peer] = np.load(out)
            added = found["added"] / 2**20
            rows.append({"peer": peer, "seconds": found["seconds"], "added MiB": added})
    exact = predictions[_EXACT]
    for row in rows:
        if row["peer"] in predictions:
            difference = np.max(np.abs(predictions[row["peer"]] - exact))
            row["difference"] = float(difference / np.max(np.abs(exact)))
    keep("wide", rows, quick=quick)


def _add_targets(path: Path, n_targets: int) -> None:
    """Replace y by several targets, the first of which it is."""
    group = zarr.open_group(path)
    X, y, rng = group["X"], group["y"][:], np.random.default_rng(1)
    weights = rng.standard_normal((X.shape[1], n_targets)) / np.sqrt(X.shape[1])
    targets = rng.standard_normal((len(y), n_targets))
    for start in range(0, len(y), 100):
        targets[start : start + 100] += X[start : start + 100] @ weights
    targets[:, 0] = y
    del group["y"]
    group.create_array("y", data=targets, chunks=targets.shape, compressors=None)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    given = case_of_this_process()
    main() if given is None else run(given)
