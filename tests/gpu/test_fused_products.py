"""The compiled kernels of a GPU, run by threads of the host: no partition changes their bits."""

from __future__ import annotations

import shutil
from dataclasses import replace

import dask.array as da
import numpy as np
import pytest
import reference
from device_fits import set_gpu_partition
from sklearn.exceptions import ConvergenceWarning

from streamreg import LinearRegression, plan
from streamreg.accumulators.gradient import Gradient
from streamreg.blocks import Block
from streamreg.gpu import backend, fused_products, launch
from streamreg.gpu.device import DeviceState
from streamreg.gpu.engine import GpuEngine
from streamreg.kernels.base import Affine
from streamreg.kernels.states import ProductState
from streamreg.sources.open import open_dataset

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to compile for the host"),
    pytest.mark.slow,
]
# sums of some tens of terms, added in another order
ROUNDING = 1e-12


def reduced(gpu, X, y, weight, V, bias, bounds):
    """Return the state of rows that are reduced in several blocks."""
    stream = gpu.cupy.cuda.Stream(non_blocking=True)
    loops = gpu.kernels()
    with stream:
        zero = ProductState.zero(X.shape[1], y.shape[1], V.shape[1])
        on_device = DeviceState(gpu, zero, stream)
        for first, stop in zip((0, *bounds), (*bounds, len(X)), strict=True):
            part = [gpu.cupy.asarray(a[first:stop]) for a in (X, y)]
            s = None if weight is None else gpu.cupy.asarray(weight[first:stop])
            loops.kernels.find("products")(
                Block(*part, s, first),
                on_device.state,
                coefficients=np.asfortranarray(V),
                bias=bias,
            )
        loops.finish()
        return on_device.send(gpu.cupy.cuda.Stream(non_blocking=True))()


@pytest.mark.parametrize(
    ("dtype", "n_columns", "weighted"),
    [("f4", 1, True), ("f4", 2, False), ("f8", 1, False), ("f8", 2, True)],
)
@pytest.mark.parametrize("d", [8, 50, 100, 300])
def test_sums_equal_the_reference_and_no_partition_changes_them(gpu, d, dtype, n_columns, weighted):
    rng = np.random.default_rng(0)
    n = 29
    X, y = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((n, 1))
    weight = rng.uniform(0.1, 2, n) if weighted else None
    V, bias = rng.standard_normal((d, n_columns)), rng.standard_normal(n_columns)
    whole = reduced(gpu, X, y, weight, V, bias, ())
    expected = reference.products(
        X.astype(float), y, np.ones(n) if weight is None else weight, V, bias
    )
    for name, value in expected.items():
        size = np.max(np.abs(value), initial=1.0)
        np.testing.assert_allclose(
            getattr(whole, name), value, rtol=ROUNDING, atol=ROUNDING * size, err_msg=name
        )
    in_parts = reduced(gpu, X, y, weight, V, bias, (1, 6, 7, 20))
    for name in ("n", "s", "sums", "rr", "products"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(in_parts, name), err_msg=name)


@pytest.mark.parametrize(("d", "n_columns"), [(1024, 2), (4096, 1)])
def test_the_threads_of_a_block_share_each_wide_row(gpu, d, n_columns):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((5, d)).astype("f4"), rng.standard_normal((5, 1))
    V, bias = rng.standard_normal((d, n_columns)), rng.standard_normal(n_columns)
    (way, _) = launch.launches_for(launch.Shape(d, n_columns, 1))
    assert isinstance(way, launch.NarrowRows)
    assert way.threads_per_block <= 512
    assert way.threads_per_block * way.columns_per_thread >= d
    state = reduced(gpu, X, y, None, V, bias, (2,))
    expected = reference.products(X.astype(float), y, np.ones(5), V, bias)
    for name in ("products", "sums", "rr"):
        np.testing.assert_allclose(getattr(state, name), expected[name], rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(
    ("d", "k", "n_columns", "dtype", "weighted"),
    [
        (1030, 4, 8, "f8", False), (1100, 2, 4, "f4", False), (4200, 1, 2, "f8", True),
    ],
)  # fmt: skip
def test_sums_of_wide_rows_equal_the_reference(gpu, d, k, n_columns, dtype, weighted):
    rng = np.random.default_rng(0)
    n = 15
    X, y = rng.standard_normal((n, d)).astype(dtype), rng.standard_normal((n, k))
    weight = rng.uniform(0.1, 2, n) if weighted else None
    V, bias = rng.standard_normal((d, n_columns)), rng.standard_normal(n_columns)
    assert isinstance(launch.launches_for(launch.Shape(d, n_columns, k))[0], launch.WideRows)
    whole = reduced(gpu, X, y, weight, V, bias, ())
    counts = np.ones(n) if weight is None else weight
    expected = reference.products(X.astype(float), y, counts, V, bias)
    for name, value in expected.items():
        size = np.max(np.abs(value), initial=1.0)
        np.testing.assert_allclose(
            getattr(whole, name), value, rtol=1e-11, atol=ROUNDING * size, err_msg=name
        )
    in_parts = reduced(gpu, X, y, weight, V, bias, (1, 6, 7))
    for name in ("n", "s", "sums", "rr", "products"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(in_parts, name), err_msg=name)


def test_the_wide_kernel_runs_if_the_narrow_one_needs_more_shared_memory_than_every_gpu_has():
    assert launch.NarrowRows(launch.Shape(4096, 2, 1)).shared_nbytes > 48 << 10
    for n_columns, way in ((1, launch.NarrowRows), (2, launch.WideRows)):
        assert isinstance(launch.launches_for(launch.Shape(4096, n_columns, 1))[0], way)


def test_a_large_constant_part_of_y_costs_no_digits(gpu):
    rng = np.random.default_rng(0)
    X, noise = rng.standard_normal((40, 40)), rng.standard_normal((40, 1))
    # sums of powers of two: y and b are exact
    y, bias = np.round(noise * 1024) / 1024 + 2.0**40, np.array([2.0**40])
    state = reduced(gpu, X, y, None, np.zeros((40, 1)), bias, ())
    r = bias - y
    np.testing.assert_allclose(state.products, r.T @ X, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize(
    ("shape", "n_columns", "n_targets", "is_served"),
    [
        ((10, 7), 1, 1, False), ((10, 8), 2, 1, True), ((10, 4096), 2, 1, True),
        ((10, 4097), 1, 1, True), ((10, 64), 4, 2, False), ((10, 1024), 16, 8, False),
    ],
)  # fmt: skip
def test_kernels_serve_only_their_shapes(shape, n_columns, n_targets, is_served):
    block = Block(np.ones(shape), np.ones((10, n_targets)), None, 0)
    state = ProductState.zero(shape[1], n_targets, n_columns)
    products = fused_products.FusedProducts(None, None)
    assert products.serves(block, state, Affine()) == is_served
    assert not products.serves(block, state, Affine(shift=np.ones(shape[1])))


def test_fits_give_the_same_bits_on_host_device_chunks_and_workers(gpu, client_here, monkeypatch):
    set_gpu_partition(monkeypatch, block_nbytes=16 << 10, segment_nbytes=64 << 10)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((400, 40))
    y = X @ rng.standard_normal(40) + rng.standard_normal(400)

    def fitted(X, y, **settings):
        # two epochs are too few to converge, but more would be slow on the host
        with pytest.warns(ConvergenceWarning):
            model = LinearRegression(solver="cg", max_epochs=2, tol=0.0, **settings).fit(X, y)
        return model.coef_.tobytes(), model

    on_gpu = {"device": "cuda", "device_memory_limit": "400 MiB"}
    on_host, _ = fitted(X, y, **on_gpu)
    on_device, model = fitted(gpu.cupy.asarray(X), gpu.cupy.asarray(y), **on_gpu)
    assert on_host == on_device
    _, plain = fitted(X, y)
    np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9, atol=1e-9)
    chunks = da.from_array(X, chunks=(48, -1)), da.from_array(y, chunks=60)
    expected, _ = fitted(*chunks, n_threads=1, **on_gpu)
    assert fitted(*chunks, n_threads=3, **on_gpu)[0] == expected
    assert fitted(*chunks, client=client_here, **on_gpu)[0] == expected


def test_weighted_sums_are_the_same_with_and_without_cached_blocks(gpu, monkeypatch):
    set_gpu_partition(monkeypatch, block_nbytes=8 << 10, segment_nbytes=32 << 10)
    rng = np.random.default_rng(0)
    X, y, weight = rng.standard_normal((400, 20)), rng.standard_normal(400), rng.uniform(0, 1, 400)
    dataset = open_dataset(X, y, weight)
    needs = plan(X, y, weight, device="cuda").candidates["gd"].device
    gradient = Gradient(rng.standard_normal((20, 2)), np.ones(2), 1)
    found = []
    for n_cached in (0, 3, needs.n_cached):
        engine = GpuEngine(
            dataset,
            1,
            lambda _: None,
            gpu,
            replace(needs, n_cached=n_cached),
            backend.GPU_PARTITION,
        )
        with engine:
            found += [engine.reduce(gradient).result for _ in range(2)]
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, same)
