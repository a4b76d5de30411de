"""Speed of passes on a GPU, compared with the bus, device memory, cuBLAS, CuPy and PyTorch.

python benchmarks/gpu.py [--quick]

It first compares the answers with those of the processor, then measures times. Without a GPU it
says so and exits with status 2.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import keep, turn_about

from streamreg import LinearRegression
from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.config.fit_config import FitConfig
from streamreg.errors import InputError
from streamreg.fitting.plan import plan_fit
from streamreg.gpu.backend import GPU_PARTITION
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import GpuEngine
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Accumulator
    from streamreg.sources.dataset import Dataset

    Row = dict[str, Any]

_TOLERANCE = 1e-9


def made_up(n_rows: int, n_features: int, dtype: str) -> tuple[Any, Any]:
    """Return X, normal deviates, and y = Xw + noise."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n_rows, n_features), dtype=np.float32).astype(dtype)
    weights = rng.standard_normal(n_features) / np.sqrt(n_features)
    return X, X @ weights + rng.standard_normal(n_rows)


def engine_for(dataset: Dataset, gpu: Gpu, *, cached: bool) -> GpuEngine:
    """Return an engine that caches all blocks on the device if ``cached``, else no blocks."""
    config = FitConfig.parse(
        solver="gd", device="cuda", device_memory_limit=gpu.free_nbytes * 9 // 10
    )
    plan = plan_fit(dataset, config)
    candidate = plan.candidates["gd"]
    if candidate.device is None:
        raise ValueError("the plan has no device")
    needs = candidate.device if cached else replace(candidate.device, n_cached=0)
    return GpuEngine(dataset, candidate.n_threads, lambda _: None, gpu, needs, GPU_PARTITION)


def answers(gpu: Gpu, n_rows: int) -> list[Row]:
    """Compare fits on the device with those on the processor, and with each other."""
    asarray = gpu.cupy.asarray
    rows = []
    for dtype in ("float64", "float32"):
        X, y = made_up(n_rows, 64, dtype)
        for solver in ("closed_form", "cg", "gd"):
            settings = {"solver": solver, "tol": 1e-12, "max_epochs": 200}
            on_device, again, on_host = (
                LinearRegression(device=device, **settings).fit(X, y)
                for device in ("cuda", "cuda", "cpu")
            )
            moved = LinearRegression(device="cuda", **settings).fit(asarray(X), asarray(y))
            error = float(
                np.abs(on_device.coef_ - on_host.coef_).max() / np.abs(on_host.coef_).max()
            )
            rows.append(
                {
                    "dtype": dtype,
                    "solver": solver,
                    "relative error": error,
                    "within 1e-9": error <= _TOLERANCE,
                    "same bits twice": on_device.coef_.tobytes() == again.coef_.tobytes(),
                    "same bits, CuPy's rows": on_device.coef_.tobytes() == moved.coef_.tobytes(),
                }
            )
    return rows


def timed(gpu: Gpu, works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median seconds of each work, until the device has finished it."""

    def to_the_end(work: Callable[[], object]) -> None:
        work()
        gpu.cupy.cuda.Device().synchronize()

    seconds = turn_about({name: partial(to_the_end, work) for name, work in works.items()}, repeats)
    return {name: statistics.median(each) for name, each in seconds.items()}


def bus(gpu: Gpu, nbytes: int) -> Callable[[], None]:
    """Return a function that copies pinned memory to the device."""
    memory = gpu.cupy.cuda.alloc_pinned_memory(nbytes)
    on_host = np.frombuffer(memory, np.uint8, nbytes)
    on_device = gpu.cupy.empty(nbytes, np.uint8)
    stream = gpu.cupy.cuda.Stream(non_blocking=True)
    return lambda: on_device.set(on_host, stream=stream)


def passes(gpu: Gpu, dtype: str, n_features: int, nbytes: int, repeats: int) -> list[Row]:
    """Measure epochs of gd, streamed and cached, beside bus and device copies and CuPy's epoch."""
    cupy = gpu.cupy
    n_rows = nbytes // (n_features * np.dtype(dtype).itemsize)
    X, y = made_up(n_rows, n_features, dtype)
    dataset = open_dataset(X, y)
    gradient = Gradient(np.random.default_rng(1).standard_normal((n_features, 2)), np.zeros(2), 1)
    X_device, y_device = cupy.asarray(X), cupy.asarray(y).astype(dtype)
    w, other = cupy.zeros(n_features, dtype), cupy.empty_like(X_device)
    with (
        engine_for(dataset, gpu, cached=False) as streamed,
        engine_for(dataset, gpu, cached=True) as cached,
        engine_for(open_dataset(X_device, cupy.asarray(y)), gpu, cached=True) as in_place,
    ):
        seconds = timed(
            gpu,
            {
                "bus": bus(gpu, X.nbytes),
                "streamed": partial(streamed.reduce, gradient),
                "copy": lambda: cupy.copyto(other, X_device),
                "cached": partial(cached.reduce, gradient),
                "CuPy's rows": partial(in_place.reduce, gradient),
                "CuPy": lambda: X_device.T @ (X_device @ w - y_device),
            },
            repeats,
        )
    rate = {name: X.nbytes / each / 1e9 for name, each in seconds.items()}
    about = {"dtype": dtype, "D": n_features}
    # a copy reads and writes each byte
    copied = 2 * rate["copy"]
    return [
        {
            **about,
            "pass": "streamed",
            "GB/s": rate["streamed"],
            "beside": "pinned copy",
            "its GB/s": rate["bus"],
            "share": rate["streamed"] / rate["bus"],
            "target": 0.8,
            "CuPy's own GB/s": "",
        },
        *(
            {
                **about,
                "pass": name,
                "GB/s": rate[name],
                "beside": "device copy",
                "its GB/s": copied,
                "share": rate[name] / copied,
                "target": 0.7,
                "CuPy's own GB/s": rate["CuPy"],
            }
            for name in ("cached", "CuPy's rows")
        ),
    ]


def gram(gpu: Gpu, n_features: int, n_rows: int, repeats: int) -> Row:
    """Measure XᵀX of rows on the device beside one rank-k update of cuBLAS."""
    from cupy import cublas

    cupy = gpu.cupy
    X, y = made_up(n_rows, n_features, "float64")
    accumulator: Accumulator[Any, Any] = Gram(n_features, 1)
    on_device, out = cupy.asarray(X), cupy.zeros((n_features, n_features), order="F")
    del X
    with engine_for(open_dataset(on_device, cupy.asarray(y)), gpu, cached=True) as engine:
        seconds = timed(
            gpu,
            {
                "ours": partial(engine.reduce, accumulator),
                "cuBLAS": lambda: cublas.syrk("N", on_device.T, out=out, beta=1.0, lower=True),
            },
            repeats,
        )
    flops = n_rows * n_features**2 / 1e12
    return {
        "D": n_features,
        "Tflop/s": flops / seconds["ours"],
        "cuBLAS": flops / seconds["cuBLAS"],
        "share": seconds["cuBLAS"] / seconds["ours"],
        "target": 0.7,
    }


def peers(gpu: Gpu, n_rows: int, n_features: int, repeats: int) -> list[Row]:
    """Measure whole fits of rows on the host."""
    cupy = gpu.cupy
    X, y = made_up(n_rows, n_features, "float64")

    def cupy_lstsq() -> None:
        cupy.linalg.lstsq(cupy.asarray(X), cupy.asarray(y), rcond=None)

    works: dict[str, Callable[[], object]] = {
        f"streamreg {solver}": partial(LinearRegression(device="cuda", solver=solver).fit, X, y)
        for solver in ("closed_form", "cg")
    } | {"cupy.linalg.lstsq": cupy_lstsq}
    if find_spec("torch") is not None:
        import torch

        def torch_lstsq() -> None:
            on_device = torch.from_numpy(X).cuda(), torch.from_numpy(y[:, None]).cuda()
            torch.linalg.lstsq(*on_device)
            torch.cuda.synchronize()

        works["torch.linalg.lstsq"] = torch_lstsq
    seconds = timed(gpu, works, repeats)
    return [
        {"fit": name, "N": n_rows, "D": n_features, "s": each} for name, each in seconds.items()
    ]


def main() -> int:
    """Check and measure, print the tables, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    quick = parser.parse_args().quick
    try:
        gpu = Gpu()
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    nbytes, repeats = (16 << 20, 2) if quick else (4 << 30, 7)
    checked = answers(gpu, 20_000 if quick else 400_000)
    keep("gpu_answers", checked, quick=quick)
    shapes = [(dtype, d) for d in (256, 4096, 20_000) for dtype in ("float64", "float32")]
    rates = [row for dtype, d in shapes for row in passes(gpu, dtype, d, nbytes, repeats)]
    keep("gpu_passes", rates, quick=quick)
    sizes = [(256, 10_000)] if quick else [(1024, 1 << 21), (4096, 1 << 19)]
    keep("gpu_gram", [gram(gpu, d, n, repeats) for d, n in sizes], quick=quick)
    keep(
        "gpu_peers",
        peers(gpu, *((10_000, 64) if quick else (2_000_000, 256)), repeats),
        quick=quick,
    )
    right = ("within 1e-9", "same bits twice", "same bits, CuPy's rows")
    return 0 if all(row[each] for row in checked for each in right) else 1


if __name__ == "__main__":
    sys.exit(main())
