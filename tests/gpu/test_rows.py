"""CuPy arrays are reduced in place, on a fake GPU."""

from __future__ import annotations

import sys
from copy import deepcopy

import dask.array as da
import numpy as np
import pytest
from device_fits import bits, fit, set_gpu_partition

from streamreg import LinearRegression, plan
from streamreg.accumulators.gradient import Gradient
from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.gpu import backend
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import GpuEngine
from streamreg.sources.open import open_dataset

SOLVERS = ["closed_form", "gd", "cg"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a segment have several blocks, and a block several tiles."""
    set_gpu_partition(monkeypatch, block_nbytes=MIB, segment_nbytes=4 * MIB)
    monkeypatch.setattr(gpu_kernels, "TILE_NBYTES", MIB // 4)


@pytest.fixture(scope="module")
def rows():
    """10 MB of X, with two targets."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60_000, 20)) * rng.uniform(0.1, 10, 20) + 5
    return X, 30 + X @ rng.standard_normal((20, 2)) + rng.standard_normal((60_000, 2))


def moved(values):
    return sys.modules["cupy"].asarray(values)


def on_gpu(array, chunks, cupy):
    """Return a Dask array whose blocks are CuPy's."""
    empty = cupy.asarray(np.empty((0,) * array.ndim, array.dtype))
    return da.from_array(array, chunks=chunks).map_blocks(moved, dtype=array.dtype, meta=empty)


@pytest.mark.parametrize("solver", SOLVERS)
def test_rows_on_the_device_give_the_bits_of_rows_on_the_host(cupy, rows, solver):
    X, y = rows
    expected = bits(fit(X, y, solver=solver))
    on_device = cupy.asarray(X), cupy.asarray(y)
    sent = cupy.n_sent
    assert bits(fit(*on_device, solver=solver)) == expected
    # only states and coefficients are sent
    assert cupy.n_sent - sent < X.nbytes / 100
    for data in ((on_device[0], y), (X, on_device[1])):
        assert bits(fit(*data, solver=solver)) == expected


@pytest.mark.parametrize("solver", SOLVERS)
def test_device_rows_of_any_order_and_dtype_give_the_bits_of_host_rows(cupy, rows, solver):
    X, y = rows
    weight = np.random.default_rng(1).integers(0, 3, len(X)).astype("f8")
    broken = X.copy()
    broken[[7, 40_000], [0, 3]] = np.nan
    wide = np.round(X).astype("i8")
    by_columns = cupy.asarray(np.empty((0, 0)))
    by_columns = type(by_columns)(np.asfortranarray(X), cupy)
    for on_host, on_device, parameters in (
        ((X, y, weight), (cupy.asarray(X), cupy.asarray(y), cupy.asarray(weight)), {}),
        ((X, y, weight), (cupy.asarray(X), y, weight), {}),
        ((X, y), (by_columns, cupy.asarray(y)), {}),
        ((broken, y), (cupy.asarray(broken), cupy.asarray(y)), {"nan_policy": "omit"}),
        ((wide, y[:, 0]), (cupy.asarray(wide), cupy.asarray(y[:, 0])), {}),
    ):
        expected = bits(fit(*on_host, solver=solver, **parameters))
        assert bits(fit(*on_device, solver=solver, **parameters)) == expected


@pytest.mark.parametrize("solver", SOLVERS)
def test_chunks_on_the_device_give_the_bits_of_chunks_on_the_host(cupy, rows, solver):
    X, y = rows
    chunks = (1_000, 9_000, 30_000, 20_000)
    on_host = da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(7_000, -1))
    on_device = on_gpu(X, (chunks, -1), cupy), on_gpu(y, (7_000, -1), cupy)
    expected = bits(fit(*on_host, solver=solver, n_threads=1))
    for data, parameters in (
        (on_host, {"n_threads": 3}),
        (on_device, {"n_threads": 1}),
        (on_device, {"n_threads": 3}),
        (on_device, {"n_threads": 2, "device_memory_limit": "180 MiB"}),
        ((on_device[0], y), {}),
        ((on_host[0], on_device[1]), {}),
    ):
        assert bits(fit(*data, solver=solver, **parameters)) == expected
    needs = plan(*on_device, device="cuda", solver=solver).candidates[solver].device
    assert [term for term in needs.terms if term.what == "chunks"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_workers_with_devices_give_the_bits_of_one_process(client_here, cupy, rows, solver):
    X, y = rows
    chunks = (1_000, 9_000, 30_000, 20_000)
    on_host = da.from_array(X, chunks=(chunks, -1)), da.from_array(y, chunks=(7_000, -1))
    on_device = on_gpu(X, (chunks, -1), cupy), on_host[1]
    settings = {"solver": solver, "device_memory_limit": "1 GiB"}
    expected = bits(fit(*on_host, **settings))
    assert bits(fit(*on_host, client=client_here, **settings)) == expected
    assert bits(fit(*on_device, client=client_here, **settings)) == expected


def test_not_finite_rows_on_the_device_are_named(cupy, rows):
    X, y = rows[0].copy(), cupy.asarray(rows[1])
    X[33_333, 7] = np.inf
    with pytest.raises(InputError, match=r"X has inf in row 33,333, column 7"):
        fit(cupy.asarray(X), y)


def test_a_fit_of_rows_on_the_device_resumes_from_its_checkpoint(cupy, rows, tmp_path):
    on_device = cupy.asarray(rows[0]), cupy.asarray(rows[1])

    def stop(record):
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(*on_device, solver="cg", progress=stop, checkpoint=tmp_path / "a")
    expected = bits(fit(*on_device, solver="cg"))
    assert bits(fit(*on_device, solver="cg", checkpoint=tmp_path / "a")) == expected


def test_a_pass_resumed_after_a_segment_leaves_rows_on_the_device_unchanged(cupy, rows):
    on_device = cupy.asarray(rows[0]), cupy.asarray(rows[1])
    needs = plan(*on_device, device="cuda").candidates["cg"].device
    gradient, seen = Gradient(np.ones((20, 2)), np.ones(2), 2), []
    found = []
    for _ in range(2):
        dataset = open_dataset(*on_device)
        engine = GpuEngine(dataset, 1, lambda _: None, Gpu(), needs, backend.GPU_PARTITION)
        with engine:
            start = deepcopy(seen[0]) if seen else None
            found.append(engine.reduce(gradient, start, lambda part: seen.append(deepcopy(part))))
            found.append(engine.reduce(gradient))
    for mine, theirs in zip(on_device, rows, strict=True):
        np.testing.assert_array_equal(mine.get(), theirs)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].result.gradient, other.result.gradient)


def test_the_processor_refuses_rows_on_a_device_and_says_what_to_do(cupy, rows):
    X, y = rows
    for on_device in (cupy.asarray(X), on_gpu(X, (10_000, -1), cupy)):
        with pytest.raises(InputError, match=r'X is CuPy\'s.*pass device="cuda".*asnumpy\(X\)'):
            LinearRegression().fit(on_device, y)
        model = fit(on_device, y)
        for use, given in ((model.predict, (on_device,)), (model.score, (on_device, y))):
            with pytest.raises(InputError, match=r"runs on the processor. Pass cupy.asnumpy\(X\)"):
                use(*given)


def test_chunks_whose_meta_names_another_library_are_refused(cupy, rows):
    X, y = rows
    lazy = da.from_array(X, chunks=(10_000, -1))
    numpy_meta = lazy.map_blocks(cupy.asarray, dtype=X.dtype, meta=np.empty((0, 0)))
    cupy_meta = lazy.map_blocks(np.copy, dtype=X.dtype, meta=cupy.asarray(np.empty((0, 0))))
    for data, match in (
        (numpy_meta, r"rows of CuPy but declares NumPy.*meta=cupy\.empty"),
        (cupy_meta, r"rows of NumPy but declares CuPy.*meta=numpy\.empty"),
    ):
        with pytest.raises(InputError, match=match):
            fit(data, y)


def test_rows_on_another_device_are_refused(cupy, rows, monkeypatch):
    on_device = cupy.asarray(rows[0])
    monkeypatch.setattr(type(on_device), "device", type("GPU", (), {"id": 1}))
    with pytest.raises(InputError, match=r"are on GPU 1 and the fit runs on GPU 0: .*Device\(1\)"):
        fit(on_device, rows[1])


def test_rows_still_computed_on_another_stream_are_waited_for(cupy, rows):
    with cupy.cuda.Stream(non_blocking=True):
        on_device = cupy.asarray(rows[0]), cupy.asarray(rows[1])
    assert bits(fit(*on_device)) == bits(fit(*rows))


def test_a_plan_does_not_count_rows_that_are_on_the_device(cupy, rows):
    X, y = rows
    on_host, on_device = (
        plan(*data, device="cuda", solver="cg").candidates["cg"].device
        for data in ((X, y), (cupy.asarray(X), cupy.asarray(y)))
    )
    assert on_device.peak_nbytes < on_host.peak_nbytes - X.nbytes
    assert on_device.n_cached == on_host.n_cached
