"""What tests share: the Hypothesis profile, stores, fake devices, and a list of opened files."""

from __future__ import annotations

import os
import signal
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from clusters import loopback_cluster
from fake_cupy import FakeCuPy, install
from host_cuda import RawModule
from hypothesis import HealthCheck, settings
from stores import write_zarr

from streamreg.gpu import fused_gram, fused_products, launch
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.device import Gpu
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.base import Kernels
from streamreg.kernels.registry import load_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# pytest in the background of a shell, and its child processes, ignore Ctrl-C, which tests send
signal.signal(signal.SIGINT, signal.default_int_handler)

# derandomised, so that a failure repeats; without a deadline, which a busy machine would miss
settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("ci")

_METADATA = {"zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata"}
_opened: list[str] | None = None


def _record_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str | os.PathLike):
        _opened.append(os.fspath(arguments[0]))


# a hook cannot be removed again: it does nothing unless the fixture below is in use
sys.addaudithook(_record_opened)


@pytest.fixture
def chunks_opened(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Return a function that lists the opened files below ``tmp_path``, except metadata."""
    global _opened  # noqa: PLW0603  (the hook outlives the test)
    _opened = opened = []

    def chunks() -> list[str]:
        below = f"{tmp_path}{os.sep}"
        # folders do not count, because they are opened only to be locked or listed; absent files do
        return [
            path
            for path in opened
            if os.path.realpath(path).startswith(below)
            and Path(path).name not in _METADATA
            and not Path(path).is_dir()
        ]

    yield chunks
    _opened = None


@pytest.fixture
def store(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes an array to a Zarr store and returns its path."""

    def write(values: np.ndarray, name: str = "X.zarr", **layout: Any) -> str:
        return write_zarr(tmp_path / name, values, **layout)

    return write


def add_gram(rows, gram):
    """Add the lower triangle of ZᵀZ, as cuBLAS does."""
    gram += np.tril(rows.T @ rows)


# the GPU's loops, run with NumPy's functions
_ON_DEVICE = gpu_kernels.ArrayKernels(np, add_gram).kernels.by_name
# scores run on the host only
ARRAYS = Kernels({**_ON_DEVICE, "predict": numpy_kernels.predict})


@pytest.fixture(params=["numpy", "baseline", "v3", "v4", "neon", "arrays"])
def kernels(request):
    """Each implementation of the loops that can run here without a GPU."""
    if request.param == "arrays":
        return ARRAYS
    try:
        return load_kernels(request.param).by_kind["dense"]
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[False, True], ids=["one tile", "many tiles"])
def tile_sizes(request, monkeypatch):
    """Let a few rows make several tiles, and a few columns several panels."""
    if request.param:
        monkeypatch.setattr(numpy_kernels, "_TILE_NBYTES", 1)
        monkeypatch.setattr(numpy_kernels, "_MIN_ROWS", 4)
        monkeypatch.setattr(gpu_kernels, "TILE_NBYTES", 1)
        monkeypatch.setattr(gpu_kernels, "_LEAST_ROWS", 3)
        monkeypatch.setattr(numpy_kernels, "_GRAM_TILE_NBYTES", 1)
        monkeypatch.setattr(numpy_kernels, "_GRAM_MIN_ROWS", 3)
        monkeypatch.setattr(numpy_kernels, "_PANEL", 2)


@pytest.fixture
def client_here():
    """A cluster whose workers are threads of this process, so that they can use a fake device."""
    options = {"threads_per_worker": 2, "processes": False, "memory_limit": "auto", "host": None}
    with loopback_cluster(2, **options) as client:
        yield client


@pytest.fixture
def cupy(monkeypatch):
    """A fake device, which needs no GPU, in the place of CuPy."""
    device = install(monkeypatch, FakeCuPy())
    # the fake device compiles nothing
    monkeypatch.setattr(fused_products, "launches_for", lambda _: [])
    monkeypatch.setattr(fused_gram, "TYPES", ())
    yield device
    assert device.faults == []


@pytest.fixture(scope="session")
def compiled():
    """The kernels, each compiled once."""
    return cache(RawModule)


@pytest.fixture
def gpu(monkeypatch, compiled):
    """A device whose kernels are compiled for the host."""
    cupy = FakeCuPy()
    cupy.RawModule = lambda *, name_expressions, **given: compiled(
        name_expressions=tuple(name_expressions), **given
    )
    install(monkeypatch, cupy)
    # a few blocks of threads are enough, because the host runs them one by one
    monkeypatch.setattr(launch, "_GRID", 3)
    monkeypatch.setattr(launch, "_MOST_GRIDS", 1)
    monkeypatch.setattr(launch, "_WIDE_GRID", 10)
    # tiles of some rows of 1,000 numbers
    monkeypatch.setattr(launch, "_WIDE_TILE_NBYTES", 100_000)
    return Gpu()
