"""Speed of epochs compared with reading or decoding alone, and of XᵀX compared with BLAS.

python benchmarks/throughput.py [--quick]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
from harness import keep, picture, ratio, turn_about, write_store
from threadpoolctl import threadpool_limits

from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.blocks import new_piece
from streamreg.engines.threads import ThreadsEngine
from streamreg.kernels import blas
from streamreg.machine import usable_cpus
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.sources.dataset import Dataset

    Row = dict[str, Any]

# columns of coefficients: gd multiplies with w, cg with w and a direction
COLUMNS = {"gd": 1, "cg": 2}


def read_only(files: list[Path], n_threads: int) -> Callable[[], None]:
    """Return a pass that reads all bytes, a buffer a thread, with the system calls of kernels."""
    buffers = [new_piece(1) for _ in range(n_threads)]

    def read(thread: int) -> None:
        view = buffers[thread].data
        for path in files[thread::n_threads]:
            file = os.open(path, os.O_RDONLY)
            offset = 0
            while n_read := os.preadv(file, [view], offset):
                offset += n_read
            os.close(file)

    return on_threads(read, n_threads)


def decode_only(
    files: list[Path], codec: str, chunk_nbytes: int, n_threads: int
) -> Callable[[], None]:
    """Return a pass that reads and decodes all chunks into one buffer a thread."""
    decoder = numcodecs.get_codec({"id": codec.partition("-")[0]})
    outs = [np.empty(chunk_nbytes, np.uint8) for _ in range(n_threads)]
    encoded = [bytearray(2 * chunk_nbytes) for _ in range(n_threads)]

    def decode(thread: int) -> None:
        for path in files[thread::n_threads]:
            file = os.open(path, os.O_RDONLY)
            count = os.readv(file, [encoded[thread]])
            os.close(file)
            decoder.decode(memoryview(encoded[thread])[:count], outs[thread])

    return on_threads(decode, n_threads)


def on_threads(work: Callable[[int], None], n_threads: int) -> Callable[[], None]:
    """Return a pass that runs ``work`` on the threads of a pool, which live on between passes."""
    pool = ThreadPoolExecutor(n_threads)

    def run() -> None:
        for done in [pool.submit(work, thread) for thread in range(n_threads)]:
            done.result()

    return run


def some_gradient(n_features: int, solver: str) -> Gradient:
    """Return what an epoch of a solver accumulates: loss, gradient, for cg also a product."""
    rng, m = np.random.default_rng(1), COLUMNS[solver]
    return Gradient(rng.standard_normal((n_features, m)), np.zeros(m), 1)


def as_row(source: str, dtype: str, dataset: Dataset, seconds: dict[str, list[float]]) -> Row:
    """Return rates, and the time of reading alone as a share of the time of each epoch."""
    size = dataset.n_rows * dataset.X.row_nbytes / 1e9
    return {
        "source": source,
        "dtype": dtype,
        "D": dataset.n_features,
        "threads": usable_cpus(),
        "alone GB/s": size / statistics.median(seconds["alone"]),
        **{f"{name} GB/s": size / statistics.median(seconds[name]) for name in COLUMNS},
        **{f"{name} share": ratio(seconds, "alone", name) for name in COLUMNS},
        "gd, NumPy's kernels, GB/s": size / statistics.median(seconds["numpy"]),
    }


def epochs(
    engine: ThreadsEngine, plain: ThreadsEngine, n_features: int
) -> dict[str, Callable[[], object]]:
    """Return an epoch of each solver, and of gd with NumPy's kernels."""
    ours = {name: partial(engine.reduce, some_gradient(n_features, name)) for name in COLUMNS}
    return {**ours, "numpy": partial(plain.reduce, some_gradient(n_features, "gd"))}


def measure(
    folder: Path, codec: str, dtype: str, n_features: int, nbytes: int, repeats: int
) -> Row:
    """Return a row of the table: an epoch, compared with reading or decoding the same bytes."""
    n_rows = nbytes // (n_features * np.dtype(dtype).itemsize)
    path = write_store(
        folder / f"{codec}-{dtype}-{n_features}.zarr", n_rows, n_features, dtype=dtype, codec=codec
    )
    files = sorted(file for file in (path / "X" / "c").rglob("*") if file.is_file())
    threads = usable_cpus()
    dataset = open_dataset(path)
    chunk_nbytes = dataset.X.grid.chunk_rows * dataset.X.row_nbytes
    alone = (
        read_only(files, threads)
        if codec == "none"
        else decode_only(files, codec, chunk_nbytes, threads)
    )
    with (
        ThreadsEngine(dataset, threads) as engine,
        ThreadsEngine(dataset, threads, kernels="numpy") as plain,
    ):
        ours = epochs(engine, plain, n_features)
        seconds = turn_about({"alone": alone, **ours}, repeats)
    return as_row(codec, dtype, dataset, seconds)


def measure_cached(folder: Path, dtype: str, n_features: int, nbytes: int, repeats: int) -> Row:
    """Return a row: an epoch over cached blocks, compared with a dot product of the same bytes."""
    n_rows = nbytes // (n_features * np.dtype(dtype).itemsize)
    path = write_store(folder / f"{dtype}-{n_features}.zarr", n_rows, n_features, dtype=dtype)
    dataset = open_dataset(path)
    threads = usable_cpus()
    X = np.ones((n_rows, n_features), dtype)

    def add(thread: int) -> None:
        part = np.array_split(X.ravel(), threads)[thread]
        # compiled, and it reads each value once
        np.dot(part, part)

    # while an engine is open BLAS has one thread
    with (
        ThreadsEngine(dataset, threads, cache_nbytes=2 * nbytes) as engine,
        ThreadsEngine(dataset, threads, kernels="numpy", cache_nbytes=2 * nbytes) as plain,
    ):
        ours = epochs(engine, plain, n_features)
        seconds = turn_about({"alone": on_threads(add, threads), **ours}, repeats)
    return as_row("block cache", dtype, dataset, seconds)


def measure_gram(folder: Path, n_features: int, nbytes: int, repeats: int) -> Row:
    """Return a row: flops a second of XᵀX from disk, compared with dsyrk in memory."""
    n_rows = max(n_features, nbytes // (8 * n_features))
    path = write_store(folder / f"gram-{n_features}.zarr", n_rows, n_features)
    dataset, threads = open_dataset(path), usable_cpus()
    rows = np.random.default_rng(0).standard_normal((min(n_rows, 1 << 14), n_features))
    from scipy.linalg.blas import dsyrk

    gram = np.zeros((n_features, n_features), order="F")
    own = [np.zeros((n_features, n_features), order="F") for _ in range(threads)]

    def whole() -> None:
        with threadpool_limits(threads):
            dsyrk(1.0, rows.T, beta=1.0, c=gram, overwrite_c=True)

    def a_part(thread: int) -> None:
        part = np.array_split(rows, threads)[thread]
        blas.add_gram_panel(part, own[thread], 0, n_features)

    accumulator = Gram(n_features, 1)
    # while an engine is open BLAS has one thread
    with ThreadsEngine(dataset, threads) as engine:
        works = {
            "parts": on_threads(a_part, threads),
            "epoch": lambda: engine.reduce(accumulator),
            "whole": whole,
        }
        seconds = turn_about(works, repeats)
    # the machine's rate is that of the faster way to use all cores
    best = min(("parts", "whole"), key=lambda way: statistics.median(seconds[way]))
    flops = {"epoch": n_rows * n_features**2, best: len(rows) * n_features**2}
    rate = {name: flops[name] / statistics.median(seconds[name]) / 1e9 for name in flops}
    return {
        "D": n_features,
        "threads": threads,
        "closed form Gflop/s": rate["epoch"],
        "dsyrk Gflop/s": rate[best],
        "dsyrk": best,
        "share": rate["epoch"] / rate[best],
    }


def measure_small(repeats: int) -> list[Row]:
    """Return what small fits and imports cost: an epoch of 10,000 rows, and importing."""
    X = np.random.default_rng(0).standard_normal((10_000, 10))
    y, w = X.sum(axis=1), np.random.default_rng(1).standard_normal(10)
    with ThreadsEngine(open_dataset(X, y), usable_cpus()) as engine:
        epoch = partial(engine.reduce, some_gradient(10, "gd"))
        seconds = turn_about({"epoch": epoch, "arithmetic": lambda: X.T @ (X @ w - y)}, repeats)

    def importing(module: str) -> Callable[[], object]:
        return partial(subprocess.run, [sys.executable, "-c", f"import {module}"], check=True)

    imports = {"streamreg": importing("streamreg"), "numpy": importing("numpy")}
    seconds |= turn_about(imports, repeats)
    return [
        {
            "what": "an epoch of 10,000 rows of 10",
            "ms": 1e3 * statistics.median(seconds["epoch"]),
            "beside": "its arithmetic",
            "its ms": 1e3 * statistics.median(seconds["arithmetic"]),
        },
        {
            "what": "import streamreg",
            "ms": 1e3 * statistics.median(seconds["streamreg"]),
            "beside": "import numpy",
            "its ms": 1e3 * statistics.median(seconds["numpy"]),
        },
    ]


def main() -> None:
    """Measure every codec, dtype and D."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    quick = parser.parse_args().quick
    nbytes, repeats = (16 << 20, 1) if quick else (1 << 29, 7)
    widths = (256,) if quick else (16, 128, 256, 4096, 100_000)
    rows, gram = [], []
    for n_features in widths:
        for dtype in ("float64", "float32"):
            for codec in ("none", "zstd", "blosc-lz4"):
                with tempfile.TemporaryDirectory() as folder:
                    rows.append(measure(Path(folder), codec, dtype, n_features, nbytes, repeats))
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measure_cached(Path(folder), dtype, n_features, nbytes, repeats))
    for n_features in (256,) if quick else (256, 1024, 2048):
        with tempfile.TemporaryDirectory() as folder:
            gram.append(measure_gram(Path(folder), n_features, nbytes, repeats))
    keep("throughput", rows, quick=quick)
    keep("closed_form", gram, quick=quick)
    keep("small", measure_small(repeats), quick=quick)
    if not quick:
        _draw([row for row in rows if row["D"] == 256])  # noqa: PLR2004


def _draw(rows: list[Row]) -> None:
    with picture("throughput", columns=1) as (axes,):
        names = [f"{row['source']}, {row['dtype']}" for row in rows]
        at = np.arange(len(rows))
        axes.barh(at - 0.2, [row["alone GB/s"] for row in rows], 0.4, label="reading or decoding")
        bars = axes.barh(at + 0.2, [row["gd GB/s"] for row in rows], 0.4, label="gd epoch")
        axes.bar_label(bars, [f"{row['gd share']:.0%}" for row in rows], padding=2, fontsize=8)
        axes.set(yticks=at, yticklabels=names, xlabel="decoded GB/s, D = 256, page cache warm")
        axes.invert_yaxis()
        axes.legend(fontsize=8, loc=(0.52, 0.72))  # beside the shortest bars


if __name__ == "__main__":
    main()
