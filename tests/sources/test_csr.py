"""Sparse rows of SciPy, and of AnnData's groups in Zarr and HDF5."""

from __future__ import annotations

import itertools
import re
import warnings
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import scipy.sparse
import sklearn.linear_model
import statsmodels.api as sm
import zarr
from csr_stores import D, N, in_hdf5, in_zarr, matrix, targets
from programs import run
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold

from streamreg import LinearRegression, LinearRegressionCV, Statistics, load, plan
from streamreg.blocks import SPARSE_BLOCK_VALUES
from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources.kinds import open_source


@pytest.mark.parametrize("kind", ["scipy", "matrix", "zarr 2", "zarr 3", "hdf5"])
def test_a_fit_of_sparse_rows_is_that_of_dense_rows(tmp_path, kind):
    X = matrix()
    y = targets(X)
    data = {
        "scipy": lambda: X,
        "matrix": lambda: scipy.sparse.csr_matrix(X),
        "zarr 2": lambda: in_zarr(tmp_path / "a.zarr", X, 2),
        "zarr 3": lambda: in_zarr(tmp_path / "a.zarr", X, 3),
        "hdf5": lambda: in_hdf5(tmp_path / "a.h5ad", X),
    }[kind]()
    # of a sum, not of a mean
    expected = Ridge(alpha=0.01 * N).fit(X.toarray().astype(float), y)
    for solver in ("cg", "gd", "closed_form", "qr"):
        tol = 1e-15 if solver == "gd" else 1e-12
        model = LinearRegression(solver=solver, l2=0.01, tol=tol, max_epochs=5000).fit(data, y)
        # gradient descent stops when the loss hardly falls, with half the digits of the weights
        digits = 1e-6 if solver == "gd" else 1e-9
        np.testing.assert_allclose(model.coef_, expected.coef_, atol=digits)
        np.testing.assert_allclose(model.intercept_, expected.intercept_, atol=digits)
        predicted = expected.predict(X.toarray())
        np.testing.assert_allclose(model.predict(data), predicted, atol=10 * digits)
        assert model.score(data, y) == pytest.approx(expected.score(X.toarray(), y), abs=1e-6)


def test_paths_inside_an_hdf5_file_are_read_with_the_names_of_columns(tmp_path):
    path = in_hdf5(tmp_path / "a.h5ad", matrix())
    model = LinearRegression(solver="cg").fit(path, f"{tmp_path}/a.h5ad/obs/age")
    assert list(model.feature_names_in_) == [f"g{j}" for j in range(D)]


def test_a_data_set_may_have_sparse_rows(tmp_path):
    in_zarr(tmp_path / "a.zarr", matrix())
    model = LinearRegression(solver="cg").fit(f"{tmp_path}/a.zarr")
    assert model.score(f"{tmp_path}/a.zarr") > 0


def test_weights_and_threads(tmp_path):
    X = matrix(n=3000)
    X.data[:] = 1.0
    y, s = targets(X), np.random.default_rng(2).integers(0, 3, 3000)
    dense = LinearRegression(solver="closed_form").fit(X.toarray(), y, s)
    one, two = (LinearRegression(solver="cg", n_threads=n, tol=1e-13).fit(X, y, s) for n in (1, 2))
    np.testing.assert_allclose(one.coef_, dense.coef_, rtol=1e-9)
    assert one.coef_.tobytes() == two.coef_.tobytes()


def test_blocks_have_about_equal_numbers_of_values():
    lengths = np.concatenate([np.full(30_000, 10), [400_000], np.zeros(100_000, int)])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.zeros(bounds[-1], np.int32)
    X = scipy.sparse.csr_array(
        (np.ones(bounds[-1], np.float32), indices, bounds), shape=(len(lengths), 2)
    )
    source = open_source(X, "X")
    rows, values = source.layout.block_rows, np.diff(source.layout.block_values)
    assert rows[0] == 0
    assert rows[-1] == len(lengths)
    # a row is not divided
    assert (
        sorted(values)[-2] <= SPARSE_BLOCK_VALUES < source.layout.longest == max(values) == 400_000
    )
    assert max(np.diff(rows)) <= 1 << 16
    assert source.pass_nbytes == X.data.nbytes + X.indices.nbytes + X.indptr.nbytes


def test_a_value_that_is_not_finite_is_named_by_row_and_column():
    X = matrix()
    X.data[100] = np.nan
    row = int(np.searchsorted(X.indptr, 100, side="right")) - 1
    y = targets(matrix())
    with pytest.raises(InputError, match=f"NaN in row {row}, column {X.indices[100]}"):
        LinearRegression(solver="cg").fit(X, y)
    model = LinearRegression(solver="cg", nan_policy="omit", tol=1e-12)
    with pytest.warns(match="1 of 400 rows holds NaN"):
        model.fit(X, y)
    kept = np.arange(N) != row
    expected = LinearRegression(solver="closed_form").fit(X.toarray()[kept], y[kept])
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-9)


CONVERSION = re.compile(r"(scipy\.sparse\.load_npz\(PATH\)|adata\.X|[Xy])\.to(csr|array)\(\)")


def converted(refused, **names):
    """Return what the conversion gives that the message of a refusal names."""
    expression = CONVERSION.search(str(refused.value))[0]
    return eval(expression, {"scipy": scipy, **names})  # noqa: S307  (text of our own messages)


@pytest.mark.parametrize("kind", ["csc", "coo", "lil"])
def test_other_formats_are_refused_with_a_conversion_that_works(kind):
    X = matrix()
    y, other = targets(X), X.asformat(kind)
    with pytest.raises(InputError, match=f"X is sparse in {kind} format") as refused:
        LinearRegression().fit(other, y)
    model = LinearRegression().fit(converted(refused, X=other), y)
    np.testing.assert_array_equal(model.coef_, LinearRegression().fit(X, y).coef_)


def test_a_group_in_csc_format_is_refused_with_a_conversion_that_works(tmp_path):
    X = matrix()
    y = targets(X)
    path = in_zarr(tmp_path / "a.zarr", X.tocsc(), encoding="csc_matrix")
    with pytest.raises(InputError, match="CSC format") as refused:
        LinearRegression().fit(path, y)
    adata = SimpleNamespace(X=X.tocsc())
    X_again = converted(refused, adata=adata)
    model = LinearRegression().fit(in_zarr(tmp_path / "b.zarr", X_again), y)
    np.testing.assert_array_equal(model.coef_, LinearRegression().fit(X, y).coef_)


@pytest.mark.parametrize("opens", [str, np.load])
@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_npz_files_of_sparse_arrays_are_refused_with_a_conversion_that_works(tmp_path, kind, opens):
    X = matrix()
    y, path = targets(X), tmp_path / "X.npz"
    scipy.sparse.save_npz(path, X.asformat(kind))
    opened = opens(path)
    with pytest.raises(InputError, match=r"\.npz") as refused:
        LinearRegression().fit(opened, y)
    if opens is np.load:
        opened.close()
    data = converted(refused, PATH=path)
    model = LinearRegression().fit(data, y)
    np.testing.assert_array_equal(model.coef_, LinearRegression().fit(X, y).coef_)


def test_targets_of_other_formats_are_refused_with_a_conversion_that_works():
    X, y = matrix(), matrix(5, d=4)
    with pytest.raises(InputError, match="y is sparse in csc format") as refused:
        LinearRegression().fit(X, y.tocsc())
    model = LinearRegression().fit(X, converted(refused, y=y.tocsc()))
    np.testing.assert_array_equal(model.coef_, LinearRegression().fit(X, y.toarray()).coef_)


def test_the_solver_of_dense_rows_only_is_refused():
    X = matrix()
    with pytest.raises(InputError, match="X is sparse"):
        LinearRegression(solver="dual", l2=1.0).fit(X, targets(X))


@pytest.mark.parametrize("solver", ["closed_form", "qr"])
@pytest.mark.parametrize("cov_type", ["nonrobust", "HC3"])
def test_standard_errors_of_sparse_rows_are_those_of_statsmodels(solver, cov_type):
    X = matrix()
    y = targets(X)
    expected = sm.OLS(y, sm.add_constant(X.toarray())).fit(cov_type=cov_type)
    model = LinearRegression(solver=solver, cov_type=cov_type).fit(X, y)
    np.testing.assert_allclose(model.bse_, expected.bse, rtol=1e-9)
    np.testing.assert_allclose(model.rsquared_, expected.rsquared, rtol=1e-9)


@pytest.mark.parametrize("is_sorted", [True, False])
def test_errors_clustered_by_groups_of_sparse_rows(is_sorted):
    X = matrix()
    y, groups = targets(X), np.random.default_rng(3).integers(0, 40, N)
    groups = np.sort(groups) if is_sorted else groups
    expected = sm.OLS(y, sm.add_constant(X.toarray())).fit(
        cov_type="cluster", cov_kwds={"groups": groups}
    )
    model = LinearRegression(cov_type="cluster").fit(X, y, groups=groups)
    np.testing.assert_allclose(model.bse_, expected.bse, rtol=1e-9)


def test_chosen_standard_errors_of_sparse_rows():
    X = matrix()
    y = targets(X)
    expected = sm.OLS(y, sm.add_constant(X.toarray())).fit(cov_type="HC1")
    how = {"solver": "cg", "cov_type": "HC1", "inference_for": [0, 7], "tol": 1e-12}
    model = LinearRegression(**how).fit(X, y)
    np.testing.assert_allclose(model.bse_[[0, 1, 8]], expected.bse[[0, 1, 8]], rtol=1e-8)


@pytest.mark.parametrize("cv", [5, "gcv", GroupKFold(3)])
def test_penalties_are_chosen_for_sparse_rows_as_for_dense_ones(cv):
    X = matrix()
    y, groups = targets(X), None if isinstance(cv, int | str) else np.arange(N) % 7
    ours, dense = (
        LinearRegressionCV(l2=[1e-8, 1e-3, 1.0], cv=cv).fit(rows, y, groups=groups)
        for rows in (X, X.toarray())
    )
    assert ours.l2_ == dense.l2_
    np.testing.assert_allclose(ours.cv_scores_, dense.cv_scores_, rtol=1e-10)
    np.testing.assert_allclose(ours.coef_, dense.coef_, rtol=1e-10)


@pytest.mark.parametrize("kind", ["gram", "qr"])
def test_statistics_of_sparse_rows(kind):
    X = matrix()
    y = targets(X)
    first, second = (
        Statistics.of(X[part], y[part], kind=kind) for part in (np.s_[:150], np.s_[150:])
    )
    expected = Ridge(alpha=0.01 * N).fit(X.toarray().astype(float), y)
    model = LinearRegression(l2=0.01).fit(first.merge(second))
    np.testing.assert_allclose(model.coef_, expected.coef_, atol=1e-10)


def test_a_plan_counts_stored_values():
    X = matrix(n=2000, d=5000)
    planned = plan(X, targets(X))
    assert set(planned.candidates) == {"closed_form", "qr", "gd", "cg"}
    nbytes = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes + 8 * 2000
    assert planned.candidates["cg"].bytes_per_pass == nbytes


@pytest.mark.parametrize(
    ("solver", "digits"), [("cg", 1e-11), ("gd", 1e-7), ("closed_form", 1e-11)]
)
def test_a_column_in_every_row_keeps_its_digits_whatever_its_mean_is(solver, digits):
    rng = np.random.default_rng(0)
    X = matrix().toarray().astype(float)
    X[:, 3] = 1e8 + rng.standard_normal(N)
    y = X[:, :5] @ [1, 2, 3, 4, 5] - 4e8 + rng.standard_normal(N)
    expected = np.linalg.lstsq(X - X.mean(axis=0), y - y.mean(), rcond=None)[0]
    model = LinearRegression(solver=solver, tol=1e-12 if solver == "cg" else 1e-15, max_epochs=2000)
    model.fit(scipy.sparse.csr_array(X), y)
    np.testing.assert_allclose(model.coef_, expected, atol=digits)


@pytest.mark.parametrize("solver", ["cg", "closed_form", "qr"])
def test_rows_may_be_unsorted_repeat_columns_and_be_empty(solver):
    X = matrix()
    rng = np.random.default_rng(3)
    y = targets(X)
    # each value in two parts, in any order; rows 5 and 6 and column 7 without values
    order = np.concatenate(
        [rng.permutation(np.repeat(np.arange(a, b), 2)) for a, b in itertools.pairwise(X.indptr)]
    )
    values, indices = X.data[order].astype(float) / 2, X.indices[order]
    values[indices == 7] = 0.0
    doubled = scipy.sparse.csr_array((values, indices, 2 * X.indptr), shape=X.shape)
    kept = (indices != 7) & ~np.isin(np.repeat(np.arange(N), np.diff(doubled.indptr)), [5, 6])
    lengths = np.add.reduceat(np.append(kept, 0), doubled.indptr[:-1])
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    holes = scipy.sparse.csr_array((values[kept], indices[kept], bounds), shape=X.shape)
    dense = holes.toarray()
    assert not dense[5].any()
    assert not dense[:, 7].any()
    others = np.arange(D) != 7
    expected = sklearn.linear_model.LinearRegression().fit(dense[:, others], y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LinearRegression(solver=solver, tol=1e-13).fit(holes, y)
    assert any("column 7 " in str(each.message) for each in caught)
    np.testing.assert_allclose(model.coef_[others], expected.coef_, atol=1e-10)
    np.testing.assert_allclose(model.predict(holes), expected.predict(dense[:, others]), atol=1e-9)


@pytest.mark.parametrize("solver", ["cg", "gd", "closed_form"])
def test_threads_limits_and_caches_change_no_bit(tmp_path, solver):
    n = 40_000
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 60, n)
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.standard_normal(bounds[-1])
    X = scipy.sparse.csr_array((values, rng.integers(0, 60, bounds[-1]), bounds), shape=(n, 60))
    X.sum_duplicates()
    y = targets(X)
    path = in_zarr(tmp_path / "a.zarr", X, chunk=50_021)
    assert len(open_source(path, "X").layout.block_rows) > 3
    fits = [
        LinearRegression(solver=solver, tol=1e-4, **how).fit(data, y)
        for data, how in (
            (X, {"n_threads": 1}),
            (X, {"n_threads": 3}),
            (path, {"n_threads": 2}),
            (path, {"n_threads": 1, "memory_limit": "40 MiB"}),
        )
    ]
    assert len({fit.coef_.tobytes() for fit in fits}) == 1


@pytest.mark.parametrize("kind", ["zarr", "hdf5"])
def test_a_sparse_data_set_of_a_backed_anndata_object_is_read_from_its_group(tmp_path, kind):
    X = matrix()
    path = in_zarr(tmp_path / "a.zarr", X) if kind == "zarr" else in_hdf5(tmp_path / "a.h5ad", X)
    opened = zarr.open_group(path) if kind == "zarr" else h5py.File(f"{tmp_path}/a.h5ad")["X"]
    # as anndata's CSRDataset
    backed = type("CSRDataset", (), {"__module__": "anndata._core", "group": opened})()
    model = LinearRegression(solver="cg", tol=1e-13).fit(backed, targets(X))
    expected = LinearRegression(solver="cg", tol=1e-13).fit(X, targets(X))
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-12)


def test_the_command_line_fits_scores_and_predicts(tmp_path):
    X = matrix()
    in_hdf5(tmp_path / "a.h5ad", X)
    data = "--x", "a.h5ad/X", "--y", "a.h5ad/obs/age"
    done = run("plan", *data, "--solver", "cg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("fit", *data, "--solver", "cg", "--tol", "1e-12", "--out", "m.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = sklearn.linear_model.LinearRegression().fit(X.toarray().astype(float), targets(X))
    np.testing.assert_allclose(load(tmp_path / "m.json").coef_, expected.coef_, atol=1e-9)
    done = run("predict", "--model", "m.json", "--x", "a.h5ad/X", "--out", "p.zarr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    predicted = expected.predict(X.toarray().astype(float))
    np.testing.assert_allclose(zarr.open_array(f"{tmp_path}/p.zarr")[:], predicted, atol=1e-8)
    done = run("score", "--model", "m.json", *data, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_command_line_takes_a_matrix_and_y_without_x(tmp_path):
    in_hdf5(tmp_path / "a.h5ad", matrix())
    done = run("info", "a.h5ad/X", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("plan", "a.h5ad/X", "--y", "a.h5ad/obs/age", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_anndata_store_is_refused_with_what_to_pass(tmp_path):
    in_zarr(tmp_path / "a.zarr", matrix())
    root = zarr.open_group(str(tmp_path / "a.zarr"), mode="a")
    del root["y"]
    root.attrs["encoding-type"] = "anndata"
    with pytest.raises(InputError, match=r"AnnData object.*X=\".*a.zarr/X\".*y=\".*obs/COLUMN\""):
        LinearRegression().fit(str(tmp_path / "a.zarr"))


def test_arrays_of_a_matrix_without_its_attributes_are_refused(tmp_path):
    path = in_zarr(tmp_path / "a.zarr", matrix())
    del zarr.open_group(path, mode="a").attrs["encoding-type"]
    with pytest.raises(InputError, match='set encoding-type to "csr_matrix"'):
        LinearRegression().fit(path, targets(matrix()))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({100: 2**63 - 1, 101: -2}, "is 9,223,372,036,854,775,807 at row 100 but"),
        ({50: 0}, "falls from .* to 0 at row 50: rows of CSR begin .*restore it from a copy$"),
        ({60: 10_000}, "is 10,000 at row 60 but X.data has"),
    ],
)
def test_a_wrong_bound_of_64_bits_is_named(bounds, message):
    X = matrix()
    X.indptr = X.indptr.astype(np.int64)
    for row, bound in bounds.items():
        X.indptr[row] = bound
    with pytest.raises(DataCorruptionError, match=message):
        LinearRegression().fit(X, targets(matrix()))


def test_views_of_an_anndata_object_are_read():
    X = matrix()
    view = type("CSRMatrixView", (scipy.sparse.csr_matrix,), {"__module__": "anndata._core"})(X)
    found, expected = (LinearRegression().fit(each, targets(X)) for each in (view, X))
    np.testing.assert_array_equal(found.coef_, expected.coef_)


@pytest.mark.parametrize("solver", ["cg", "gd"])
def test_a_resumed_fit_is_bitwise_identical(tmp_path, solver):
    X = matrix()
    y = targets(X)

    def stop(record):
        if record.epoch == 2:
            raise KeyboardInterrupt

    saved = {"checkpoint": tmp_path / "saved", "solver": solver, "tol": 1e-6}
    with pytest.raises(KeyboardInterrupt):
        LinearRegression(**saved, progress=stop).fit(X, y)
    resumed = LinearRegression(**saved).fit(X, y)
    expected = LinearRegression(solver=solver, tol=1e-6).fit(X, y)
    assert resumed.coef_.tobytes() == expected.coef_.tobytes()


def test_auto_compares_pairs_of_stored_values_with_passes():
    rng = np.random.default_rng(0)

    def chosen(n, d, per_row):
        indices = rng.integers(0, d, n * per_row).astype(np.int32)
        bounds = np.arange(0, n * per_row + 1, per_row)
        X = scipy.sparse.csr_array((np.ones(n * per_row), indices, bounds), shape=(n, d))
        return plan(X, np.zeros(n)).chosen

    assert chosen(2000, 200, 3) == "closed_form"
    assert chosen(2000, 20_000, 3) == "cg"
