"""Readers hold no more memory than planned, each measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from stores import write_zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from streamreg.engines.partition import Blocks
from streamreg.formatting import KIB, MIB
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.chunk_reader import RowBuffer
from streamreg.sources.open import open_dataset

ROW = 128  # float64 values
BAND = 8 * MIB // (8 * ROW)
_MEASURE = """
import gc, re
from pathlib import Path
from streamreg.engines.partition import Blocks
from streamreg.sources.kinds import open_source

def nbytes(field):
    return 1024 * int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

def read(source):
    reader = source.open()
    for start, stop in Blocks.of(source.grid, source.row_nbytes):
        # like an engine, this holds a block during the next read
        block = reader.read(start, stop)
    reader.close()

{source}

read(open_source(data(SMALL), "X"))  # what the first use imports and retains
gc.collect()
source = open_source(data(LARGE), "X")
Path("/proc/self/clear_refs").write_text("5")
before = nbytes("VmRSS")
read(source)
high = nbytes("VmHWM")
blocks = Blocks.of(source.grid, source.row_nbytes)
print(source.reader_nbytes(blocks.max_rows), source.shared_nbytes, high - before)
"""


def assert_holds_no_more_than_planned(source: str, small: str, large: str) -> None:
    """Compare the bytes that a reader plans with those that it adds to a process of its own.

    Parameters
    ----------
    source
        Python that defines ``data(path)``.
    small, large
        Paths for ``data``: to warm up with, and to measure.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the high mark of a process can be reset on Linux only")
    code = _MEASURE.replace("{source}", source)
    result = subprocess.run(
        [sys.executable, "-c", f"SMALL, LARGE = {small!r}, {large!r}\n{code}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        # freed memory goes back at once, so that only the reader is measured
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    planned, shared, measured = map(int, result.stdout.split())
    # 1 MiB: pages that the interpreter takes meanwhile
    assert measured <= planned + shared + MIB
    assert planned <= 3 * measured


LAYOUTS = {
    "plain": {"compressors": None},
    "zstd": {"compressors": ZstdCodec()},
    "blosc": {"compressors": BloscCodec()},
    "gzip": {"compressors": GzipCodec(level=1)},
    "crc32c": {"compressors": Crc32cCodec()},
    "lz4": {"compressors": numcodecs.LZ4(), "zarr_format": 2},
    "columns": {"chunks": (BAND, ROW // 4)},
    "plain columns": {"chunks": (BAND, ROW // 4), "compressors": None},
    "shards": {"chunks": (BAND // 4, ROW), "shards": (BAND, ROW)},
    "zarr-python": {"filters": (TransposeCodec(order=(1, 0)),)},
    "zarr-python columns": {"chunks": (BAND, 8), "filters": (TransposeCodec(order=(1, 0)),)},
    "zarr-python shards": {
        "chunks": (BAND // 2, ROW),
        "shards": (BAND, ROW),
        "filters": (TransposeCodec(order=(1, 0)),),
    },
    "zarr-python filter": {"filters": [numcodecs.Delta("f8")], "zarr_format": 2},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_reader_of_zarr_holds_no_more_than_planned(store, name):
    layout = {"chunks": (BAND, ROW), **LAYOUTS[name]}
    # values that cannot be compressed, so that encoded chunks are as large as possible
    values = np.random.default_rng(0).random((3 * BAND, ROW))
    large = store(values, "large", **layout)
    small = {
        key: tuple(max(1, length // 64) if at == 0 else length for at, length in enumerate(shape))
        if key in {"chunks", "shards"}
        else shape
        for key, shape in layout.items()
    }
    assert_holds_no_more_than_planned(
        "def data(path): return path", store(values[: BAND // 16], "small", **small), large
    )


@pytest.mark.parametrize("name", ["plain", "columns", "plain columns"])
def test_a_reader_of_columns_holds_no_more_than_planned(store, name):
    # strips of 1 MiB: rows of chunks are read in parts, or chunks are decoded
    layout = {"chunks": (BAND, ROW), **LAYOUTS[name]}
    values = np.random.default_rng(0).random((3 * BAND, ROW))
    large, small = store(values, "large", **layout), store(values[:64], "small", **layout)
    strips = """
from streamreg.sources import kinds
def data(path): return path
def open_source(path, name):
    return kinds.open_source(path, name).in_strips(32)
"""
    assert_holds_no_more_than_planned(strips, small, large)


@pytest.mark.parametrize("name", ["plain", "zstd", "columns", "zarr-python"])
def test_a_reader_of_packed_values_holds_no_more_than_planned(store, name):
    layout = {"chunks": (BAND, ROW), **LAYOUTS[name]}
    values = np.random.default_rng(0).integers(-9999, 9999, (3 * BAND, ROW), "i2")
    paths = [store(values[: BAND // 16], "small", **layout), store(values, "large", **layout)]
    for path in paths:
        attributes = {"scale_factor": 0.01, "_FillValue": -1, "valid_max": 9000}
        zarr.open_array(path).attrs.update(attributes)
    assert_holds_no_more_than_planned("def data(path): return path", *paths)


HDF5 = """
import h5py
def data(path):
    return h5py.File(path)["X"]
"""


@pytest.mark.parametrize(
    ("chunks", "compression"),
    [
        (None, None),
        ((BAND, ROW), None),
        ((BAND, ROW), "gzip"),
        ((BAND // 4, ROW // 4), "gzip"),
        ((64, ROW), "gzip"),
        ((BAND, ROW), "lzf"),
        ((64, ROW), "lzf"),
        ((BAND, ROW // 3), "shuffle"),
    ],
)
def test_a_reader_of_hdf5_holds_no_more_than_planned(tmp_path, chunks, compression):
    h5py = pytest.importorskip("h5py")
    values = np.random.default_rng(0).random((4 * BAND, ROW))
    for name, rows in (("small", 64), ("large", len(values))):
        shape = None if chunks is None else (min(rows, chunks[0]), chunks[1])
        with h5py.File(tmp_path / name, "w") as file:
            options = {"compression_opts": 1} if compression in {"gzip", "shuffle"} else {}
            if compression == "shuffle":
                options |= {"shuffle": True, "fletcher32": True}
                compression = "gzip"
            file.create_dataset(
                "X", data=values[:rows], chunks=shape, compression=compression, **options
            )
    assert_holds_no_more_than_planned(HDF5, str(tmp_path / "small"), str(tmp_path / "large"))


@pytest.mark.parametrize(
    ("order", "view"),
    [("C", ":"), ("F", ":"), ("C", "::2"), ("C", ":, ::3"), ("F", "::2, ::-1"), ("C", ":, :60")],
)
def test_a_reader_of_a_map_holds_no_more_than_planned(tmp_path, order, view):
    np.zeros(4 * BAND * ROW).tofile(tmp_path / "X.bin")
    source = f"""
import numpy as np
def data(path):
    rows = {{SMALL: 64, LARGE: {4 * BAND}}}[path]
    X = np.memmap({str(tmp_path / "X.bin")!r}, float, "r", shape=(rows, {ROW}), order={order!r})
    return X[{view}]
"""
    assert_holds_no_more_than_planned(source, "small", "large")


ZARR = """
import dask.array as da
def data(path):
    x = da.from_zarr(path)
    return {expression}
"""


@pytest.mark.parametrize(
    "expression",
    [
        "x",
        "x[:, 3]",
        "x @ da.ones((128, 64), chunks=-1)",
        "(x - x.mean(axis=0)) / x.std(axis=0)",
        "x.rechunk((1000, -1))",
        "da.random.default_rng(0).normal(size=x.shape, chunks=x.chunks)",
    ],
)
def test_a_reader_of_dask_holds_no_more_than_planned(tmp_path, expression):
    values = np.random.default_rng(0).random((4 * BAND, ROW))
    small = write_zarr(tmp_path / "small", values[:200], chunks=(20, ROW))
    large = write_zarr(tmp_path / "large", values, chunks=(BAND, ROW))
    assert_holds_no_more_than_planned(ZARR.replace("{expression}", expression), small, large)


def test_a_data_set_holds_no_more_than_planned_where_y_has_other_chunks(store):
    X, y = np.ones((40_000, 8)), np.ones((40_000, 16))
    plain = store(X, "X", chunks=(14_000, 8), compressors=None)
    dataset = open_dataset(plain, store(y, "y", chunks=(9_000, 16)))
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    reader = BlockReader(dataset)
    tracemalloc.start()
    for start, stop in blocks:
        reader.read(start, stop)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 64 KiB: Python's own objects
    assert peak <= dataset.reader_nbytes(blocks.max_rows) + 64 * KIB


def test_a_buffer_that_grows_never_coexists_with_the_old_one():
    room = RowBuffer((1000,), np.dtype("f8"))
    room.rows(1000)
    tracemalloc.start()
    room.rows(1100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1101 * 8000
