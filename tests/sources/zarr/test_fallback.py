"""Stores that only zarr-python reads: absent chunks are errors, and few requests find them."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from stores import read_all, write_zarr

from streamreg import LinearRegression
from streamreg.errors import DataCorruptionError
from streamreg.sources.kinds import open_source


class CountingStore(zarr.storage.MemoryStore):
    """Records the keys of chunks whose existence is asked for."""

    def __init__(self, memory):
        super().__init__(memory, read_only=True)
        self.asked = []

    async def exists(self, key):
        self.asked.append(key)
        return await super().exists(key)


def stored(values, fill_value=0.0, **layout):
    """Return an open array in a new store, and that store."""
    memory = {}
    write_zarr(
        zarr.storage.MemoryStore(memory), values, chunks=(10, 2), fill_value=fill_value, **layout
    )
    store = CountingStore(memory)
    array = zarr.open_array(store, mode="r")
    store.asked = []
    return array, store


LAYOUTS = pytest.mark.parametrize("layout", [{}, {"shards": (20, 4)}], ids=["chunks", "shards"])


@LAYOUTS
def test_chunks_with_other_values_than_the_fill_value_are_not_asked_for(layout):
    X = np.random.default_rng(0).standard_normal((40, 4))
    X[:10, 0] = 0
    array, store = stored(X, **layout)
    model = LinearRegression(solver="cg").fit(array, X[:, 1])
    assert model.n_iter_ > 2
    assert store.asked == []


@LAYOUTS
@pytest.mark.parametrize("fill_value", [0.0, np.nan, 7.0])
def test_chunks_of_the_fill_value_alone_are_asked_for_once(layout, fill_value):
    X = np.random.default_rng(0).standard_normal((40, 4))
    X[10:20, 2:] = fill_value
    array, store = stored(X, fill_value, **layout)
    source = open_source(array, "X")
    for _ in range(3):
        np.testing.assert_array_equal(read_all(source), X)
    assert len(store.asked) == 1


@LAYOUTS
@pytest.mark.parametrize("fill_value", [0.0, np.nan])
def test_a_chunk_that_vanishes_between_passes_is_an_error(layout, fill_value):
    X = np.random.default_rng(0).standard_normal((40, 4))
    array, store = stored(X, fill_value, **layout)
    source = open_source(array, "X")
    read_all(source)
    del store._store_dict["c/0/0" if layout else "c/1/0"]
    message = "shard c/0/0 of .* is missing" if layout else r"chunk c/1/0 of .* \(rows 10.19\) is"
    with pytest.raises(DataCorruptionError, match=message):
        read_all(source)


def test_an_error_names_the_chunk_that_cannot_be_read():
    array, store = stored(np.random.default_rng(0).standard_normal((40, 4)))
    damaged = store._store_dict["c/2/1"]
    store._store_dict["c/2/1"] = damaged.from_bytes(b"damaged")
    with pytest.raises(
        DataCorruptionError, match=r"chunk c/2/1 of .*\(rows 20.29\) cannot be read"
    ):
        read_all(open_source(array, "X"))
