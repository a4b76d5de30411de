"""Fits on a fake GPU, whose arrays reach the host only by explicit copies, and on a real one."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import zarr
from device_fits import bits, fit, set_gpu_partition

from streamreg import LinearRegression, plan
from streamreg.accumulators.gradient import Gradient
from streamreg.blocks import Block
from streamreg.errors import (
    ClusterError,
    DataWarning,
    InputError,
)
from streamreg.formatting import MIB
from streamreg.gpu import backend
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import GpuEngine
from streamreg.gpu.transfers import Transfers
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.open import open_dataset

SOLVERS = ["closed_form", "gd", "cg"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a segment have several blocks."""
    set_gpu_partition(monkeypatch, block_nbytes=4 * MIB, segment_nbytes=20 * MIB)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """40 MB: two segments of a few blocks."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((250_000, 20)) * rng.uniform(0.1, 10, 20) + 5
    y = 30 + X @ rng.standard_normal((20, 2)) + rng.standard_normal((250_000, 2))
    path = tmp_path_factory.mktemp("gpu") / "data.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=X, chunks=(40_000, 20))
    group.create_array("plain", data=X.astype("f4"), chunks=(100_000, 20), compressors=None)
    group.create_array("big", data=np.round(X).astype(">i4"), chunks=(40_000, 20))
    group.create_array("y", data=y, chunks=(30_000, 2))
    group.create_array("sample_weight", data=rng.integers(0, 3, 250_000), chunks=(250_000,))
    return path


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["X", "plain", "big", "in memory", "by columns", "weighted"])
def test_a_gpu_gives_the_answer_of_the_cpu(store, solver, kind):
    X, y = zarr.open_array(store / "X")[:], zarr.open_array(store / "y")[:]
    data = {
        "in memory": (X, y),
        "by columns": (np.asfortranarray(X), y[:, 0]),
        "weighted": (store,),
    }.get(kind, (store / kind, store / "y"))
    parameters = {"solver": solver, "max_epochs": 8, "tol": 0.0}
    on_host, on_device = (fit(*data, device=device, **parameters) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(on_device.coef_, on_host.coef_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(on_device.intercept_, on_host.intercept_, rtol=1e-9, atol=1e-9)
    assert on_device.n_iter_ == on_host.n_iter_


@pytest.mark.usefixtures("cupy")
def test_features_with_a_mean_of_a_billion_deviations_are_fitted(cupy):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 3)) + 1e9
    y = (X - 1e9).sum(axis=1)
    for solver in ("closed_form", "cg"):
        model = LinearRegression(device="cuda", solver=solver).fit(X, y)
        assert np.allclose(model.coef_, 1, atol=1e-6)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("solver", SOLVERS)
def test_threads_and_limits_change_no_bit(store, solver, monkeypatch):
    monkeypatch.setattr(gpu_kernels, "TILE_NBYTES", MIB)
    parameters = {"solver": solver, "max_epochs": 4, "tol": 0.0, "device": "cuda"}
    data = (store / "X", store / "y")
    expected = bits(fit(*data, n_threads=1, device_memory_limit="1 GiB", **parameters))
    for n_threads, limit in ((3, "1 GiB"), (2, "80 MiB"), (2, "105 MiB")):
        model = fit(*data, n_threads=n_threads, device_memory_limit=limit, **parameters)
        assert bits(model) == expected
    needs = plan(*data, device_memory_limit="80 MiB", **parameters).candidates[solver].device
    assert needs.buffer_nbytes < needs.pinned_nbytes  # blocks came in parts
    assert needs.peak_nbytes <= needs.limit_nbytes


def test_blocks_cached_on_the_device_are_read_once(cupy, store, monkeypatch):
    read = []
    before = BlockReader.read

    def noted(self, start, stop):
        read.append(start)
        return before(self, start, stop)

    monkeypatch.setattr(BlockReader, "read", noted)
    parameters = {"solver": "cg", "max_epochs": 4, "tol": 0.0, "device": "cuda"}
    fit(store / "X", store / "y", **parameters)
    assert len(read) == len(set(read)) > 1


def test_a_slot_is_not_filled_again_before_its_block_is_copied(cupy):
    gpu = Gpu()
    transfers = Transfers(gpu, 1, 4096, 4096)
    one, two = (
        Block(np.full((4, 8), value), np.full((4, 1), value), None, 0) for value in (1.0, 2.0)
    )
    cache = transfers.new_cache(one, 8, (None, None))
    for block, place in ((one, cache.rows(0, 4)), (two, cache.rows(4, 8))):
        list(transfers.send(*transfers.fill(lambda block=block: block), place))
    with transfers.reducing:
        assert cache.X.get()[:, 0].tolist() == [1.0] * 4 + [2.0] * 4
        assert cache.y.get()[:, 0].tolist() == [1.0] * 4 + [2.0] * 4


def test_cached_blocks_that_are_contiguous_are_reduced_at_once(cupy):
    X, y = np.ones((300_000, 8)), np.ones(300_000)
    X[70_000] = np.nan  # so that the second block has a row less
    X[-1] = np.nan
    joints = []

    class Noted(Gradient):
        def update(self, state, block, kernels):
            joints.append(block.joints)
            return super().update(state, block, kernels)

    needs = plan(X, y, device="cuda").candidates["cg"].device
    dataset = open_dataset(X, y, nan_policy="omit")
    engine = GpuEngine(dataset, 1, lambda _: None, Gpu(), needs, backend.GPU_PARTITION)
    n = engine.blocks.max_rows
    with engine:
        expected = engine.reduce(Noted(np.ones((8, 1)), np.ones(1), 1)).result
        assert joints == [()] * len(engine.blocks)
        again = engine.reduce(Noted(np.ones((8, 1)), np.ones(1), 1)).result
    assert joints[len(engine.blocks) :] == [(n,), (n, 2 * n)]
    np.testing.assert_array_equal(expected.gradient, again.gradient)


@pytest.mark.usefixtures("cupy")
def test_omitted_rows_are_counted_if_blocks_are_cached(store, tmp_path):
    X, y = zarr.open_array(store / "X")[:], zarr.open_array(store / "y")[:, 0]
    X[[5, 100_000]] = np.nan
    with pytest.warns(DataWarning, match="2 of 250,000 rows"):
        model = LinearRegression(device="cuda", nan_policy="omit", solver="cg").fit(X, y)
    on_host = LinearRegression(solver="closed_form").fit(
        *(np.delete(a, [5, 100_000], 0) for a in (X, y))
    )
    np.testing.assert_allclose(model.coef_, on_host.coef_, rtol=1e-6)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_are_named(store, solver, bad):
    X, y = zarr.open_array(store / "X")[:], zarr.open_array(store / "y")[:]
    X[200_000, 7] = bad
    with pytest.raises(InputError, match="in row 200,000, column 7"):
        LinearRegression(device="cuda", solver=solver).fit(X, y)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("solver", SOLVERS)
def test_an_interrupted_fit_resumes_to_the_same_bits(store, solver, tmp_path):
    class StopError(Exception):
        pass

    def stop(record):
        if record.epoch == 2:
            raise StopError

    parameters = {"solver": solver, "max_epochs": 4, "tol": 0.0, "device": "cuda"}
    expected = fit(store, **parameters)
    if solver != "closed_form":
        with pytest.raises(StopError):
            fit(store, progress=stop, checkpoint=tmp_path / "a", **parameters)
    assert bits(fit(store, checkpoint=tmp_path / "a", **parameters)) == bits(expected)


@pytest.mark.cluster
@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("solver", SOLVERS)
def test_workers_with_devices_give_the_bits_of_one_device(client_here, store, solver):
    parameters = {"solver": solver, "max_epochs": 4, "tol": 0.0, "device": "cuda"}
    parameters |= {"device_memory_limit": "1 GiB"}
    assert bits(fit(store, client=client_here, **parameters)) == bits(fit(store, **parameters))


@pytest.mark.cluster
@pytest.mark.usefixtures("cupy")
def test_workers_without_limit_or_cupy_are_refused(client_here, store, monkeypatch):
    with pytest.raises(InputError, match="with client needs device_memory_limit"):
        LinearRegression(client=client_here, device="cuda").fit(store)
    model = LinearRegression(client=client_here, device="cuda", device_memory_limit="1 GiB")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ClusterError, match=r"2 workers of 2 cannot .*needs CuPy"):
        model.fit(store)


@pytest.fixture(scope="session")
def real_cupy():
    if importlib.util.find_spec("cupy") is None:
        pytest.skip("CuPy is not installed")
    try:
        return Gpu().cupy
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.gpu
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["X", "plain", "big"])
def test_a_real_gpu_gives_the_answer_of_the_cpu(real_cupy, store, solver, kind):
    data = (store / kind, store / "y")
    parameters = {"solver": solver, "max_epochs": 8, "tol": 0.0}
    on_host, on_device, again = (
        fit(*data, device=device, **parameters) for device in ("cpu", "cuda", "cuda")
    )
    np.testing.assert_allclose(on_device.coef_, on_host.coef_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(on_device.intercept_, on_host.intercept_, rtol=1e-9, atol=1e-9)
    assert bits(on_device) == bits(again)
