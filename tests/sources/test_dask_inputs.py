"""Dask arrays over stored arrays: absent chunks are errors, and packed values are decoded."""

from __future__ import annotations

import shutil
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import pytest
import zarr
from stores import read_all

from streamreg import DataCorruptionError, LinearRegression
from streamreg.errors import DataWarning
from streamreg.sources.kinds import open_source

X = np.random.default_rng(0).normal(5, 1, (100, 3))


@pytest.fixture
def path(tmp_path):
    """A Zarr array with 10 chunks, of which chunk 4 (rows 40 to 49) is lost."""
    array = zarr.create_array(
        tmp_path / "X.zarr", shape=X.shape, chunks=(10, 3), dtype="f8", dimension_names=("t", "f")
    )
    array[:] = X
    (tmp_path / "X.zarr/c/4/0").unlink()
    return tmp_path / "X.zarr"


def labelled(path):
    xr = pytest.importorskip("xarray")
    return xr.open_zarr(path.parent, consolidated=False, chunks={})["X.zarr"]


WAYS = {
    "from_zarr": da.from_zarr,
    "from_array": lambda path: da.from_array(zarr.open(path), chunks=(20, 3)),
    "computed": lambda path: da.from_zarr(path) * 2 + 1,
    "stacked": lambda path: da.concatenate([da.from_zarr(path)[:30], da.from_zarr(path)[30:]]),
    "strided": lambda path: da.from_zarr(path)[::-5],
    "chosen": lambda path: da.from_zarr(path)[np.arange(60)],
    "xarray": lambda path: labelled(path).data,
    "labelled": labelled,
    "labelled, computed": lambda path: labelled(path) * 2,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_lost_chunk_behind_dask_is_an_error_that_names_it(path, way):
    group = zarr.open_group(path.parent, mode="a")
    assert list(group) == ["X.zarr"]
    rows = WAYS[way](path)
    message = r"chunk c/4/0 of .*X\.zarr \(rows 40.49\) is missing \(1 of 10 chunks is absent\)"
    with pytest.raises(DataCorruptionError, match=rf'{message}.*missing_chunks="fill"'):
        read_all(open_source(rows, "X"))
    filled = read_all(open_source(rows, "X", missing_chunks="fill"))
    np.testing.assert_array_equal(filled, np.asarray(rows))


@pytest.mark.parametrize("rows", [slice(0, 40), slice(50, None), slice(59, 49, -1), [3, 99, -1]])
def test_a_lost_chunk_that_is_not_read_is_no_error(path, rows):
    array = da.from_zarr(path)[rows]
    np.testing.assert_array_equal(read_all(open_source(array, "X")), X[rows])


def test_a_lost_chunk_of_a_three_dimensional_array_is_named(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(20, 4, 6), chunks=(5, 2, 6), dtype="f4")
    array[:] = 1
    (tmp_path / "a/c/2/1/0").unlink()
    rows = da.from_zarr(tmp_path / "a").reshape(80, 6)
    with pytest.raises(DataCorruptionError, match=r"chunk c/2/1/0 of .*a \(rows 10.14\)"):
        read_all(open_source(rows, "X"))


def test_a_lost_chunk_in_a_shard_is_named(tmp_path):
    array = zarr.create_array(
        tmp_path / "a", shape=(20, 2), chunks=(5, 2), shards=(10, 2), dtype="f8"
    )
    array[:5], array[10:] = 1, 1
    with pytest.raises(DataCorruptionError, match=r"chunk \(1, 0\) of shard c/0/0 of .*a"):
        read_all(open_source(da.from_zarr(tmp_path / "a"), "X"))


def test_a_chunk_lost_from_a_store_in_memory_is_named():
    array = zarr.create_array({}, shape=(20, 2), chunks=(5, 2), dtype="f8")
    array[:5], array[10:] = 1, 1
    with pytest.raises(DataCorruptionError, match=r"chunk c/1/0 of .*\(rows 5.9\)"):
        read_all(open_source(da.from_array(array, chunks=(5, 2)), "X"))


def test_rows_of_hdf5_never_written_are_an_error_behind_dask(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        dataset = file.create_dataset("X", shape=(100, 3), chunks=(10, 3), dtype="f8")
        dataset[:40], dataset[50:] = X[:40], X[50:]
        rows = da.from_array(dataset, chunks=(20, 3))
        with pytest.raises(DataCorruptionError, match=r"rows 40.49 of .*d\.h5/X are not stored"):
            read_all(open_source(rows, "X"))
        np.testing.assert_array_equal(read_all(open_source(rows[50:], "X")), X[50:])


def test_a_graph_that_hides_its_store_is_told(path):
    rows = da.from_array(zarr.open(path), chunks=(10, 3), inline_array=True)
    with pytest.warns(DataWarning, match="files that its Dask graph hides"):
        read_all(open_source(rows, "X"))
    read_all(open_source(rows, "X", missing_chunks="fill"))


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_netcdf_behind_xarray_is_checked_or_told(tmp_path, engine):
    xr = pytest.importorskip("xarray")
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    xr.Dataset({"X": (("t", "f"), X)}).to_netcdf(tmp_path / "d.nc", engine=engine)
    with (
        xr.open_dataset(tmp_path / "d.nc", engine=engine, chunks={"t": 10}) as opened,
        pytest.warns(DataWarning, match="files that its Dask graph hides"),
    ):
        np.testing.assert_array_equal(read_all(open_source(opened["X"], "X")), X)


@pytest.fixture
def packed(path):
    """The same array, packed: stored values are hundredths, and -1 is missing."""
    shutil.rmtree(path)
    array = zarr.create_array(path, shape=X.shape, chunks=(10, 3), dtype="i2")
    array[:] = (100 * X).round()
    array[7, 1] = -1
    array.attrs.update({"scale_factor": 0.01, "_FillValue": -1})
    return path


@pytest.mark.parametrize(
    "way",
    {
        "from_zarr": da.from_zarr,
        "slices": lambda path: da.from_zarr(path)[:50],
        "rechunked": lambda path: da.from_zarr(path).rechunk((35, 2)),
        "inline": lambda path: da.from_array(zarr.open(path), chunks=(20, 3), inline_array=True),
    }.items(),
    ids=lambda way: way[0],
)
@pytest.mark.filterwarnings("ignore:.*its Dask graph hides")
def test_packed_values_that_dask_only_passes_on_are_decoded(packed, way):
    rows = way[1](packed)
    expected = np.round(100 * X[: len(rows)]) * 0.01
    expected[7, 1] = np.nan
    np.testing.assert_array_equal(read_all(open_source(rows, "X")), expected)
    stored = read_all(open_source(rows, "X", decode_cf=False))
    np.testing.assert_array_equal(stored, zarr.open(packed)[: len(rows)])


def test_packed_values_that_a_graph_computes_with_are_left_alone_and_told(packed):
    stored = da.from_zarr(packed)
    rows = da.where(stored == -1, np.nan, stored * 0.01)
    with pytest.warns(DataWarning, match=r"X is computed from the packed array .*X\.zarr"):
        read = read_all(open_source(rows, "X"))
    np.testing.assert_array_equal(read, rows.compute())
    open_source(rows, "X", decode_cf=False)


def test_decoded_dask_arrays_have_the_same_name_every_time(packed):
    names = {open_source(da.from_zarr(packed), "X").storage for _ in range(2)}
    assert len(names) == 1


def test_what_xarray_decodes_is_not_decoded_again(path):
    xr = pytest.importorskip("xarray")
    values = np.where(np.arange(300).reshape(100, 3) == 22, np.nan, (100 * X).round() / 100)
    encoding = {"X": {"dtype": "int16", "scale_factor": 0.01, "_FillValue": -1}}
    folder = Path(path.parent) / "d.zarr"
    xr.Dataset({"X": (("t", "f"), values)}).to_zarr(folder, encoding=encoding, consolidated=False)
    with xr.open_zarr(folder, consolidated=False) as opened:
        rows = read_all(open_source(opened["X"], "X"))
        np.testing.assert_array_equal(rows, opened["X"].to_numpy())


@pytest.mark.parametrize("chunks", [{}, None])
def test_a_labelled_array_that_xarray_did_not_decode_is_read_as_it_is_and_told(packed, chunks):
    xr = pytest.importorskip("xarray")
    array = zarr.open_array(packed)
    labelled = xr.DataArray(array[:], dims=("t", "f"), attrs=dict(array.attrs))
    rows = labelled.chunk({"t": 20}) if chunks is not None else labelled
    with pytest.warns(DataWarning, match="attributes scale_factor, _FillValue, which xarray has"):
        read = read_all(open_source(rows, "X"))
    np.testing.assert_array_equal(read, array[:])
    open_source(rows, "X", decode_cf=False)


def test_a_fit_by_dask_and_one_by_path_agree_to_the_bit(packed):
    y = X.sum(axis=1)
    fits = []
    for rows in (packed, da.from_zarr(packed)):
        with pytest.warns(DataWarning, match="1 of 100 rows"):
            fits.append(LinearRegression(nan_policy="omit").fit(rows, y).coef_)
    assert fits[0].tobytes() == fits[1].tobytes()
