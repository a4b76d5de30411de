"""Sparse rows: passes beside SciPy's products, reads and decoding; ridge of text beside others.

python benchmarks/sparse.py [--quick] [--part loops | ridge | all]

Rows are made like hashed text: words by Zipf's law, 20 a row, counts log(1 + n) of norm 1. A pass
multiplies with a residual and a direction. Peers of the ridge run one at a time in new processes,
with looser and tighter tolerances; shown is the fastest fit whose objective is within 1e-6 of the
least, relative to it. Memory is the peak that the process adds after its imports and, where a
library takes arrays, after they are loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import zarr
from harness import (
    CODECS,
    case_of_this_process,
    in_new_process,
    keep,
    peak_nbytes,
    ratio,
    turn_about,
)
from throughput import decode_only

from streamreg.accumulators.sparse_gradient import SparseGradient
from streamreg.accumulators.sparse_moments import SparseMoments
from streamreg.engines.threads import ThreadsEngine
from streamreg.machine import usable_cpus
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    # of a path, λ of the sum, and a tolerance; returns w
    Stream = Callable[[str, float, float], np.ndarray]
    # the same of a matrix and y
    Fit = Callable[[scipy.sparse.csr_array, np.ndarray, float, float], np.ndarray]

_CHUNK_VALUES = 1 << 17
_SMALL = 512
# of the sum of squares
_PENALTY = 10.0
_WITHIN = 1e-6


def text(n_rows: int, n_features: int, seed: int = 0) -> scipy.sparse.csr_array:
    """Return rows of about 20 words."""
    rng = np.random.default_rng(seed)
    lengths = rng.poisson(23, n_rows).clip(1)
    n_words = 4 * n_features
    ranks = np.exp(np.log(n_words) * rng.random(lengths.sum())).astype(np.int64) - 1
    columns = rng.integers(0, n_features, n_words).astype(np.int32)[ranks]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    X = scipy.sparse.csr_array((np.ones(len(columns)), columns, bounds), shape=(n_rows, n_features))
    X.sum_duplicates()
    X.data = np.log1p(X.data)
    norms = np.sqrt(np.add.reduceat(X.data**2, X.indptr[:-1]))
    X.data /= np.repeat(norms, np.diff(X.indptr))
    return with_indices(X, X.indices.astype(np.int32))


def with_indices(X: scipy.sparse.csr_array, indices: np.ndarray) -> scipy.sparse.csr_array:
    """Return a matrix of the same values with other columns, which SciPy does not convert."""
    made = scipy.sparse.csr_array(X.shape)
    made.data, made.indices, made.indptr = X.data, indices, X.indptr
    return made


def write_csr(folder: Path, X: scipy.sparse.csr_array, y: np.ndarray, codec: str) -> Path:
    """Write a data set whose X is a group as AnnData writes it."""
    group = zarr.create_group(folder)
    group.create_array("y", data=y, compressors=None)
    rows = group.create_group("X")
    rows.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    rows.attrs["shape"] = list(X.shape)
    for name in ("data", "indices", "indptr"):
        values = getattr(X, name)
        rows.create_array(
            name,
            data=values,
            chunks=(min(_CHUNK_VALUES, len(values)),),
            compressors=CODECS[codec],
        )
    return folder


def measure_loops(folder: Path, n_rows: int, n_features: int, repeats: int) -> dict[str, Any]:
    """Return a row of the table: passes over cached and streamed rows, as ratios."""
    X = text(n_rows, n_features)
    rng = np.random.default_rng(1)
    y, V = rng.standard_normal(n_rows), rng.standard_normal((n_features, 2))
    gradient = SparseGradient(V, np.zeros(2), 1)

    def scipy_products() -> None:
        U = X @ V
        U[:, 0] -= y
        X.T @ U

    threads = usable_cpus()
    small = with_indices(X, (X.indices % _SMALL).astype(np.int32))
    data = {
        "cached": open_dataset(X, y),
        "small": open_dataset(small, y),
        "wide": open_dataset(with_indices(X, X.indices.astype(np.int64)), y),
    }
    for codec in CODECS:
        data[codec] = open_dataset(write_csr(folder / f"{codec}-{n_features}.zarr", X, y, codec))
    works: dict[str, Callable[[], object]] = {"scipy": scipy_products}
    engines = {name: ThreadsEngine(dataset, threads) for name, dataset in data.items()}
    for name, engine in engines.items():
        engine.__enter__()
        works[name] = partial(engine.reduce, gradient)
    works["moments"] = partial(engines["cached"].reduce, SparseMoments(n_features, 1))
    for codec in ("zstd", "blosc-lz4"):
        works[f"decode {codec}"] = decode_all(folder / f"{codec}-{n_features}.zarr/X", codec)
    seconds = turn_about(works, repeats)
    for engine in engines.values():
        engine.__exit__(None, None, None)
    return {
        "D": n_features,
        "values": X.nnz,
        "threads": threads,
        "million values/s": X.nnz / min(seconds["cached"]) / 1e6,
        "times SciPy": ratio(seconds, "scipy", "cached"),
        "of columns mod 512": ratio(seconds, "small", "cached"),
        "int64 in int32": ratio(seconds, "cached", "wide"),
        "moments, epochs": ratio(seconds, "moments", "cached"),
        "streamed in cached": ratio(seconds, "cached", "none"),
        "of decoding zstd": ratio(seconds, "decode zstd", "zstd"),
        "of decoding blosc-lz4": ratio(seconds, "decode blosc-lz4", "blosc-lz4"),
    }


def decode_all(group: Path, codec: str) -> Callable[[], None]:
    """Return a pass that reads and decodes the chunks of values and of columns."""
    passes = []
    for name, itemsize in (("data", 8), ("indices", 4)):
        files = sorted(file for file in (group / name / "c").rglob("*") if file.is_file())
        chunk_values = zarr.open_array(f"{group}/{name}", mode="r").chunks[0]
        passes.append(decode_only(files, codec, itemsize * chunk_values, usable_cpus()))

    def run() -> None:
        for each in passes:
            each()

    return run


def streamreg_cg(memory_limit: str | None = None) -> Stream:
    """Conjugate gradients, streamed, or with blocks cached in memory."""
    from streamreg import LinearRegression

    def fit(path: str, penalty: float, tol: float) -> np.ndarray:
        n_rows = zarr.open_array(f"{path}/y", mode="r").shape[0]
        model = LinearRegression(
            solver="cg",
            l2=penalty / n_rows,
            tol=tol,
            fit_intercept=False,
            memory_limit=memory_limit,
        )
        return model.fit(path).coef_

    return fit


def sklearn_sparse_cg() -> Fit:
    """Everything in memory."""
    from sklearn.linear_model import Ridge

    def fit(X: scipy.sparse.csr_array, y: np.ndarray, penalty: float, tol: float) -> np.ndarray:
        return Ridge(penalty, solver="sparse_cg", tol=tol, fit_intercept=False).fit(X, y).coef_

    return fit


def scipy_lsqr() -> Fit:
    """Everything in memory."""
    from scipy.sparse.linalg import lsqr

    def fit(X: scipy.sparse.csr_array, y: np.ndarray, penalty: float, tol: float) -> np.ndarray:
        return lsqr(X, y, damp=np.sqrt(penalty), atol=tol, btol=tol)[0]

    return fit


def vowpal_wabbit() -> Stream:
    """L-BFGS over a cache of its own, which it makes of text in the first pass."""
    from vowpalwabbit import Workspace

    def fit(path: str, penalty: float, tol: float) -> np.ndarray:
        n_features = zarr.open_group(f"{path}/X", mode="r").attrs["shape"][1]
        lines = written_text(path)
        lines.with_suffix(".cache").unlink(missing_ok=True)
        # its loss is the square, not half of it
        workspace = Workspace(
            f"--data {lines} --cache --cache_file {lines.with_suffix('.cache')} --bfgs --quiet"
            f" --noconstant --holdout_off --l2 {2 * penalty} --termination {tol} --passes 100"
            f" --bit_precision {(n_features - 1).bit_length()}"
        )
        w = np.array([workspace.get_weight(column) for column in range(n_features)])
        workspace.finish()
        return w

    return fit


def written_text(path: str) -> Path:
    """Return the path of rows as VowpalWabbit reads them; column j is the feature j."""
    lines = Path(path).with_suffix(".txt")
    if lines.exists():
        return lines
    X, y = load(path)
    with lines.open("w") as file:
        for number, target in enumerate(y.tolist()):
            at = slice(*X.indptr[number : number + 2].tolist())
            pairs = zip(X.indices[at].tolist(), X.data[at].tolist(), strict=True)
            file.write(f"{target} |{''.join(f' {j}:{value}' for j, value in pairs)}\n")
    return lines


# what each fits, and tolerances; those of `Stream` read a path
PEERS: dict[str, tuple[Callable[[], Any], tuple[float, ...]]] = {
    "streamreg cg": (streamreg_cg, (1e-1, 1e-2, 1e-3)),
    "streamreg cg, 100 MiB": (lambda: streamreg_cg("100 MiB"), (1e-1, 1e-2, 1e-3)),
    "scikit-learn sparse_cg": (sklearn_sparse_cg, (1e-2, 1e-3, 1e-4)),
    "SciPy lsqr": (scipy_lsqr, (1e-3, 1e-4, 1e-5)),
    "VowpalWabbit": (vowpal_wabbit, (1e-3, 1e-4, 1e-5)),
}


def run(case: dict[str, Any]) -> None:
    """Fit once, in this process, and print the figures."""
    warnings.simplefilter("ignore")
    fit, path = PEERS[case["peer"]][0](), case["path"]
    data = (path,) if streams(case["peer"]) else load(path)
    peak_nbytes()
    before = peak_nbytes()
    began = time.perf_counter()
    w = fit(*data, _PENALTY, case["tol"])
    seconds = time.perf_counter() - began
    added = peak_nbytes() - before
    X, y = load(path)
    objective = 0.5 * (np.sum((X @ w - y) ** 2) + _PENALTY * np.sum(w**2))
    print(json.dumps({"seconds": seconds, "added": added, "objective": float(objective)}))


def streams(peer: str) -> bool:
    """Whether a peer reads files by itself."""
    return peer.startswith(("streamreg", "Vowpal"))


def load(path: str) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """Read a data set into memory."""
    group = zarr.open_group(path, mode="r")
    rows = group["X"]
    X = scipy.sparse.csr_array(
        tuple(rows[name][:] for name in ("data", "indices", "indptr")),
        shape=tuple(rows.attrs["shape"]),
    )
    return X, group["y"][:]


def measure_ridge(folder: Path, n_rows: int, n_features: int) -> list[dict[str, Any]]:
    """Return a row for each peer."""
    X = text(n_rows, n_features, seed=3)
    rng = np.random.default_rng(1)
    y = X @ rng.standard_normal(n_features)
    y += y.std() * rng.standard_normal(n_rows)
    path = write_csr(folder / "text.zarr", X, y, "none")
    del X, y
    written_text(str(path))
    found: dict[str, list[dict[str, Any]]] = {}
    for peer, (_, tols) in PEERS.items():
        if "Vowpal" in peer and find_spec("vowpalwabbit") is None:
            print(f"{peer} is left out, because it is not installed")
            continue
        cases = [{"peer": peer, "path": str(path), "tol": tol} for tol in tols]
        found[peer] = [in_new_process(Path(__file__), case) for case in cases]
        for each in found[peer]:
            if "failure" in each:
                sys.exit(f"{peer}: {each['failure']}")
    least = min(each["objective"] for fits in found.values() for each in fits)
    rows = []
    for peer, fits in found.items():
        above = [each["objective"] / least - 1 for each in fits]
        # the tightest, if none is within
        at = next((at for at, excess in enumerate(above) if excess <= _WITHIN), len(fits) - 1)
        rows.append(
            {
                "peer": peer,
                "tol": PEERS[peer][1][at],
                "seconds": fits[at]["seconds"],
                "added MiB": fits[at]["added"] / 2**20,
                "objective above the least": above[at],
            }
        )
    return rows


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    parser.add_argument("--part", choices=["loops", "ridge", "all"], default="all")
    options = parser.parse_args()
    quick = options.quick
    sizes = [(2_000, 1_000)] if quick else [(1_400_000, 131_072), (1_400_000, 1 << 20)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.part != "ridge":
            rows = [measure_loops(folder, *size, 1 if quick else 5) for size in sizes]
            keep("sparse_loops", rows, quick=quick)
        if options.part != "loops":
            ridge = (2_000, 1_000) if quick else (1_500_000, 131_072)
            keep("sparse_ridge", measure_ridge(folder, *ridge), quick=quick)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    given = case_of_this_process()
    main() if given is None else run(given)
