"""Plans of arrays that are far too large, and of chunks larger than the array."""

from __future__ import annotations

import re

import numpy as np
import pytest
import zarr

import streamreg
from streamreg import InputError, MemoryLimitError


class Declared:
    """An array that declares any shape, and fails if it is read."""

    dtype = np.dtype("f8")

    def __init__(self, *shape):
        self.shape = shape

    def __getitem__(self, key):
        raise AssertionError("planning must not read")


@pytest.mark.parametrize(
    ("n_rows", "n_features", "a_pass"),
    [(10**15, 20, "149.2 PiB"), (10**18, 100, "700.8 EiB"), (2**63 - 1, 5, "384.0 EiB"),
     (1000, 10**9, "7.3 TiB")],
)  # fmt: skip
def test_the_size_of_a_pass_is_readable_however_large_it_is(n_rows, n_features, a_pass):
    made = streamreg.plan(Declared(n_rows, n_features), Declared(n_rows), n_threads=1)
    assert f"each pass reads {a_pass}; " in str(made)
    assert f"N = {n_rows:,}, D = {n_features:,}" in str(made)


def test_more_rows_than_an_array_can_have_are_refused():
    with pytest.raises(InputError, match="more than any array can have"):
        streamreg.plan(Declared(10**30, 3), Declared(10**30))


@pytest.mark.parametrize(
    ("shape", "chunks", "limit"),
    # limits at which the stored array does not fit, and the rewritten one does
    [((50, 2000), (10**6, 5000), "14.6 MiB"), ((3000, 2000), (4000, 5000), "20 MiB")],
)
def test_advised_chunks_are_no_larger_than_the_array(tmp_path, shape, chunks, limit):
    X = zarr.create_array(tmp_path / "X", shape=shape, chunks=chunks, dtype="f8")
    advice = str(streamreg.plan(X, np.ones(shape[0]), memory_limit=limit, n_threads=1))
    rows, columns = re.search(r"chunks=\((\d+), (\d+)\)", advice).groups()
    assert int(rows) < shape[0]
    assert int(columns) == shape[1]
    steps = [int(step) for step in re.findall(r"range\(0, \d+, (\d+)\)", advice)]
    assert steps == list(shape)


def test_two_limits_that_print_alike_are_offered_once():
    with pytest.raises(MemoryLimitError) as caught:
        streamreg.LinearRegression(solver="gd", memory_limit=1000).fit(np.ones((9, 2)), np.ones(9))
    offered = re.findall(r"to ([\d.]+ \w+)", str(caught.value).splitlines()[-1])
    assert len(offered) == len(set(offered)) > 0
