"""Chunk files: which of them are fetched ahead, watched, and left open."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr

from streamreg.accumulators.gradient import Gradient
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataCorruptionError
from streamreg.sources.file_stamps import FileStamps
from streamreg.sources.kinds import open_source
from streamreg.sources.open import open_dataset


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system has no posix_fadvise")
@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ({}, range(3, 16)),  # all but the first block, of three chunks
        ({"compressors": None}, []),
        ({"shards": (4000, 65)}, []),
    ],
    ids=["zstd", "uncompressed", "sharded"],
)
def test_the_next_chunk_is_fetched_ahead(tmp_path, monkeypatch, layout, expected):
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
    files = {
        path.stat().st_ino: int(path.parent.name) for path in (tmp_path / "a.zarr/X/c").glob("*/*")
    }
    assert [files[inode] for inode, *_ in asked] == [*expected]
    assert {advice for *_, advice in asked} <= {os.POSIX_FADV_WILLNEED}


def test_threads_that_read_at_once_share_the_stamps(tmp_path, monkeypatch):
    zeros, made, both = np.zeros, [], threading.Barrier(2)

    def made_slowly(*given):
        made.append(given)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # for another thread that does the same
        return zeros(*given)

    monkeypatch.setattr(np, "zeros", made_slowly)
    stamps, status = FileStamps((2,), str), tmp_path.stat()
    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(lambda at: stamps.agree((at,), status), range(2)))
    assert len(made) == 1
    assert len(stamps.seen()) == 2


def test_only_a_file_whose_rows_were_used_must_not_change(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"bb")
    before, after = (tmp_path / "a").stat(), (tmp_path / "b").stat()
    stamps = FileStamps((3,), str)
    for at in ((0,), (1,)):
        assert stamps.agree(at, before)
    stamps.use((1,))  # as by a thread, while another finds damage in that shard
    assert stamps.forget_unused((0,))
    assert not stamps.forget_unused((1,))
    assert stamps.agree((0,), after)
    assert not stamps.agree((1,), after)
    # one process used a file and another only opened it: both saw the same version
    other = FileStamps((3,), str)
    other.agree((1,), before)
    other.merge(stamps.seen())
    assert not other.forget_unused((1,))
    other = FileStamps((3,), str)
    other.agree((1,), after)
    with pytest.raises(DataCorruptionError, match="changed since it was first read"):
        other.merge(stamps.seen())


def test_a_look_at_one_row_leaves_the_files_of_a_block_open(tmp_path):
    # another thread could open another file with the number of a closed one
    X = np.arange(24.0).reshape(12, 2)
    zarr.create_array(store=tmp_path / "X.zarr", data=X, chunks=(4, 2), compressors=None)
    with contextlib.closing(open_source(tmp_path / "X.zarr", "X").open()) as reader:
        parts = reader.parts(0, 12)
        np.testing.assert_array_equal(reader.read(0, 1), X[:1])
        read = [os.pread(file, 16 * n_rows, offset) for file, offset, n_rows in parts]
    assert b"".join(read) == X.tobytes()
