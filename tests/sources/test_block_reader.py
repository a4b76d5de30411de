"""Readers of X, y and weights together: what they open is closed, also after a failure."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from streamreg.errors import DataCorruptionError, InputError
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
            # from the map instead
            np.testing.assert_array_equal(reader.read(0, 100), np.ones((100, 3)))
    reader.close()
    assert n_open_files() == before


def test_weights_that_are_negative_are_named_by_row(store):
    weights = np.ones(20)
    weights[13] = -1
    reader = BlockReader(open_dataset(store(np.ones((20, 2))), np.ones(20), weights))
    with pytest.raises(InputError, match=r"sample_weight is -1\.0 in row 13"):
        reader.read(0, 20)
