"""Columns of ``obs`` in AnnData's stores: categories and nullable numbers as y, weights, groups."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import statsmodels.api as sm
import zarr

from streamreg import LinearRegression
from streamreg.errors import DataCorruptionError, InputError

N = 300


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 3))
    y = X @ [1.0, 2.0, 3.0] + rng.standard_normal(N)
    return X, y


def codes_of(n_levels=5):
    return np.random.default_rng(1).integers(0, n_levels, N).astype(np.int8)


@pytest.fixture(params=["zarr", "hdf5"])
def write(request, tmp_path):
    """Write a column as AnnData does; returns its path."""

    def written(encoding, **arrays):
        if request.param == "zarr":
            group = zarr.open_group(str(tmp_path / "a.zarr"), mode="a").create_group("obs/c")
            for name, values in arrays.items():
                # absent chunks would mean zeros
                group.create_array(name, data=values, config={"write_empty_chunks": True})
            path = tmp_path / "a.zarr"
            group.attrs["encoding-type"] = encoding
        else:
            path = tmp_path / "a.h5ad"
            with h5py.File(path, "a") as file:
                group = file.create_group("obs/c")
                group.attrs["encoding-type"] = encoding
                for name, values in arrays.items():
                    is_text = values.dtype.kind == "U"
                    group.create_dataset(name, data=values.astype(object) if is_text else values)
        return f"{path}/obs/c"

    return written


def levels(*texts):
    return np.array(texts)


def clustered(rows, groups):
    X, y = rows
    return LinearRegression(cov_type="cluster").fit(X, y, groups=groups)


def test_codes_of_categories_are_groups(write, rows):
    X, y = rows
    codes = codes_of()
    path = write("categorical", codes=codes, categories=levels(*"abcde"))
    expected = sm.OLS(y, sm.add_constant(X)).fit(cov_type="cluster", cov_kwds={"groups": codes})
    np.testing.assert_allclose(clustered(rows, path).bse_, expected.bse, rtol=1e-9)


def test_a_missing_category_is_an_error_in_groups(write, rows):
    codes = codes_of()
    codes[77] = -1
    path = write("categorical", codes=codes, categories=levels(*"abcde"))
    with pytest.raises(InputError, match=r"no value in row 77 .*every row belongs to a group"):
        clustered(rows, path)


def test_categories_that_are_numbers_may_be_y_or_weights(write, rows):
    X, _ = rows
    codes, ages = codes_of(), np.array([1, 2, 4, 8, 16])
    path = write("categorical", codes=codes, categories=ages)
    for ours, dense in (
        ((X, path), (X, ages[codes])),
        ((X, X[:, 0], path), (X, X[:, 0], ages[codes])),
    ):
        models = [LinearRegression().fit(*each) for each in (ours, dense)]
        np.testing.assert_array_equal(models[0].coef_, models[1].coef_)


def test_a_missing_category_of_y_follows_nan_policy(write, rows):
    X, _ = rows
    codes, ages = codes_of(), np.array([1.5, 2, 4, 8, 16])
    codes[5] = -1
    path = write("categorical", codes=codes, categories=ages)
    with pytest.raises(InputError, match="NaN in row 5"):
        LinearRegression().fit(X, path)
    with pytest.warns(match="1 of 300 rows holds NaN"):
        model = LinearRegression(nan_policy="omit").fit(X, path)
    kept = codes >= 0
    expected = LinearRegression().fit(X[kept], ages[codes[kept]])
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-12)


def test_categories_that_are_texts_are_no_y(write, rows):
    path = write("categorical", codes=codes_of(), categories=levels(*"abcde"))
    with pytest.raises(InputError, match="categories that are texts, and y are numbers"):
        LinearRegression().fit(rows[0], path)
    model = LinearRegression().fit(rows[0], f"{path}/codes")
    np.testing.assert_array_equal(model.coef_, LinearRegression().fit(rows[0], codes_of()).coef_)


def test_a_code_beyond_the_categories_is_damage(write, rows):
    codes = codes_of()
    codes[9] = 6
    path = write("categorical", codes=codes, categories=levels(*"abcde"))
    with pytest.raises(DataCorruptionError, match=r"code 6 in row 9 .*but has 5 categories"):
        clustered(rows, path)


def test_masked_values_are_missing(write, rows):
    X, y = rows
    mask = np.zeros(N, bool)
    mask[[3, 200]] = True
    path = write("nullable-integer", values=np.round(100 * y).astype(np.int64), mask=mask)
    with pytest.raises(InputError, match="NaN in row 3"):
        LinearRegression().fit(X, path)
    with pytest.warns(match="2 of 300 rows hold NaN"):
        model = LinearRegression(nan_policy="omit").fit(X, path)
    expected = LinearRegression().fit(X[~mask], np.round(100 * y)[~mask])
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-12)


def test_a_mask_of_which_zarr_wrote_no_chunk_has_no_missing_value(tmp_path, rows):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_group("obs/c")
    group.attrs["encoding-type"] = "nullable-integer"
    group.create_array("values", data=np.arange(1, N + 1))
    group.create_array("mask", data=np.zeros(N, bool), config={"write_empty_chunks": False})
    X, _ = rows
    model = LinearRegression().fit(X, f"{tmp_path}/a.zarr/obs/c")
    expected = LinearRegression().fit(X, np.arange(1.0, N + 1))
    np.testing.assert_array_equal(model.coef_, expected.coef_)


def test_a_column_without_one_of_its_arrays_is_damage(write, rows):
    path = write("categorical", codes=codes_of())
    with pytest.raises(DataCorruptionError, match="categorical without categories"):
        clustered(rows, path)
