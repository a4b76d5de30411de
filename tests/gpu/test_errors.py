"""Errors of a fake GPU that is absent, has no free memory, or fails."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import zarr
from fake_cupy import CUDADriverError, CUDARuntimeError, OutOfMemoryError

from streamreg import LinearRegression, plan
from streamreg.errors import InputError, MemoryLimitError, StreamregError
from streamreg.formatting import GIB


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("gpu") / "data.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=rng.standard_normal((50_000, 20)), chunks=(10_000, 20))
    group.create_array("y", data=rng.standard_normal(50_000), chunks=(10_000,))
    return path


def test_a_fit_that_exceeds_device_memory_is_refused_before_reading(cupy, store):
    refused = plan(store, device="cuda", solver="closed_form", device_memory_limit="80 MiB")
    assert not refused.candidates["closed_form"].fits
    enough = re.search(r"Raise device_memory_limit to ([\d.]+ \w+)", str(refused))[1]
    assert (
        plan(store, device="cuda", solver="closed_form", device_memory_limit=enough)
        .candidates["closed_form"]
        .fits
    )
    assert "GPU memory limit 80.0 MiB" in str(refused)
    with pytest.raises(
        MemoryLimitError,
        match=r"closed_form on the GPU needs .* but device_memory_limit is 80.0 MiB.*"
        r"\n(.*\n)+.*Raise device_memory_limit to .*, or pass device=\"cpu\"",
    ):
        LinearRegression(device="cuda", solver="closed_form", device_memory_limit="80 MiB").fit(
            store
        )


def test_a_limit_above_free_device_memory_is_refused(cupy, store):
    with pytest.raises(MemoryLimitError, match=r"limit is 2.0 GiB and the GPU has 1.0 GiB free"):
        LinearRegression(device="cuda", device_memory_limit="2 GiB").fit(store)


def test_half_of_free_device_memory_is_the_default_limit(cupy, store):
    made = plan(store, device="cuda")
    assert made.candidates[made.chosen].device.limit_nbytes == GIB // 2
    assert made.to_dict()["candidates"]["cg"]["device"]["terms"][0]["what"]


def test_device_memory_that_is_refused_raises_memory_limit_error(cupy, store, monkeypatch):
    def refuse(*given, **options):
        raise OutOfMemoryError("Out of memory allocating 9 bytes")

    monkeypatch.setattr(cupy, "add", refuse, raising=False)
    with pytest.raises(MemoryLimitError, match=r"the GPU refused memory: .*device_memory_limit"):
        LinearRegression(device="cuda").fit(store)


def test_without_cupy_the_error_says_how_to_install_it(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InputError, match=r"needs CuPy and cuBLAS, .*pip install"):
        LinearRegression(device="cuda").fit(store)


def test_the_error_of_a_failing_device_says_what_to_do(cupy, store, monkeypatch):
    for text, error, says in (
        ("cudaErrorECCUncorrectable", StreamregError, "the GPU failed: .*nvidia-smi"),
        ("cudaErrorMemoryAllocation: out of memory", MemoryLimitError, "for pinned memory"),
        ("CUDA_ERROR_UNSUPPORTED_PTX_VERSION", StreamregError, "driver and CUDA are new enough"),
    ):
        kind = CUDADriverError if "PTX" in text else CUDARuntimeError

        def fail(nbytes, kind=kind, text=text):
            raise kind(text)

        monkeypatch.setattr(cupy.cuda, "PinnedMemory", fail)
        with pytest.raises(error, match=says):
            LinearRegression(device="cuda").fit(store)


def test_without_a_gpu_the_error_says_what_to_check(cupy, store, monkeypatch):
    def too_old():
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", too_old)
    with pytest.raises(
        InputError, match=r"cudaErrorInsufficientDriver.*nvidia-smi.*CUDA_VISIBLE_DEVICES"
    ):
        LinearRegression(device="cuda").fit(store)
