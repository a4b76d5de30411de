"""When states are copied from a fake GPU to the host."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from device_fits import bits, fit, set_gpu_partition

from streamreg import plan
from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.accumulators.moments import Moments
from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.gpu import backend, memory_model
from streamreg.gpu import kernels as gpu_kernels
from streamreg.gpu.device import Gpu
from streamreg.gpu.engine import GpuEngine
from streamreg.sources.open import open_dataset

SOLVERS = ["closed_form", "gd", "cg"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Let a pass have two segments of several blocks."""
    set_gpu_partition(monkeypatch, block_nbytes=MIB, segment_nbytes=4 * MIB)


@pytest.fixture
def large_states(monkeypatch):
    """Let all states count as large."""
    set_gpu_partition(monkeypatch, block_nbytes=MIB, segment_nbytes=4 * MIB, large_state_nbytes=100)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60_000, 20)) * rng.uniform(0.1, 10, 20) + 5
    return X, 30 + X @ rng.standard_normal((20, 2)) + rng.standard_normal((60_000, 2))


@pytest.fixture
def passes(cupy, monkeypatch):
    """Return a list that gets the numbers of copies to the host and of waits of each pass."""
    reduce, seen = GpuEngine.reduce, []

    def counted(*given):
        before = cupy.n_copies, cupy.n_waits
        result = reduce(*given)
        seen.append((cupy.n_copies - before[0], cupy.n_waits - before[1]))
        return result

    monkeypatch.setattr(GpuEngine, "reduce", counted)
    return seen


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("n_threads", [1, 3])
def test_a_pass_copies_to_the_host_once_a_segment_and_waits_no_more_often(
    cupy, rows, passes, solver, where, n_threads
):
    data = map(cupy.asarray, rows) if where == "device" else rows
    fit(*data, solver=solver, n_threads=n_threads)
    assert set(passes) == {(2, 2)}


@pytest.mark.parametrize("solver", SOLVERS)
def test_large_states_are_merged_on_the_device_to_the_same_bits(
    rows, passes, solver, tmp_path, request
):
    expected = bits(fit(*rows, solver=solver))
    request.getfixturevalue("large_states")
    passes.clear()
    assert bits(fit(*rows, solver=solver)) == expected
    assert {copies for copies, _ in passes} == {1}
    passes.clear()
    # a checkpoint copies each to the host
    assert bits(fit(*rows, solver=solver, checkpoint=tmp_path / "a")) == expected
    assert {copies for copies, _ in passes} == {2}


@pytest.mark.usefixtures("cupy", "large_states")
def test_nan_in_a_large_state_is_named(rows):
    X = rows[0].copy()
    X[50_007, 3] = np.nan
    with pytest.raises(InputError, match="in row 50,007, column 3"):
        fit(X, rows[1], solver="closed_form")


@pytest.mark.usefixtures("cupy", "large_states")
@pytest.mark.parametrize(
    "accumulator", [Moments(20, 2), Gram(20, 2), Gradient(np.ones((20, 2)), np.ones(2), 2)]
)
def test_a_pass_with_a_large_state_resumes_after_a_segment(rows, accumulator):
    needs = plan(*rows, device="cuda").candidates["gd"].device
    seen = []
    with GpuEngine(
        open_dataset(*rows), 2, lambda _: None, Gpu(), needs, backend.GPU_PARTITION
    ) as engine:
        expected = engine.reduce(accumulator, None, lambda partial: seen.append(deepcopy(partial)))
        again = engine.reduce(accumulator, seen[0])
    assert len(seen) == 2
    assert expected[1:] == again[1:]
    for one, other in zip(expected.result, again.result, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("cupy")
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("d", [20, 400])
@pytest.mark.parametrize("are_large", [False, True])
def test_a_fit_takes_no_more_device_memory_than_planned(monkeypatch, solver, d, are_large, request):
    if are_large:
        request.getfixturevalue("large_states")
    # the fake cuBLAS has no workspace, and default tiles would be larger than the data
    monkeypatch.setattr(memory_model, "_WORKSPACE_NBYTES", 0)
    monkeypatch.setattr(gpu_kernels, "TILE_NBYTES", MIB // 2)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((2_000_000 // d, d)), rng.standard_normal((2_000_000 // d, 2))
    settings = {"solver": solver, "device": "cuda"}
    refused = plan(*data, device_memory_limit="64 KiB", **settings).candidates[solver].device
    assert not refused.fits
    for limit in (refused.peak_nbytes, 2 * refused.peak_nbytes):
        needs = plan(*data, device_memory_limit=limit, **settings).candidates[solver].device
        assert needs.fits
        assert needs.peak_nbytes <= limit
        fit(*data, device_memory_limit=limit, solver=solver)
