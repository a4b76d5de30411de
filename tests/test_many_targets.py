"""Many targets: weights in the memory of XᵀY, batches of targets, weights in Zarr."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zarr
from sklearn.linear_model import Ridge

import streamreg
from streamreg import LinearRegression, LinearRegressionCV
from streamreg.accumulators.gram import Gram
from streamreg.blocks import Block
from streamreg.engines.blas import one_blas_thread
from streamreg.errors import InputError, MemoryLimitError
from streamreg.kernels.registry import load_kernels
from streamreg.output.stored_coefficients import StoredCoefficients
from streamreg.solvers.many_targets import has_many

# a grid of five penalties ends where some targets would go on
pytestmark = pytest.mark.filterwarnings("ignore:the best penalty")

N, D, K = 300, 256, 4_200
L2S = np.geomspace(0.1, 10, 5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D)) + 3
    y = X @ (rng.standard_normal((D, K)) * rng.uniform(0, 0.3, K)) + rng.standard_normal((N, K))
    return X.astype("f4"), y.astype("f4")


@pytest.fixture(scope="module")
def store(data, tmp_path_factory):
    """Targets with 80 MiB of XᵀY, so that they can be divided."""
    X, y = data
    group = zarr.open_group(tmp_path_factory.mktemp("data") / "data.zarr", mode="w")
    group.create_array("X", data=X[:100], chunks=(50, D), compressors=None)
    wide = np.tile(y[:100], (1, 10))
    group.create_array("y", data=wide, chunks=(50, 3_000), compressors=None)
    return str(group.store.root)


def exact(data, l2, targets=slice(0, 40)):
    X, y = (each.astype(float) for each in data)
    return Ridge(np.broadcast_to(l2, (40,)) * N, solver="cholesky").fit(X, y[:, targets])


def test_one_penalty_agrees_with_scikit_learn(data):
    assert has_many(D, K)
    model = LinearRegression(solver="closed_form", l2=0.1).fit(*data)
    expected = exact(data, 0.1)
    # rounding of sums of 300 terms, times the condition number
    np.testing.assert_allclose(model.coef_[:40], expected.coef_, rtol=0, atol=1e-11)
    np.testing.assert_allclose(model.intercept_[:40], expected.intercept_, rtol=0, atol=1e-9)
    assert model.converged_
    assert model.digits_ is None
    assert model.coef_.flags.c_contiguous


@pytest.mark.parametrize("cv", ["gcv", 3])
@pytest.mark.parametrize("per_target", [True, False])
def test_penalties_are_those_of_fits_of_few_targets(data, cv, per_target):
    X, y = data
    model = LinearRegressionCV(l2=L2S, cv=cv, l2_per_target=per_target)
    few = LinearRegressionCV(l2=L2S, cv=cv, l2_per_target=True).fit(X, y[:, :40])
    model.fit(X, y)
    np.testing.assert_allclose(model.cv_scores_[..., :40], few.cv_scores_, rtol=1e-9)
    l2 = model.l2_
    if per_target:
        np.testing.assert_array_equal(l2[:40], few.l2_)
        l2 = l2[:40]
    expected = exact(data, l2)
    np.testing.assert_allclose(model.coef_[:40], expected.coef_, rtol=0, atol=1e-11)
    np.testing.assert_allclose(model.intercept_[:40], expected.intercept_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [40, K])
def test_each_target_may_have_a_penalty(data, k):
    X, y = data
    l2 = np.geomspace(1e-2, 1, k)
    model = LinearRegression(l2=l2).fit(X, y[:, :k])
    expected = exact(data, l2[:40])
    np.testing.assert_allclose(model.coef_[:40], expected.coef_, rtol=0, atol=1e-11)


def test_another_number_of_penalties_is_refused(data):
    X, y = data
    with pytest.raises(InputError, match="has 2 penalties, and y has 3 targets"):
        LinearRegression(l2=[1.0, 2.0]).fit(X, y[:, :3])
    with pytest.raises(InputError, match="y is \\(N,\\): pass one number"):
        LinearRegression(l2=[1.0]).fit(X, y[:, 0])
    with pytest.raises(InputError, match="does not take"):
        LinearRegression(l2=[1.0, 2.0], solver="cg").fit(X, y[:, :2])


@pytest.mark.parametrize("make", [LinearRegression, LinearRegressionCV])
def test_batches_give_the_bits_of_one_pass(store, tmp_path, make):
    more = {} if make is LinearRegression else {"l2": L2S, "l2_per_target": True}
    if make is LinearRegression:
        more = {"l2": 0.1, "solver": "closed_form"}
    found = []
    for limit in ("1 GiB", "210 MiB"):
        out = tmp_path / limit.replace(" ", "")
        model = make(memory_limit=limit, coef_out=out, **more).fit(store)
        assert isinstance(model.coef_, StoredCoefficients)
        assert model.peak_memory_ <= model.planned_peak_
        found.append((model.plan_.candidates["closed_form"], model.coef_[:9_000], model.intercept_))
    assert [candidate.passes for candidate, _, _ in found] == [1, 2]
    for one, other in zip(found[0][1:], found[1][1:], strict=True):
        np.testing.assert_array_equal(one, other)
    # half of y, with a chunk that both batches need
    assert found[1][0].bytes_per_pass < 0.65 * found[0][0].bytes_per_pass


def test_weights_in_zarr_are_those_in_memory(data, tmp_path):
    X, y = data[0], data[1][:, :30]
    for solver in ("closed_form", "cg"):
        model = LinearRegression(solver=solver, coef_out=tmp_path / solver).fit(X, y)
        plain = LinearRegression(solver=solver).fit(X, y)
        np.testing.assert_array_equal(np.asarray(model.coef_), plain.coef_)
        np.testing.assert_array_equal(model.predict(X), plain.predict(X))


def test_an_existing_path_is_kept(data, tmp_path):
    X, y = data[0], data[1][:, :3]
    (tmp_path / "w.zarr").mkdir()
    with pytest.raises(InputError, match="exists; choose another name"):
        LinearRegression(coef_out=tmp_path / "w.zarr").fit(X, y)
    with pytest.raises(InputError, match="several targets"):
        LinearRegression(coef_out=tmp_path / "v.zarr").fit(X, y[:, 0])


def test_a_fit_that_fails_leaves_no_weights(data, tmp_path):
    X, y = data[0].copy(), data[1][:, :3]
    X[7, 3] = np.nan
    with pytest.raises(InputError, match="NaN"):
        LinearRegression(coef_out=tmp_path / "w.zarr").fit(X, y)
    assert not list(tmp_path.iterdir())


def test_the_full_encoding_case_is_planned_from_metadata(tmp_path):
    group = zarr.open_group(tmp_path / "data.zarr", mode="w")
    group.create_array("X", shape=(23_000, 8_192), chunks=(1_000, 8_192), dtype="f4")
    group.create_array("y", shape=(23_000, 94_251), chunks=(1_000, 4_000), dtype="f4")
    path = str(tmp_path / "data.zarr")
    more = {"cv": "gcv", "l2": np.geomspace(1e-4, 1e2, 20), "l2_per_target": True}
    for limit, passes in (("12 GiB", 1), ("4 GiB", 3)):
        plan = streamreg.plan(path, memory_limit=limit, coef_out=tmp_path / "w.zarr", **more)
        candidate = plan.candidates["closed_form"]
        assert candidate.fits
        assert candidate.passes == passes
    with pytest.raises(MemoryLimitError, match=r"by coef_out=.w\.zarr.: .*, 3 passes"):
        LinearRegressionCV(memory_limit="4 GiB", **more).fit(path)


def test_an_update_makes_no_second_array_of_xty():
    rng = np.random.default_rng(0)
    n, d, k = 100, 300, 4_000
    X, y = rng.standard_normal((n, d), dtype="f4"), np.ones((n, k), "i1")
    y[::2] = 0
    gram = Gram(d, k)
    state, block = gram.zero(), Block(X, y, None, 0)
    tracemalloc.start()
    try:
        with one_blas_thread():
            gram.update(state, block, load_kernels("numpy").for_block(block))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < state.cross.nbytes / 2
