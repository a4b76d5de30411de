"""Batches of targets, read as arrays of their own."""

from __future__ import annotations

from contextlib import closing

import h5py
import numpy as np
import pytest
import zarr
from zarr.codecs import GzipCodec, TransposeCodec

from streamreg.errors import DataCorruptionError
from streamreg.sources.column_range import column_range
from streamreg.sources.kinds import open_source
from tests.support.stores import read_all, write_zarr

N, K = 23, 11
VALUES = np.random.default_rng(0).standard_normal((N, K))
LAYOUTS = {
    "plain": {"chunks": (5, 4), "compressors": None},
    "whole rows": {"chunks": (5, K), "compressors": None},
    "gzip": {"chunks": (5, 4), "compressors": GzipCodec()},
    "shards": {"chunks": (5, 4), "shards": (10, 8)},
    "read by zarr-python": {
        "chunks": (5, 4),
        "filters": TransposeCodec(order=(1, 0)),
    },
    "version 2": {"chunks": (5, 4), "zarr_format": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns", [(0, K), (0, 4), (4, 8), (3, 5), (6, 11), (10, 11)])
@pytest.mark.parametrize("rows", [None, 7])
def test_columns_of_zarr_are_those_of_the_array(tmp_path, layout, columns, rows):
    source = open_source(write_zarr(tmp_path / "y.zarr", VALUES, **LAYOUTS[layout]), "y")
    part = column_range(source, *columns)
    assert part.shape == (N, columns[1] - columns[0])
    np.testing.assert_array_equal(read_all(part, rows), VALUES[:, slice(*columns)])


def _hdf5(path):
    file = h5py.File(path / "y.h5", "w")
    return file.create_dataset("y", data=VALUES, chunks=(5, 4))


def _mapped(path):
    np.save(path / "y.npy", VALUES)
    return np.load(path / "y.npy", mmap_mode="r")


@pytest.mark.parametrize("kind", [lambda _: VALUES, _mapped, _hdf5], ids=["memory", "map", "hdf5"])
def test_columns_of_any_array_are_those_of_the_array(tmp_path, kind):
    part = column_range(open_source(kind(tmp_path), "y"), 3, 9)
    np.testing.assert_array_equal(read_all(part, 6), VALUES[:, 3:9])


def test_one_target_and_all_targets_are_the_array_itself():
    for values, stop in ((VALUES, K), (VALUES[:, 0], 1)):
        source = open_source(values, "y")
        assert column_range(source, 0, stop) is source


def test_only_the_chunks_of_the_columns_are_read(tmp_path):
    path = tmp_path / "y.zarr"
    source = open_source(write_zarr(path, VALUES, chunks=(5, 4)), "y")
    for chunk in path.glob("c/*/[02]"):
        chunk.write_bytes(b"damaged")
    part = column_range(source, 4, 8)
    np.testing.assert_array_equal(read_all(part), VALUES[:, 4:8])
    assert part.pass_nbytes == 8 * N * 4
    with (
        pytest.raises(DataCorruptionError, match=r"chunk c/1/2 of .*y\.zarr \(rows 5"),
        closing(column_range(source, 8, 9).open()) as reader,
    ):
        reader.read(5, 10)


def test_a_file_that_changes_between_two_ranges_is_an_error(tmp_path):
    path = tmp_path / "y.zarr"
    source = open_source(write_zarr(path, VALUES, chunks=(5, 4)), "y")
    read_all(column_range(source, 0, 2))
    zarr.open_array(path, mode="r+")[:5, :4] = 0.5
    with pytest.raises(DataCorruptionError, match="changed since it was first read"):
        read_all(column_range(source, 2, 4))
    with pytest.raises(DataCorruptionError, match="changed since it was first read"):
        source.require_unchanged()
