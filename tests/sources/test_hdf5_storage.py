"""Rows that an HDF5 dataset does not store are an error that names them, not zeros."""

from __future__ import annotations

import zlib

import h5py
import numpy as np
import pytest
from stores import read_all

from streamreg import DataCorruptionError
from streamreg.sources.kinds import open_source

X = np.random.default_rng(0).normal(5, 1, (100, 3))


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as opened:
        yield opened


def assert_absent(dataset, rows, why):
    message = rf"rows? {rows} of X \(.*\) (are|is) not stored: .*{why}"
    with pytest.raises(DataCorruptionError, match=rf'{message}.*missing_chunks="fill"'):
        read_all(open_source(dataset, "X"))
    if "whose shape" in why:
        return  # HDF5 reads beyond the end, or fails
    filled = read_all(open_source(dataset, "X", missing_chunks="fill", decode_cf=False))
    np.testing.assert_array_equal(filled, dataset[:])


def with_gap(file, shape=(100, 3), **options):
    dataset = file.create_dataset("X", shape=shape, dtype="f8", **options)
    dataset[:40] = X[:40]
    dataset[50:] = X[50:]
    return dataset


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True, "fletcher32": True},
        {"compression": "lzf"},
        {"fillvalue": 9.969209968386869e36},
        {"fillvalue": np.nan},
    ],
)
def test_chunks_never_written(file, options):
    assert_absent(with_gap(file, chunks=(10, 3), **options), "40.49", "1 of its 10 chunks")


def test_chunks_of_some_columns_never_written(file):
    dataset = file.create_dataset("X", shape=(100, 4), chunks=(20, 2), dtype="f8")
    dataset[:, :2] = 1
    dataset[:60, 2:] = 1
    assert_absent(dataset, "60.99", "2 of its 10 chunks")


def test_a_dataset_that_grew(file):
    dataset = file.create_dataset("X", data=X[:90], maxshape=(None, 3), chunks=(10, 3))
    dataset.resize((100, 3))
    assert_absent(dataset, "90.99", "1 of its 10 chunks")


def test_a_contiguous_dataset_never_written(file):
    dataset = file.create_dataset("X", shape=(100, 3), dtype="f8")
    assert_absent(dataset, "0.99", "no value was ever written")


def test_a_file_of_raw_values_that_is_too_short(file, tmp_path):
    X[:60].tofile(tmp_path / "raw.bin")
    raw = [(str(tmp_path / "raw.bin"), 0, h5py.h5f.UNLIMITED)]
    dataset = file.create_dataset("X", shape=(100, 3), dtype="f8", external=raw)
    assert_absent(dataset, "60.99", "raw.bin' ends before them")


@pytest.fixture
def virtual(tmp_path):
    """Two files of 50 rows each, and a virtual dataset of both."""
    for number in (0, 1):
        with h5py.File(tmp_path / f"part{number}.h5", "w") as part:
            part["X"] = np.r_[X[50 * number : 50 * number + 50], X[:10]]
    with h5py.File(tmp_path / "v.h5", "w") as made:
        layout = h5py.VirtualLayout((100, 3), "f8")
        for number in (0, 1):
            source = h5py.VirtualSource(f"part{number}.h5", "X", (60, 3))
            layout[50 * number : 50 * number + 50] = source[:50]
        made.create_virtual_dataset("X", layout)
    return tmp_path / "v.h5"


def test_a_virtual_dataset_with_all_its_files_is_read(virtual):
    with h5py.File(virtual) as opened:
        np.testing.assert_array_equal(read_all(open_source(opened["X"], "X")), X)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("gone", "'part1.h5', which does not exist"),
        ("renamed", "'X' of the file 'part1.h5', which has no such dataset"),
        ("short", r"whose shape is \(30, 3\)"),
        ("unwritten", "of which rows 20.29 are not stored"),
    ],
)
def test_a_virtual_dataset_whose_file_lost_rows(virtual, fault, why):
    part = virtual.parent / "part1.h5"
    part.unlink()
    if fault != "gone":
        with h5py.File(part, "w") as made:
            if fault == "unwritten":
                dataset = made.create_dataset("X", shape=(50, 3), chunks=(10, 3), dtype="f8")
                dataset[:20], dataset[30:] = 1, 1
            else:
                made["Y" if fault == "renamed" else "X"] = X[:30]
    with h5py.File(virtual) as opened:
        assert_absent(opened["X"], "50.99", why)


@pytest.mark.parametrize("fault", ["short", "damaged"])
def test_an_error_of_hdf5_about_a_file_of_a_virtual_dataset_is_passed_on(tmp_path, fault):
    with h5py.File(tmp_path / "v.h5", "w") as made:
        layout = h5py.VirtualLayout((100, 3), "f8")
        layout[:] = h5py.VirtualSource("part.h5", "X", (100, 3))
        made.create_virtual_dataset("X", layout)
    (tmp_path / "part.h5").write_bytes(b"no HDF5")
    if fault == "short":
        with h5py.File(tmp_path / "part.h5", "w") as part:
            part["X"] = X[:30]
    with (
        h5py.File(tmp_path / "v.h5") as opened,
        pytest.raises(DataCorruptionError, match=r"rows 0.99 of X .* cannot be read"),
    ):
        read_all(open_source(opened["X"], "X"))


def test_rows_of_a_virtual_dataset_that_no_file_has(virtual, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as made:
        layout = h5py.VirtualLayout((100, 3), "f8")
        layout[:50] = h5py.VirtualSource("part0.h5", "X", (50, 3))
        made.create_virtual_dataset("X", layout)
    with h5py.File(tmp_path / "w.h5") as opened:
        assert_absent(opened["X"], "50.99", "150 values of the virtual dataset have no source")


def test_rows_of_an_unlimited_dimension_that_a_variable_lacks(tmp_path):
    h5netcdf = pytest.importorskip("h5netcdf")
    with h5netcdf.File(tmp_path / "d.nc", "w") as made:
        made.dimensions = {"t": None}
        made.resize_dimension("t", 10)
        made.create_variable("X", ("t",), "f8", chunks=(5,))[:] = np.ones(10)
        made.create_variable("longer", ("t",), "f8", chunks=(5,))
        made.resize_dimension("t", 15)
        made["longer"][:] = np.ones(15)
    with h5py.File(tmp_path / "d.nc", "r+") as cut:
        cut["X"].resize((10,))
    with h5netcdf.File(tmp_path / "d.nc") as opened:
        assert opened["X"].shape == (15,)
        with pytest.raises(DataCorruptionError, match=r"rows 10.14 of X \(.*X\) are not stored"):
            read_all(open_source(opened["X"], "X"))


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("chunks", [(20, 3), (20, 2), (30, 3)])
@pytest.mark.parametrize("fletcher32", [False, True])
@pytest.mark.parametrize("compression", ["gzip", None])
def test_chunks_are_decoded_as_hdf5_decodes_them(file, compression, chunks, shuffle, fletcher32):
    options = {"chunks": chunks, "shuffle": shuffle, "fletcher32": fletcher32}
    for dtype in ("f8", ">f4", "i2", "bool"):
        values = X.astype(dtype)
        dataset = file.create_dataset(f"X{dtype}", data=values, compression=compression, **options)
        read = read_all(open_source(dataset, "X"), rows=33)
        np.testing.assert_array_equal(read, values)


def test_a_chunk_without_some_filters_is_read(file):
    dataset = file.create_dataset("X", data=X, chunks=(20, 3), compression="gzip", shuffle=True)
    # the mask says that both filters were skipped
    dataset.id.write_direct_chunk((20, 0), X[:20].tobytes(), filter_mask=3)
    np.testing.assert_array_equal(read_all(open_source(dataset, "X")), dataset[:])


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        (
            zlib.compress(X[:12].tobytes()),
            "it ends after 288 decoded bytes where the chunk has 480",
        ),
        (zlib.compress(X[:30].tobytes()), "it decodes to more than the chunk's 480 bytes"),
        (zlib.compress(X[:20].tobytes())[:-20], "it ends after"),
        (b"no zlib stream", "zlib cannot decode it"),
    ],
)
def test_a_chunk_that_decodes_to_another_size_is_damage(file, encoded, why):
    dataset = file.create_dataset("X", data=X, chunks=(20, 3), compression="gzip")
    dataset.id.write_direct_chunk((20, 0), encoded)
    with pytest.raises(
        DataCorruptionError, match=rf"chunk at \(20, 0\) of X \(.*\) \(rows 20.39\).*{why}"
    ):
        read_all(open_source(dataset, "X"))


def test_a_chunk_that_fails_its_fletcher32_checksum_is_damage(file):
    options = {"chunks": (20, 3), "fletcher32": True, "compression": "gzip"}
    dataset = file.create_dataset("X", data=X, **options)
    dataset.id.write_direct_chunk((20, 0), zlib.compress(X[:20].tobytes()) + bytes(4))
    with pytest.raises(DataCorruptionError, match=r"chunk at \(20, 0\).*fletcher32"):
        read_all(open_source(dataset, "X"))
