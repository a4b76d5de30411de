"""Chunk files: which of them the system is asked to fetch ahead."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zarr

from streamreg.accumulators.gradient import Gradient
from streamreg.engines.threads import ThreadsEngine
from streamreg.sources.dataset import open_dataset


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system takes no such advice")
@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ({}, 15),  # all but the first chunk of the segment
        ({"compressors": None}, 0),
        ({"shards": (4000, 65)}, 0),
    ],
    ids=["zstd", "uncompressed", "sharded"],
)
def test_the_chunk_after_the_one_in_work_is_fetched(tmp_path, monkeypatch, layout, expected):
    X = np.random.default_rng(0).standard_normal((16_000, 65))
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("X", data=X, chunks=(1_000, 65), **layout)
    group.create_array("y", data=X[:, 0])
    asked = []

    def advise(file, offset, nbytes, advice):
        asked.append((os.fstat(file).st_ino, offset, advice))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    with ThreadsEngine(open_dataset(tmp_path / "a.zarr"), 1) as engine:
        engine.reduce(Gradient(np.ones((65, 1)), np.zeros(1), 1))
    files = {path.stat().st_ino for path in (tmp_path / "a.zarr/X/c").glob("*/*")}
    assert len(asked) <= expected
    # a block may join a few chunks, of which each is asked for once
    assert bool(asked) == bool(expected)
    assert len({inode for inode, *_ in asked} & files) == len(asked)
    assert {advice for *_, advice in asked} <= {os.POSIX_FADV_WILLNEED}
