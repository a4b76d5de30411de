"""Readers of X, y and weights together: what they open is closed, also after a failure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from streamreg.accumulators.gradient import Gradient
from streamreg.errors import DataCorruptionError, InputError
from streamreg.kernels.registry import best_kernels, load_kernels
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.kinds import open_source
from streamreg.sources.open import open_dataset


def n_open_files():
    return len(list(Path("/dev/fd").iterdir()))


def mapped(path, shape):
    np.ones(shape).tofile(path)
    return np.memmap(path, float, "r", shape=shape)


def test_x_is_closed_if_y_cannot_be_opened(tmp_path):
    X, y = mapped(tmp_path / "X", (1000, 3)), mapped(tmp_path / "y", (1000,))
    dataset = open_dataset(X, y)
    os.truncate(tmp_path / "y", 8)
    before = n_open_files()
    with pytest.raises(DataCorruptionError, match="y needs 8,000"):
        BlockReader(dataset)
    assert n_open_files() == before


def test_all_readers_are_closed(tmp_path):
    shapes = {"X": (1000, 3), "y": (1000,), "weight": (1000,)}
    dataset = open_dataset(*(mapped(tmp_path / name, shape) for name, shape in shapes.items()))
    before = n_open_files()
    reader = BlockReader(dataset)
    assert n_open_files() == before + 3
    reader.close()
    assert n_open_files() == before


@pytest.mark.parametrize("kind", ["zarr", "memmap"])
def test_a_file_whose_status_cannot_be_read_is_closed(tmp_path, monkeypatch, store, kind):
    data = mapped(tmp_path / "X", (100, 3)) if kind == "memmap" else store(np.ones((100, 3)))
    source = open_source(data, "X")

    def fstat(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = n_open_files()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", fstat)
        reader = source.open()
        if kind == "zarr":
            with pytest.raises(DataCorruptionError, match=r"c/0/0 of .* Input/output error"):
                reader.read(0, 100)
        else:
            # rows are read from the map instead
            np.testing.assert_array_equal(reader.read(0, 100), np.ones((100, 3)))
    reader.close()
    assert n_open_files() == before


def test_weights_that_are_negative_are_named_by_row(store):
    weights = np.ones(20)
    weights[13] = -1
    reader = BlockReader(open_dataset(store(np.ones((20, 2))), np.ones(20), weights))
    with pytest.raises(InputError, match=r"sample_weight is -1\.0 in row 13"):
        reader.read(0, 20)


def _many_files(path, X):
    group = zarr.create_group(path / "a.zarr")
    group.create_array("X", data=X, chunks=(700, X.shape[1]), compressors=None)
    return path / "a.zarr" / "X"


def _many_shards(path, X):
    group = zarr.create_group(path / "a.zarr")
    chunks, shards = (300, X.shape[1]), (1_200, X.shape[1])
    group.create_array("X", data=X, chunks=chunks, shards=shards, compressors=None)
    return path / "a.zarr" / "X"


def _mapped(path, X):
    np.save(path / "a.npy", X)
    return np.load(path / "a.npy", mmap_mode="r")


def _contiguous(path, X):
    with h5py.File(path / "a.h5", "w") as file:
        file["X"] = X
    return h5py.File(path / "a.h5")["X"]


@pytest.mark.parametrize("written", [_many_files, _many_shards, _mapped, _contiguous])
def test_kernels_read_the_same_rows_from_files_as_the_reader(tmp_path, written):
    X = np.random.default_rng(0).standard_normal((5_000, 6))
    dataset = open_dataset(written(tmp_path, X), X[:, 0])
    reader = BlockReader(dataset)
    coefficients, gradients = np.linspace(-1, 1, 6)[:, None], []
    for in_files in (True, False):
        accumulator = Gradient(coefficients, np.zeros(1), 1)
        state = accumulator.zero()
        for start, stop in [(0, 650), (650, 4_000), (4_000, 5_000)]:
            block = reader.read(start, stop, in_files=in_files)
            np.testing.assert_array_equal(block.X[:], X[start:stop])
            # read again, because the rows of a block are valid until the next read
            block = reader.read(start, stop, in_files=in_files)
            kernels = load_kernels(best_kernels()).for_block(block)
            state = accumulator.update(state, block, kernels)
        gradients.append(accumulator.finalize(state).gradient)
    assert block.kind == "dense"
    np.testing.assert_array_equal(*gradients)
    reader.close()


def test_rows_of_more_files_than_may_be_open_are_read_in_pieces(tmp_path):
    X = np.random.default_rng(0).standard_normal((20_000, 40))
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=X, chunks=(100, 40), compressors=None)
    reader = BlockReader(open_dataset(tmp_path / "a.zarr" / "X", X[:, 0]))
    before = n_open_files()
    assert len(reader.read(0, 6_000, in_files=True).X.files) == 60
    assert n_open_files() == before + 60
    block = reader.read(0, 20_000, in_files=True)
    assert block.kind == "file"
    assert len(block.X.files) == 0
    assert block.is_finite()
    assert_gradient(reader.read(0, 20_000, in_files=True), X)
    # the buffer never held more than a piece of the block
    assert reader._X._buffer.rows(0).base.nbytes <= 300_000
    reader.close()
    assert n_open_files() <= before


def assert_gradient(block, X):
    accumulator = Gradient(np.ones((X.shape[1], 1)), np.zeros(1), 1)
    kernels = load_kernels(best_kernels()).for_block(block)
    state = accumulator.update(accumulator.zero(), block, kernels)
    expected = X.T @ (X.sum(axis=1) - X[:, 0]) / len(X)
    np.testing.assert_allclose(accumulator.finalize(state).gradient[:, 0], expected, rtol=1e-12)


@pytest.mark.parametrize("change", ["replaced", "another folder"])
def test_kernels_read_the_hdf5_file_that_is_open(tmp_path, monkeypatch, change):
    X = np.random.default_rng(0).standard_normal((5_000, 4))
    monkeypatch.chdir(tmp_path)
    for name, rows in (("a.h5", X), ("b.h5", 2 * X)):
        with h5py.File(name, "w") as file:
            file["X"] = rows
    (tmp_path / "other").mkdir()
    (tmp_path / "b.h5").replace(tmp_path / "other" / "a.h5")
    with h5py.File("a.h5") as file:
        reader = BlockReader(open_dataset(file["X"], X[:, 0]))
        if change == "replaced":
            (tmp_path / "other" / "a.h5").replace(tmp_path / "a.h5")
        else:
            monkeypatch.chdir(tmp_path / "other")
        block = reader.read(0, 5_000, in_files=True)
        assert len(block.X.files) == 1
        assert_gradient(block, X)
        reader.close()


def test_hdf5_converts_a_stored_type_that_is_not_the_arrays_dtype(tmp_path):
    # 12 of 16 bits, from bit 4 on
    stored = h5py.h5t.STD_U16LE.copy()
    stored.set_precision(12)
    stored.set_offset(4)
    X = np.random.default_rng(0).integers(0, 4_000, (5_000, 3), np.uint16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        array = h5py.h5d.create(file.id, b"X", stored, h5py.h5s.create_simple(X.shape))
        array.write(h5py.h5s.ALL, h5py.h5s.ALL, X)
    with h5py.File(tmp_path / "a.h5") as file:
        reader = BlockReader(open_dataset(file["X"], X[:, 0]))
        assert_gradient(reader.read(0, 5_000, in_files=True), X.astype(float))
        reader.close()


def test_long_doubles_of_a_mapped_file_are_converted(tmp_path):
    X = np.random.default_rng(0).standard_normal((5_000, 3)).astype(np.longdouble)
    np.save(tmp_path / "a.npy", X)
    reader = BlockReader(open_dataset(np.load(tmp_path / "a.npy", mmap_mode="r"), np.ones(5_000)))
    assert reader.read(0, 5_000, in_files=True).kind == "dense"
    reader.close()
