"""Arrays of libraries that may not be safe to use on several threads."""

from __future__ import annotations

import numpy as np
import pytest
from stores import read_all

from streamreg import InputError, LinearRegression, MemoryLimitError
from streamreg.errors import DataWarning
from streamreg.sources.kinds import open_source


class Foreign:
    """An array that has only shape, dtype and slices, and counts the reads in progress."""

    under_way, most = 0, 0

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype

    def __getitem__(self, rows):
        Foreign.under_way += 1
        Foreign.most = max(Foreign.most, Foreign.under_way)
        # work that lets other threads run meanwhile
        read = self.values[rows].copy()
        Foreign.under_way -= 1
        return read


class Refused(Foreign):
    def __getitem__(self, rows):
        raise MemoryError("no room")


def test_only_one_of_x_and_y_is_read_at_a_time():
    # 64 MiB: several segments, for threads to share
    X = Foreign(np.random.default_rng(0).standard_normal((1 << 20, 8)))
    model = LinearRegression(n_threads=4).fit(X, Foreign(X.values.sum(axis=1)))
    np.testing.assert_allclose(model.coef_, np.ones(8))
    assert Foreign.most == 1


def test_a_memory_error_of_an_array_is_not_reported_as_damage():
    message = "the system refused memory that closed_form needs: no room"
    with pytest.raises(MemoryLimitError, match=message):
        LinearRegression().fit(Refused(np.ones((10, 2))), np.ones(10))


def test_views_of_hdf5_datasets_are_read_or_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    X = np.random.default_rng(0).normal(size=(1000, 3))
    y = X @ [1.0, 2, 3]
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.create_dataset("X", data=X.astype(">f4"), chunks=(100, 3), compression="gzip")
        file["y"], file["text"] = y, np.array([b"1"] * 1000)
        file["fields"], file["empty"] = np.zeros(1000, [("a", "f8")]), h5py.Empty("f8")
        model = LinearRegression().fit(file["X"].astype("f8"), file["y"].astype("f4"))
        np.testing.assert_allclose(model.coef_, [1, 2, 3], rtol=1e-5)
        with pytest.raises(InputError, match=r"cannot be read: it is h5py\.Empty"):
            LinearRegression().fit(file["empty"], y)
        for data in (
            file["text"].asstr(),
            file["fields"].fields("a"),
            file["fields"],
            file["empty"],
        ):
            with pytest.raises(InputError):
                LinearRegression().fit(data, y)


@pytest.mark.parametrize("kind", ["File", "Group"])
def test_an_hdf5_file_or_group_is_refused_with_what_to_pass(tmp_path, kind):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["group/X"] = np.ones((3, 2))
        data = file if kind == "File" else file["group"]
        held = "group" if kind == "File" else "X"
        with pytest.raises(InputError, match=f"X is an HDF5 {kind}; pass what it holds: {held}$"):
            open_source(data, "X")


class Slices:
    """An object of which NumPy would take slices of slices, without an end."""

    def __len__(self):
        return 3

    def __getitem__(self, at):
        return Slices()


def test_an_object_that_is_no_array_is_refused_at_once():
    with pytest.raises(InputError, match="X is a Slices, which has no rows"):
        LinearRegression().fit(Slices(), [1.0, 2.0, 3.0])
    adata = type("AnnData", (Slices,), {"__module__": "anndata._core", "obs": {}})()
    with pytest.raises(InputError, match=r"X is an AnnData object.*pass one of them, as adata\.X"):
        LinearRegression().fit(adata, [1.0, 2.0, 3.0])


def test_a_labelled_array_of_a_file_is_read_by_blocks_and_told_if_it_is_packed(tmp_path):
    xr = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf")
    values = np.arange(60).reshape(20, 3) / 4
    encoding = {
        "X": {"dtype": "int16", "scale_factor": 0.25, "_FillValue": -1, "chunksizes": (5, 3)}
    }
    xr.Dataset({"X": (("t", "f"), values)}).to_netcdf(
        tmp_path / "d.nc", engine="h5netcdf", encoding=encoding
    )
    with xr.open_dataset(tmp_path / "d.nc", engine="h5netcdf") as opened:
        rows = open_source(opened.X, "X")
        assert rows.chunks == (5, 3)
        np.testing.assert_array_equal(read_all(rows), values)
        assert not opened.X.variable._in_memory
    stored = xr.open_dataset(tmp_path / "d.nc", engine="h5netcdf", mask_and_scale=False)
    with stored, pytest.warns(DataWarning, match="scale_factor, _FillValue, which xarray has"):
        np.testing.assert_array_equal(read_all(open_source(stored.X, "X")), 4 * values)
