"""Targets that are stored as sparse rows: counts of many genes on few covariates."""

from __future__ import annotations

import tracemalloc

import h5py
import numpy as np
import pytest
import scipy.sparse
import zarr
from csr_stores import N, in_hdf5, in_zarr, matrix
from programs import run

from streamreg import LinearRegression, LinearRegressionCV, Statistics, load
from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources.column_range import column_range
from streamreg.sources.kinds import open_source
from streamreg.sources.open import open_dataset

K = 12
STORES = {
    "scipy": lambda _, Y: Y,
    "matrix": lambda _, Y: scipy.sparse.csr_matrix(Y),
    "zarr 2": lambda folder, Y: in_zarr(folder / "y.zarr", Y, 2),
    "zarr 3": lambda folder, Y: in_zarr(folder / "y.zarr", Y, 3),
    "hdf5": lambda folder, Y: in_hdf5(folder / "y.h5ad", Y),
}


def counts():
    return matrix(5, d=K)


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.parametrize("solver", ["closed_form", "cg", "gd", "qr"])
@pytest.mark.parametrize("is_sparse", [True, False], ids=["sparse X", "dense X"])
def test_a_fit_of_sparse_targets_is_bitwise_that_of_dense_ones(tmp_path, kind, solver, is_sparse):
    X = matrix() if is_sparse else matrix().toarray()
    dense = counts().toarray().astype(float)
    y = STORES[kind](tmp_path, counts())
    ours, expected = (
        LinearRegression(solver=solver, l2=0.1, max_epochs=20, tol=1e-3).fit(X, each)
        for each in (y, dense)
    )
    assert ours.coef_.tobytes() == expected.coef_.tobytes()
    assert ours.intercept_.tobytes() == expected.intercept_.tobytes()
    assert ours.score(X, y) == expected.score(X, dense)


def test_weights_threads_and_limits_change_no_bit():
    X, y = matrix().toarray(), counts()
    s = np.random.default_rng(2).integers(0, 3, N)
    fits = [
        LinearRegression(solver="closed_form", **how).fit(X, each, s)
        for each, how in (
            (y.toarray().astype(float), {}),
            (y, {"n_threads": 1}),
            (y, {"n_threads": 3, "memory_limit": "32 MiB"}),
        )
    ]
    assert len({fit.coef_.tobytes() for fit in fits}) == 1


def test_penalties_and_statistics_take_sparse_targets():
    X, y = matrix().toarray(), counts()
    dense = y.toarray().astype(float)
    found = [LinearRegressionCV(l2=[0.1, 10.0, 1e4], cv=4).fit(X, each) for each in (y, dense)]
    assert found[0].coef_.tobytes() == found[1].coef_.tobytes()
    found = [LinearRegression().fit(Statistics.of(X, each)) for each in (y, dense)]
    assert found[0].coef_.tobytes() == found[1].coef_.tobytes()


@pytest.mark.parametrize("kind", ["scipy", "zarr 3", "hdf5"])
def test_any_rows_and_columns_are_read(tmp_path, kind):
    y = counts()
    # values of one column add up
    y.indices[1] = y.indices[0]
    source = open_source(STORES[kind](tmp_path, y), "y")
    for start, stop in ((0, K), (3, 4), (2, 9)):
        part = column_range(source, start, stop)
        reader = part.open()
        for low, high in ((0, N), (1, 2), (17, 300)):
            expected = y.astype(float).toarray()[low:high, start:stop]
            np.testing.assert_array_equal(reader.read(low, high), expected)
        reader.close()


def test_a_reader_holds_no_more_than_planned():
    n, k = 60_000, 400
    y = scipy.sparse.random_array((n, k), density=0.02, rng=np.random.default_rng(0), format="csr")
    source = column_range(open_source(y, "y"), 10, 390)
    reader = source.open()
    tracemalloc.start()
    for start in range(0, n, 1000):
        reader.read(start, start + 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    planned = source.reader_nbytes(1000)
    assert peak <= planned
    # a pass reads the stored values
    assert source.pass_nbytes == y.data.nbytes + y.indices.nbytes + y.indptr.nbytes


def test_names_of_columns_are_names_of_targets(tmp_path):
    dataset = open_dataset(matrix(), in_hdf5(tmp_path / "y.h5ad", counts()))
    assert dataset.target_names == tuple(f"g{j}" for j in range(K))


def test_a_column_beyond_the_last_is_named(tmp_path):
    path = in_zarr(tmp_path / "y.zarr", counts())
    zarr.open_group(path)["indices"][300] = K
    with pytest.raises(DataCorruptionError, match=rf"y.zarr/X has a value in column {K} of row"):
        LinearRegression(solver="closed_form").fit(matrix(), path)


def test_a_value_that_is_not_finite_is_named_by_row_and_column():
    y = counts()
    y.data[100] = np.inf
    row = int(np.searchsorted(y.indptr, 100, side="right")) - 1
    with pytest.raises(InputError, match=f"y has inf in row {row}, column {y.indices[100]}"):
        LinearRegression().fit(matrix(), y)


def test_the_command_line_fits_and_scores_a_layer_on_a_matrix(tmp_path):
    in_hdf5(tmp_path / "a.h5ad", matrix())
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        layer = file.create_group("layers/counts")
        layer.attrs.update({"encoding-type": "csr_matrix", "shape": [N, K]})
        for name in ("data", "indices", "indptr"):
            layer[name] = getattr(counts(), name)
    data = "--x", "a.h5ad/X", "--y", "a.h5ad/layers/counts"
    done = run("fit", *data, "--l2", "0.1", "--out", "m.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = LinearRegression(l2=0.1).fit(matrix(), counts().toarray().astype(float))
    np.testing.assert_array_equal(load(tmp_path / "m.json").coef_, expected.coef_)
    done = run("score", *data, "--model", "m.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_sparse_weights_are_refused_with_a_conversion_that_works():
    X, y, s = matrix(), np.arange(N, dtype=float), scipy.sparse.csr_array(np.ones((N, 1)))
    with pytest.raises(InputError, match=r"only X and y may be; pass sample_weight.toarray\(\)"):
        LinearRegression().fit(X, y, s)
    LinearRegression().fit(X, y, s.toarray().ravel())
