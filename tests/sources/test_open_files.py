"""Readers keep few files open, and say what to do if the system opens no more."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import zarr

import streamreg
from streamreg.formatting import MIB

FIT = """
import resource, sys
import streamreg
model = streamreg.LinearRegression(solver="cg", n_threads=4, memory_limit="2 GiB")
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
model.fit(sys.argv[1], sys.argv[2])
print(model.coef_.tobytes().hex())
"""
EXHAUSTED = """
import os, resource, sys
from streamreg.sources.open import open_dataset
X = open_dataset(sys.argv[1], None, needs_y=False).X
reader = X.open()
reader.read(0, 1)
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
for file in held[:4]:
    os.close(file)
# six chunks
assert reader.parts(0, 6 * X.grid.chunk_rows) is None
rows = reader.read(0, 6 * X.grid.chunk_rows)
assert rows.shape == (6 * X.grid.chunk_rows, 4)
reader.close()
held = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
try:
    reader.read(0, 1)
except OSError as error:
    print(type(error).__name__, error)
"""


def printed(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Rows in blocks of 64 chunks each, for four threads."""
    path = tmp_path_factory.mktemp("open_files")
    X = np.random.default_rng(0).standard_normal((64 * MIB // 32, 4))
    zarr.create_array(store=path / "X.zarr", data=X, chunks=(MIB // 4 // 32, 4), compressors=None)
    zarr.create_array(store=path / "y.zarr", data=X @ np.arange(4.0), chunks=(len(X) // 8,))
    return path


def test_many_threads_share_a_low_limit_of_open_files(store):
    paths = store / "X.zarr", store / "y.zarr"
    model = streamreg.LinearRegression(solver="cg", memory_limit="2 GiB").fit(*map(str, paths))
    assert printed(FIT, *paths).strip() == model.coef_.tobytes().hex()


def test_s14_without_files_rows_are_read_one_file_at_a_time_then_the_limit_is_named(store):
    text = printed(EXHAUSTED, store / "X.zarr")
    assert text.startswith("DataCorruptionError chunk c/0/0 of ")
    assert (
        "Too many open files. Raise the limit of open files (ulimit -n), or lower n_threads" in text
    )
    assert "copy" not in text
