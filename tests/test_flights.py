"""The flights table: each kind of source and each solver gives the coefficients of ``lstsq``."""

import dask.array as da
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from problems import flights_csv

import streamreg
from streamreg.ingest.convert import ingest as ingest_table

IGNORED = ["tailnum", "dest", "time_hour", "year", "flight", "hour", "minute"]
LIMIT = "256 MiB"


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights")
    return flights_csv(folder)


@pytest.fixture(scope="module")
def data(table, tmp_path_factory):
    return ingest(table, tmp_path_factory.mktemp("ingested") / "flights.zarr")


def ingest(table, out):
    report = ingest_table(
        table,
        out,
        target=["arr_delay"],
        one_hot=["carrier", "origin"],
        ignore=IGNORED,
        drop_missing=True,
    )
    return report.path


@pytest.fixture(scope="module")
def rows(data):
    group = zarr.open_group(data, mode="r")
    return group["X"][:], group["y"][:]


@pytest.fixture(scope="module")
def expected(rows):
    return least_squares(*rows)


def least_squares(X, y):
    """Return the weights of standardised columns, and the deviation of each column."""
    centred = X - X.mean(axis=0)
    # scaled first, because lstsq loses digits if columns have different sizes
    scale = X.std(axis=0)
    w = np.linalg.lstsq(centred / scale, y - y.mean(), rcond=None)[0]
    return w, scale


def error(model, expected):
    """Return the largest error of a standardised weight, relative to the largest weight."""
    w, scale = expected
    return np.max(np.abs(model.coef_ * scale - w)) / np.max(np.abs(w))


@pytest.mark.parametrize(("solver", "tol"), [("closed_form", 1e-8), ("cg", 1e-12)])
def test_solver_agrees_with_lstsq(solver, tol, data, expected):
    model = streamreg.LinearRegression(solver=solver, tol=tol, memory_limit=LIMIT).fit(data)
    assert model.converged_
    assert error(model, expected) < 1e-9


def test_gd_agrees_with_lstsq(rows, tmp_path):
    # every tenth flight, because gd takes about 2,000 epochs for any number of rows
    X, y = (values[::10] for values in rows)
    group = zarr.create_group(tmp_path / "flights.zarr")
    group.create_array("X", data=X, chunks=(10_000, X.shape[1]))
    group.create_array("y", data=y, chunks=(10_000,))
    model = streamreg.LinearRegression(
        solver="gd", tol=1e-12, max_epochs=20_000, memory_limit=LIMIT
    ).fit(tmp_path / "flights.zarr")
    assert model.converged_
    assert error(model, least_squares(X, y)) < 1e-4


def parquet(table, rows, folder):
    pd.read_csv(table, low_memory=False).to_parquet(folder / "flights.parquet")
    return (ingest(folder / "flights.parquet", folder / "flights.zarr"),)


def hdf5(table, rows, folder):
    file = h5py.File(folder / "flights.h5", "w")
    X = file.create_dataset("X", data=rows[0], chunks=(10_000, rows[0].shape[1]), compression=1)
    return X, file.create_dataset("y", data=rows[1])


def dask(table, rows, folder):
    X = da.from_array(rows[0], chunks=(50_000, 10))
    return X * 2.0 / 2.0, da.from_array(rows[1], chunks=70_000)


def numpy(table, rows, folder):
    return rows


def memmap(table, rows, folder):
    np.save(folder / "X.npy", rows[0])
    return np.load(folder / "X.npy", mmap_mode="r"), rows[1]


def zarr_v2(table, rows, folder):
    options = {"zarr_format": 2, "chunks": (30_000, 7)}
    zarr.create_array(folder / "X.zarr", data=rows[0], **options)
    zarr.create_array(folder / "y.zarr", data=rows[1], zarr_format=2)
    return folder / "X.zarr", str(folder / "y.zarr")


@pytest.mark.parametrize("source", [parquet, hdf5, dask, numpy, memmap, zarr_v2])
@pytest.mark.parametrize(("solver", "tol"), [("closed_form", 1e-8), ("cg", 1e-12)])
def test_source_agrees_with_lstsq(source, solver, tol, table, rows, expected, tmp_path):
    model = streamreg.LinearRegression(solver=solver, tol=tol, memory_limit=LIMIT)
    model.fit(*source(table, rows, tmp_path))
    assert error(model, expected) < 1e-9


def test_score_and_predictions_agree_with_numpy(data, rows, tmp_path):
    X, y = rows
    model = streamreg.LinearRegression(memory_limit=LIMIT).fit(data)
    expected = X @ model.coef_ + model.intercept_
    written = zarr.open_array(model.predict(data, out=tmp_path / "yhat.zarr"), mode="r")
    # NumPy adds in another order; each sum has about a hundred terms
    np.testing.assert_allclose(written[:], expected, rtol=0, atol=1e-9)
    r2 = 1 - np.sum((y - expected) ** 2) / np.sum((y - y.mean()) ** 2)
    assert model.score(data) == pytest.approx(r2, abs=1e-12)


def test_a_warning_names_dependent_columns(table, tmp_path):
    # sched_dep_time is 100·hour + minute, and year is constant
    report = ingest_table(
        table,
        tmp_path / "flights.zarr",
        target=["arr_delay"],
        drop_missing=True,
        ignore=["tailnum", "dest", "time_hour", "carrier", "origin"],
    )
    with pytest.warns(streamreg.DataWarning) as caught:
        model = streamreg.LinearRegression(solver="closed_form").fit(report.path)
    messages = " ".join(str(warning.message) for warning in caught)
    assert "'year'" in messages
    assert any(name in messages for name in ("'hour'", "'minute'", "'sched_dep_time'"))
    assert np.max(np.abs(model.coef_)) < 10
