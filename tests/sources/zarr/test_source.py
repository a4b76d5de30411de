"""Zarr arrays, v2 and v3, have the rows of NumPy with any chunks, codecs and stores."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numcodecs
import numpy as np
import pyarrow as pa
import pytest
import strategies as ours
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import read_all, write_zarr
from zarr.codecs import Crc32cCodec, GzipCodec, ShardingCodec, TransposeCodec, ZstdCodec

from streamreg.errors import DataCorruptionError, InputError
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.kinds import open_source
from streamreg.sources.open import open_dataset


def same(read: np.ndarray, expected: np.ndarray) -> bool:
    """Whether values and dtype agree, whatever the byte order."""
    return read.dtype.newbyteorder("=") == expected.dtype.newbyteorder("=") and np.array_equal(
        read, expected
    )


def assert_rows(source, values, spans):
    reader = source.open()
    for start, stop in spans:
        assert same(reader.read(start, stop), values[start:stop]), (start, stop)
    reader.close()


def assert_names_exist(source, folder):
    """Every chunk that a message would name is a file, and its rows are in the array."""
    columns = [0] if len(source.shape) == 1 else range(source.shape[1])
    for row in range(source.shape[0]):
        for column in columns:
            place = source.place(row, column)
            key = place.split(" of ")[-2].split(" ")[-1]
            assert (folder / key).is_file(), place
            rows = place.split("(row")[-1].replace(",", "")
            bounds = [int(text) for text in re.findall(r"\d+", rows)]
            assert bounds[0] <= row <= bounds[-1] < source.shape[0], place


@given(st.data())
@settings(max_examples=100)
def test_version_3_has_the_rows_of_numpy(tmp_path, data):
    values = data.draw(ours.arrays())
    layout, direct = data.draw(ours.v3_layouts(values.shape))
    path = write_zarr(tmp_path / "X.zarr", values, **layout)
    source = open_source(path, "X")
    assert (source.files is not None) == direct
    assert_rows(source, values, data.draw(ours.spans(len(values))))


@given(st.data())
@settings(max_examples=100)
def test_version_2_has_the_rows_of_numpy(tmp_path, data):
    values = data.draw(ours.arrays())
    layout, direct = data.draw(ours.v2_layouts(values))
    path = write_zarr(tmp_path / "X.zarr", values, **layout)
    source = open_source(path, "X")
    assert (source.files is not None) == direct
    assert_rows(source, values, data.draw(ours.spans(len(values))))


@given(st.data())
def test_messages_name_chunks_that_are_on_disk(tmp_path, data):
    values = data.draw(ours.arrays())
    if data.draw(st.booleans()):
        layout, _ = data.draw(ours.v3_layouts(values.shape))
    else:
        layout, _ = data.draw(ours.v2_layouts(values))
    path = write_zarr(tmp_path / "X.zarr", values, **layout)
    assert_names_exist(open_source(path, "X"), Path(path))


@given(st.data())
def test_y_and_weights_may_have_other_chunks_than_x(tmp_path, data):
    n = data.draw(st.integers(1, 50))
    X = ours.filled((n, 3), np.dtype("f4"))
    y = data.draw(ours.arrays(data.draw(st.sampled_from([(n,), (n, 1), (n, 2)]))))
    weight = np.arange(1.0, n + 1)
    paths = []
    for name, values in (("X", X), ("y", y), ("w", weight)):
        layout, _ = data.draw(ours.v3_layouts(values.shape))
        paths.append(write_zarr(tmp_path / f"{name}.zarr", values, **layout))
    reader = BlockReader(open_dataset(*paths))
    for start, stop in data.draw(ours.spans(n)):
        block = reader.read(start, stop)
        assert block.start == start
        assert same(block.X, X[start:stop])
        assert same(block.y, y[start:stop].reshape(stop - start, -1))
        assert same(block.weight, weight[start:stop])
    reader.close()


@given(st.data())
@settings(max_examples=40)
def test_any_store_of_zarr_python_is_read(data):
    values = data.draw(ours.arrays())
    layout, _ = data.draw(ours.v3_layouts(values.shape))
    memory = zarr.storage.MemoryStore()
    write_zarr(memory, values, **layout)
    source = open_source(zarr.open_array(memory, mode="r"), "X")
    assert source.files is None
    assert_rows(source, values, data.draw(ours.spans(len(values))))


def test_only_a_local_folder_is_quoted_as_a_path_in_rechunk_advice(store):
    values = np.ones((20, 3))
    path = store(values, chunks=(20, 3))
    assert f"old = zarr.open_array({path!r}" in open_source(path, "X").rechunk_advice(5)
    memory = zarr.storage.MemoryStore()
    write_zarr(memory, values, chunks=(20, 3))
    source = open_source(zarr.open_array(memory, mode="r"), "X")
    assert source.name.startswith("X (memory://")
    advice = f"rewrite {source.name} in chunks of at most 5 rows, as local Zarr"
    assert source.rechunk_advice(5) == advice


def test_an_array_in_memory_is_unreachable_from_workers(store):
    memory = zarr.storage.MemoryStore()
    write_zarr(memory, np.ones((20, 3)), chunks=(20, 3))
    source = open_source(zarr.open_array(memory, mode="r"), "X")
    assert "in the memory of this process" in source.why_unreachable_from_workers
    assert not open_source(store(np.ones((20, 3))), "X").why_unreachable_from_workers


def test_a_zip_file_is_read(tmp_path):
    values = ours.filled((20, 3), np.dtype("f8"))
    path = tmp_path / "X.zip"
    with zarr.storage.ZipStore(path, mode="w") as zipped:
        write_zarr(zipped, values, chunks=(6, 2))
    assert same(read_all(open_source(path, "X")), values)
    with zarr.storage.ZipStore(path, mode="r") as zipped:
        assert same(read_all(open_source(zarr.open_array(zipped, mode="r"), "X")), values)


def test_a_file_url_is_a_path(store):
    values = ours.filled((20, 3), np.dtype("f8"))
    path = store(values, "of the year.zarr", chunks=(7, 3))
    source = open_source(Path(path).as_uri(), "X")
    assert source.files is not None
    assert same(read_all(source), values)


def test_an_array_object_is_read_from_its_files(store):
    values = ours.filled((20, 3), np.dtype("f8"))
    path = store(values, chunks=(7, 3))
    source = open_source(zarr.open_array(path), "X")
    assert source.files is not None
    assert source.name == path
    assert same(read_all(source), values)


def test_a_group_brings_names_y_and_weights(tmp_path):
    X, y, weight = np.arange(12.0).reshape(6, 2), np.arange(6.0), np.ones(6)
    group = zarr.create_group(tmp_path / "d.zarr")
    for name, values in (("X", X), ("y", y), ("sample_weight", weight)):
        group.create_array(name, data=values, config={"write_empty_chunks": True})
    group.attrs["feature_names"] = ["a", "b"]
    group.attrs["target_names"] = ["t"]
    for given_as in (tmp_path / "d.zarr", str(tmp_path / "d.zarr"), group):
        dataset = open_dataset(given_as)
        assert dataset.feature_names == ("a", "b")
        assert dataset.target_names == ("t",)
        assert (dataset.X.name, dataset.y.name) == (
            f"{tmp_path}/d.zarr/X",
            f"{tmp_path}/d.zarr/y",
        )
        block = BlockReader(dataset).read(1, 4)
        assert same(block.X, X[1:4])
        assert same(block.y, y[1:4, None])
        assert same(block.weight, weight[1:4])
    assert open_dataset(group, needs_y=False).y is None


def test_attributes_may_hold_nan(store):
    # xarray writes such a _FillValue
    path = Path(store(np.arange(3.0)), "zarr.json")
    document = json.loads(path.read_text())
    document["attributes"] = {"_FillValue": float("nan")}
    path.write_text(json.dumps(document))
    assert same(read_all(open_source(path.parent, "X")), np.arange(3.0))


@pytest.mark.parametrize("shards", [None, (4, 2)])
@pytest.mark.parametrize("filters", [(), (TransposeCodec(order=(1, 0)),)])
def test_absent_chunks_can_mean_the_fill_value(store, shards, filters):
    values = np.full((8, 2), 7.0)
    values[4:] = np.arange(8.0).reshape(4, 2)
    path = store(values, chunks=(2, 2), shards=shards, filters=filters, fill_value=7.0)
    absent = Path(path, "c", "0", "0")
    absent.unlink()
    if shards is None:
        Path(path, "c", "1", "0").unlink()
    with pytest.raises(DataCorruptionError, match=r"missing.*missing_chunks=\"fill\""):
        read_all(open_source(path, "X"))
    assert same(read_all(open_source(path, "X", missing_chunks="fill")), values)


def test_a_version_2_array_without_fill_value_is_filled_with_zeros(store):
    path = store(np.ones((4, 2)), zarr_format=2, chunks=(2, 2), fill_value=None)
    Path(path, "1.0").unlink()
    filled = read_all(open_source(path, "X", missing_chunks="fill"))
    assert same(filled, np.array([[1.0, 1], [1, 1], [0, 0], [0, 0]]))


def zstd_stream(rows):
    """Return a zstd frame without its size, as other writers than numcodecs make it."""
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(rows.tobytes())
    return sink.getvalue().to_pybytes()


def test_streaming_zstd_frames_without_a_size_are_read(store):
    values = np.arange(4000.0).reshape(500, 8)
    path = store(values, chunks=(500, 8), compressors=ZstdCodec())
    chunk = Path(path, "c", "0", "0")
    chunk.write_bytes(zstd_stream(values))
    assert same(read_all(open_source(path, "X")), values)
    chunk.write_bytes(chunk.read_bytes()[:-9])
    with pytest.raises(DataCorruptionError, match="c/0/0"):
        read_all(open_source(path, "X"))


CHUNK_NBYTES = 250 * 8 * 8


def claiming_a_chunk(codec, at):
    """Return an encoder whose header claims the bytes of a whole chunk."""

    def encode(rows):
        frame = bytearray(codec.encode(rows))
        frame[at : at + 4] = CHUNK_NBYTES.to_bytes(4, "little")
        return frame

    return encode


SHORT_FRAMES = {
    "none": (None, np.ndarray.tobytes, "bytes where 16,000 belong"),
    "crc32c": (
        Crc32cCodec(),
        numcodecs.CRC32C(location="end").encode,
        "bytes where the chunk has 16,000",
    ),
    "zstd stream": (numcodecs.Zstd(), zstd_stream, "zstd cannot decode it .*16000"),
    "zstd": (numcodecs.Zstd(), None, "header claims .* where the chunk has 16,000"),
    "blosc": (numcodecs.Blosc(), None, "header claims .* where the chunk has 16,000"),
    "blosc that claims more": (
        numcodecs.Blosc(),
        claiming_a_chunk(numcodecs.Blosc(), 4),
        "blosc cannot decode it",
    ),
    "lz4": (numcodecs.LZ4(), None, "header claims .* where the chunk has 16,000"),
    "lz4 that claims more": (
        numcodecs.LZ4(),
        claiming_a_chunk(numcodecs.LZ4(), 0),
        "lz4 cannot decode it",
    ),
    "gzip": (numcodecs.GZip(), None, "ends after .* decoded bytes where the chunk has 16,000"),
    "zlib": (numcodecs.Zlib(), None, "ends after .* decoded bytes where the chunk has 16,000"),
    "bz2, by zarr-python": (numcodecs.BZ2(), None, "cannot be read: .* cannot reshape"),
}


@pytest.mark.parametrize("n_rows", [1, 100, 249])
@pytest.mark.parametrize("kind", SHORT_FRAMES)
def test_a_chunk_that_decodes_to_fewer_rows_is_damaged(store, kind, n_rows):
    codec, encode, says = SHORT_FRAMES[kind]
    values = np.random.default_rng(0).integers(0, 9, (500, 8)).astype(float)
    if isinstance(codec, Crc32cCodec):
        layout, file = {"compressors": codec}, "c/1/0"
    else:
        layout, file = {"compressors": codec, "zarr_format": 2}, "1.0"
    path = store(values, chunks=(250, 8), **layout)
    Path(path, file).write_bytes((encode or codec.encode)(values[250 : 250 + n_rows]))
    reader = open_source(path, "X").open()
    # the rows of the previous chunk stay in the reader's buffer
    assert same(reader.read(0, 250), values[:250])
    with pytest.raises(DataCorruptionError, match=rf"{re.escape(file)} of .*{says}"):
        reader.read(250, 500)


def test_concatenated_gzip_streams_are_read(store):
    import gzip  # noqa: PLC0415  (used here alone)

    values = np.arange(4000.0)
    path = store(values, chunks=(4000,), compressors=GzipCodec())
    raw = values.tobytes()
    Path(path, "c", "0").write_bytes(gzip.compress(raw[:1000]) + gzip.compress(raw[1000:]))
    assert same(read_all(open_source(path, "X")), values)


@pytest.mark.parametrize("name", ["gzip", "zlib"])
@pytest.mark.parametrize("n_rows", [1, 100, 40_000])
def test_very_compressible_chunks_are_read(store, name, n_rows):
    values = np.zeros((n_rows, 8))
    codec = {"gzip": numcodecs.GZip(9), "zlib": numcodecs.Zlib(9)}[name]
    path = store(values, zarr_format=2, chunks=values.shape, compressors=codec)
    assert same(read_all(open_source(path, "X")), values)


def test_shards_that_cannot_be_checked_are_refused_unless_they_may_be_filled(store):
    nested = ShardingCodec(chunk_shape=(2, 2), codecs=[ShardingCodec(chunk_shape=(1, 2))])
    path = store(np.ones((8, 2)), chunks=(4, 2), serializer=nested, compressors=())
    with pytest.raises(InputError, match="absent chunks would be read as zeros"):
        open_source(path, "X")
    assert same(read_all(open_source(path, "X", missing_chunks="fill")), np.ones((8, 2)))


def test_unequal_chunks_are_refused(tmp_path):
    # Zarr-Python 3.2 and later can write unequal chunks, with a setting
    if not hasattr(zarr.Array, "read_chunk_sizes"):
        pytest.skip("this zarr-python writes equal chunks only")
    with zarr.config.set({"array.rectilinear_chunks": True}):
        array = zarr.create_array(
            tmp_path / "X.zarr", shape=(9, 2), chunks=[[4, 5], [2]], dtype="f8"
        )
        array[...] = 1
        for data in (array, tmp_path / "X.zarr"):
            with pytest.raises(InputError, match="chunks of unequal size"):
                open_source(data, "X")


def test_a_source_can_be_sent_to_another_process(store):
    values = ours.filled((20, 3), np.dtype("f8"))
    source = open_source(store(values, chunks=(7, 3)), "X")
    assert same(read_all(pickle.loads(pickle.dumps(source))), values)


def test_planning_and_opening_read_no_chunk(store, chunks_opened):
    values = ours.filled((40, 3), np.dtype("f8"))
    for name, layout in (
        ("plain", {"compressors": None}),
        ("zstd", {}),
        ("shard", {"shards": (20, 3)}),
    ):
        source = open_source(store(values, name, chunks=(10, 3), **layout), "X")
        before = chunks_opened()
        source.reader_nbytes(10)
        source.open().close()
        assert chunks_opened() == before
    assert_rows(source, values, [(0, 40)])
    assert chunks_opened() != before


@pytest.mark.parametrize("filters", [(), (TransposeCodec(order=(1, 0)),)])
def test_a_chunk_that_failed_is_not_returned_later(store, filters):
    values = np.random.default_rng(0).normal(size=(20, 4))
    path = store(values, chunks=(10, 2), filters=filters, compressors=ZstdCodec(checksum=True))
    Path(path, "c", "1", "1").write_bytes(b"damaged")
    reader = open_source(path, "X").open()
    for _ in range(2):
        assert same(reader.read(2, 7), values[2:7])
        with pytest.raises(DataCorruptionError, match=r"c/1/1 of .*\(rows 10.19\)"):
            reader.read(10, 15)


def test_files_are_closed(store):
    source = open_source(store(np.ones((40, 3)), chunks=(10, 3)), "X")
    reader = source.open()
    before = len(list(Path("/dev/fd").iterdir()))
    reader.read(0, 40)
    reader.close()
    assert len(list(Path("/dev/fd").iterdir())) == before
