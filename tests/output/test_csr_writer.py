"""Sparse rows that are written by threads: all chunks, in their places, or nothing."""

import threading

import numpy as np
import pytest
import zarr

from streamreg.output import chunk_writers, csr_writer
from streamreg.output.chunk_writers import ChunkWriters
from streamreg.output.csr_writer import CsrWriter, GrowingArray
from streamreg.output.zarr_writer import compressors, new_group


def write(path, parts, n_columns=9):
    with new_group(path, overwrite=False) as group, ChunkWriters(3) as writers:
        rows = CsrWriter(group, "X", writers)
        for part in parts:
            rows.append(*part)
        rows.close(n_columns)


def part(values, *, is_float32):
    n = len(values)
    columns = np.arange(n, dtype=np.int32) % 9
    return np.asarray(values, float), columns, np.array([0, n // 2, n]), is_float32


@pytest.mark.parametrize("lengths", [(0, 1, 2, 3), (4, 4), (1, 30, 9), (100,)])
def test_values_of_all_parts_are_stored_in_order(tmp_path, monkeypatch, lengths):
    monkeypatch.setattr(csr_writer, "_CHUNK_VALUES", 4)
    parts = [part(np.arange(n), is_float32=True) for n in lengths]
    write(tmp_path / "a.zarr", parts)
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")["X"]
    np.testing.assert_array_equal(group["data"][:], np.concatenate([each[0] for each in parts]))
    np.testing.assert_array_equal(group["indices"][:], np.concatenate([each[1] for each in parts]))
    lengths_of_rows = np.concatenate([np.diff(each[2]) for each in parts])
    np.testing.assert_array_equal(np.diff(group["indptr"][:]), lengths_of_rows)
    assert group["data"].dtype == np.float32
    assert (group["indptr"][0], group.attrs["shape"]) == (0, [2 * len(parts), 9])


def test_values_beyond_float32_widen_those_before_and_zeros_are_stored(tmp_path, monkeypatch):
    monkeypatch.setattr(csr_writer, "_CHUNK_VALUES", 4)
    values = [np.arange(10.0), np.array([0.1]), np.zeros(20)]
    write(tmp_path / "a.zarr", [part(each, is_float32=each[0] != 0.1) for each in values])
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")["X"]
    assert group["data"].dtype == np.float64
    np.testing.assert_array_equal(group["data"][:], np.concatenate(values))
    assert sorted(group.array_keys()) == ["data", "indices", "indptr"]
    # an absent chunk is an error for a reader
    assert group["data"].nchunks_initialized == 8


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_chunks_are_those_that_zarr_writes(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(csr_writer, "_CHUNK_VALUES", 1000)
    values = np.random.default_rng(0).integers(0, 9, 2500).astype(dtype)
    with new_group(tmp_path / "a.zarr", overwrite=False) as group, ChunkWriters(2) as writers:
        array = GrowingArray(group, "values", dtype, writers)
        array.append(values)
        array.close()
    ours = zarr.open_array(tmp_path / "a.zarr/values")
    zarrs = zarr.create_array(
        tmp_path / "b.zarr", shape=2500, dtype=dtype, chunks=1000, compressors=compressors()
    )
    zarrs[:] = values
    np.testing.assert_array_equal(ours[:], values)
    assert ours.metadata == zarrs.metadata
    for key in ("c/0", "c/1", "c/2"):
        stored = (tmp_path / "a.zarr/values" / key).read_bytes()
        assert stored == (tmp_path / "b.zarr" / key).read_bytes()


def test_an_error_of_a_thread_leaves_no_output(tmp_path, monkeypatch):
    monkeypatch.setattr(csr_writer, "_CHUNK_VALUES", 4)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chunk_writers, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "a.zarr", [part(np.arange(99), is_float32=True)])
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_an_interrupted_output_is_removed_when_no_thread_writes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(csr_writer, "_CHUNK_VALUES", 4)
    begun, go_on, found = threading.Event(), threading.Event(), []

    def slow(path):
        begun.set()
        go_on.wait(10)
        found.append(path.exists())

    def parts():
        yield part(np.arange(4), is_float32=True)
        assert begun.wait(10)
        threading.Timer(0.05, go_on.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(chunk_writers, "sync", slow)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.zarr", parts())
    assert found
    assert all(found)
    assert list(tmp_path.iterdir()) == []
