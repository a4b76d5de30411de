"""Shapes, types and chunks that no regression can use (rows A of README.md)."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zarr
from lab import (
    LAST,
    LAYOUTS,
    ROWS,
    TRANSPOSED,
    D,
    Faults,
    Lab,
    N,
    X,
    Y,
    assert_error,
    read_all,
)
from zarr.codecs import ZstdCodec

import streamreg
from streamreg.engines.partition import Blocks
from streamreg.errors import DataCorruptionError, DataWarning, InputError, MemoryLimitError
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.open import open_dataset

pytestmark = pytest.mark.timeout(10)

FAULTS = Faults()


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@FAULTS.row(
    "A1", InputError, r"y\.zarr has 999 rows", r"X\.zarr has 1,003", r"\(999,\).*\(1003, 4\)"
)
def _(lab):
    paths = lab.store(), lab.store(Y[:999], "y.zarr")
    return lambda: open_dataset(*paths)


@FAULTS.row("A1 weights", InputError, r"w\.zarr has 2 rows", "1,003")
def _(lab):
    paths = lab.store(), lab.store(Y, "y.zarr"), lab.store(Y[:2], "w.zarr")
    return lambda: open_dataset(*paths)


@FAULTS.row("A2", InputError, r"0 sample.*X\.zarr")
def _(lab):
    path = lab.declared(shape=(0, 4), chunks=(10, 4))
    return lambda: open_dataset(path, Y)


@FAULTS.row("A3", InputError, r"0 feature.*X\.zarr")
def _(lab):
    path = lab.declared(shape=(N, 0), chunks=(10, 1))
    return lambda: open_dataset(path, Y)


@FAULTS.row("A4 X of one dimension", InputError, r"y\.zarr has shape \(1003,\)", "Reshape")
def _(lab):
    path = lab.store(Y, "y.zarr")
    return lambda: open_dataset(path, Y)


@FAULTS.row(
    "A4 X of three dimensions", InputError, r"X\.zarr has shape \(9, 2, 2\)", "3 dimensions"
)
def _(lab):
    path = lab.store(np.ones((9, 2, 2)))
    return lambda: open_dataset(path, Y)


@FAULTS.row("A4 y of three dimensions", InputError, "y has shape", r"\(N,\) or \(N, K\)")
def _(lab):
    path = lab.store()
    return lambda: open_dataset(path, Y[:, None, None])


@FAULTS.row("A6", MemoryLimitError, "GiB", "no data was read", "rewrite .* in chunks of")
def _(lab):
    path = lab.declared(shape=(10**6, 512), chunks=(250_000, 64), compressors=ZstdCodec())
    model = streamreg.LinearRegression(memory_limit="100 MiB")
    return lambda: model.fit(path, np.zeros(10**6))


@FAULTS.row("A7", InputError, "X is a Dask array of unknown shape", r"compute_chunk_sizes\(\)")
def _(lab):
    da = pytest.importorskip("dask.array")
    x = da.from_zarr(str(lab.store()))
    return lambda: open_dataset(x[x[:, 0] > 0], Y)


def _declared_dtype(row, dtype, *says, **changes):
    @FAULTS.row(row, InputError, r"X\.zarr", *says)
    def _(lab):
        path = lab.folder / "X.zarr"
        zarr.create_array(store=path, shape=(N, D), chunks=(ROWS, D), dtype=dtype, **changes)
        return lambda: open_dataset(path, Y)


_declared_dtype("A9 text", "U8", "dtype <U8")
_declared_dtype("A9 text of any length", str, "dtype StringDType|dtype object")
_declared_dtype("A10", "c16", "Complex data not supported", "complex128")
_declared_dtype("A11 dates", "M8[s]", "dtype datetime64")
_declared_dtype("A11 spans", "m8[s]", "dtype timedelta64")
_declared_dtype("A19", [("a", "f8"), ("b", "i4")], "dtype .*'a'", zarr_format=2)


@FAULTS.row("A9 objects", InputError, r"X\.zarr", "dtype object|dtype StringDType")
def _(lab):
    path = lab.declared(shape=(N, D), chunks=(ROWS, D), zarr_format=2)
    lab.edit(path, dtype="|O", filters=[{"id": "vlen-utf8"}], fill_value="")
    return lambda: open_dataset(path, Y)


@FAULTS.row("A17", InputError, r"d\.zarr is a Zarr group", "one of its arrays as X: X, y")
def _(lab):
    path = lab.dataset()
    return lambda: open_dataset(path, Y)


@FAULTS.row("A17 without X", InputError, r"d\.zarr holds no array X", "it holds: Z, y")
def _(lab):
    path = lab.dataset(Z=X)
    (path / "X").rename(lab.folder / "elsewhere")
    return lambda: open_dataset(path)


@FAULTS.row("A18", InputError, r"X\.zarr has a 'rectilinear' chunk grid", "equal chunks")
def _(lab):
    grid = {
        "name": "rectilinear",
        "configuration": {"kind": "inline", "chunk_shapes": [[500, 503], [4]]},
    }
    path = lab.edit(lab.declared(shape=(N, D), chunks=(ROWS, D)), chunk_grid=grid)
    return lambda: open_dataset(path, Y)


def _during(change):
    """Read the first row, let something change, and read again."""

    def act(lab, layout="zstd"):
        path = lab.named(layout)
        reader = BlockReader(open_dataset(path, Y))
        reader.read(0, 1)

        def read_again():
            reader.read(900, N)

        change(lab, path, reader)
        return read_again

    return act


@FAULTS.row("A20 resized", DataCorruptionError, r"X\.zarr changed during the fit", reads=True)
def _(lab):
    return _during(lambda _, path, __: zarr.open_array(path).resize((2000, D)))(lab)


@FAULTS.row("A20 resized, zarr-python", DataCorruptionError, "changed during the fit", reads=True)
def _(lab):
    return _during(lambda _, path, __: zarr.open_array(path).resize((2000, D)))(lab, "zarr-python")


@FAULTS.row(
    "A20 rewritten",
    DataCorruptionError,
    f"c/10/0.*{LAST}.* changed since it was first read",
    reads=True,
)
def _(lab):
    def change(lab, path, reader):
        reader.read(1000, N)
        reader.read(0, 1)
        os.utime(lab.last_chunk(path), (1, 1))

    return _during(change)(lab)


@FAULTS.row("A20 written to while open", DataCorruptionError, r"c/0/0 .* changed", reads=True)
def _(lab):
    path = lab.named("plain")
    reader = BlockReader(open_dataset(path, Y))
    reader.read(0, 5)
    with (path / "c/0/0").open("r+b") as file:
        file.write(bytes(8))
    os.utime(path / "c/0/0", (1, 1))  # clocks may be too coarse to tell
    return lambda: reader.read(0, 5)


@FAULTS.row("A20 HDF5", DataCorruptionError, r"X\.h5/X\) changed during the fit", reads=True)
def _(lab):
    h5py = pytest.importorskip("h5py")
    with h5py.File(lab.folder / "X.h5", "w") as file:
        file.create_dataset("X", data=X, chunks=(ROWS, D), maxshape=(None, D))
    file = h5py.File(lab.folder / "X.h5", "r+")
    reader = BlockReader(open_dataset(file["X"], Y))
    file["X"].resize((N + 1, D))
    return lambda: reader.read(0, 10)


@FAULTS.row("A21", InputError, r"X\.zarr would overwrite the input")
def _(lab):
    path = lab.store()
    model = streamreg.LinearRegression().fit(X, Y)
    return lambda: model.predict(path, out=path, overwrite=True)


@FAULTS.row("A21 by a link", InputError, "would overwrite the input")
def _(lab):
    path = lab.store()
    (lab.folder / "other").symlink_to(path)
    model = streamreg.LinearRegression().fit(X, Y)
    return lambda: model.predict(path, out=lab.folder / "other", overwrite=True)


@FAULTS.row("A22 rows", DataCorruptionError, "chunk c/0", "rows 0.999", "missing", reads=True)
def _(lab):
    path = lab.declared(shape=(10**15, 8), chunks=(1000, 8))
    y = lab.declared("y.zarr", shape=(10**15,), chunks=(1000,))
    assert "1,000,000,000,000,000" in str(streamreg.plan(path, y))
    return lambda: streamreg.LinearRegression().fit(path, y)


@FAULTS.row("A22 columns", MemoryLimitError, r"1,099,511,627,776", "no data was read")
def _(lab):
    path = lab.declared(shape=(2**40, 2**40), chunks=(1, 1000))
    y = lab.declared("y.zarr", shape=(2**40,), chunks=(1000,))
    return lambda: streamreg.LinearRegression(memory_limit="1 GiB").fit(path, y)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row)
def test_a_fault_is_a_typed_error_that_says_where(fault, lab, chunks_opened):
    assert_error(fault, lab, chunks_opened)


def test_a4_one_target_may_be_a_column_and_targets_may_be_many(lab):
    path = lab.store()
    for y, k in ((Y, 1), (Y[:, None], 1), (np.stack([Y, -Y], axis=1), 2)):
        dataset = open_dataset(path, y)
        assert dataset.n_targets == k
        np.testing.assert_array_equal(BlockReader(dataset).read(5, 9).y, y.reshape(N, -1)[5:9])


def test_a5_y_may_have_other_chunks_than_x(lab):
    paths = lab.store(), lab.store(Y, "y.zarr", chunks=(77,))
    dataset = open_dataset(*paths)
    reader = BlockReader(dataset)
    for start, stop in Blocks.of(dataset.X.grid, dataset.row_nbytes):
        np.testing.assert_array_equal(reader.read(start, stop).y[:, 0], Y[start:stop])


def test_a6_column_chunks_that_fit_in_memory_are_read(lab):
    np.testing.assert_array_equal(read_all(lab.store(chunks=(ROWS, 3))), X)


def test_a8_empty_dask_chunks_are_read():
    da = pytest.importorskip("dask.array")
    heights = (0, 500, 0, 503, 0)
    np.testing.assert_array_equal(read_all(da.from_array(X, chunks=(heights, (1, 0, 3)))), X)


@pytest.mark.parametrize("kind", ["b1", "u1", "i8", "f2", ">f8", ">f4", ">i2"])
def test_a12_a13_a14_real_numbers_of_any_kind_are_read(lab, kind):
    values = (np.abs(X) * 9).astype(kind)
    for layout in ("plain", "zstd", "v2 lz4", "zarr-python"):
        path = lab.store(values, **LAYOUTS[layout])
        np.testing.assert_array_equal(read_all(path), values.astype(float))


@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
def test_a12_integers_that_float64_cannot_hold_are_warned_of(lab):
    values = (X * 100).astype("i8")
    values[7, 1] = 2**53 + 1
    with pytest.warns(DataWarning, match=r"X\.zarr holds integers beyond"):
        streamreg.LinearRegression().fit(lab.store(values), Y)


@pytest.mark.parametrize("layout", [{"order": "F", "zarr_format": 2}, {"filters": TRANSPOSED}])
def test_a15_arrays_stored_by_columns_are_read(lab, layout):
    np.testing.assert_array_equal(read_all(lab.store(**layout)), X)
    np.testing.assert_array_equal(read_all(np.asfortranarray(X)), X)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name.startswith("v2")])
def test_a16_zarr_version_2_is_read(lab, layout):
    np.testing.assert_array_equal(read_all(lab.named(layout)), X)


def test_a20_attributes_may_change_between_reads(lab):
    path = lab.store()
    reader = BlockReader(open_dataset(path, Y))
    reader.read(0, 1)
    zarr.open_array(path).attrs["comment"] = "read by somebody now"
    np.testing.assert_array_equal(reader.read(900, N).X, X[900:])
