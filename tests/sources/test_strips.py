"""Columns that are read without the others: the values are those of the array."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec

from streamreg import DataCorruptionError
from streamreg.blocks import View
from streamreg.sources.dataset import Dataset
from streamreg.sources.kinds import open_source

N, D, WIDTH = 37, 50, 16
X = np.random.default_rng(0).integers(-99, 99, (N, D)).astype("f4")


def mapped(order):
    def made(folder):
        X.reshape(-1, order=order).tofile(folder / "X.bin")
        return np.memmap(folder / "X.bin", X.dtype, "r", shape=X.shape, order=order)

    return made


def stored(**layout):
    def made(folder):
        zarr.create_array(folder / "X.zarr", data=layout.pop("data", X), **layout)
        return str(folder / "X.zarr")

    return made


SOURCES = {
    "array": lambda _: X,
    "Fortran order": lambda _: np.asfortranarray(X),
    "map": mapped("C"),
    "map in Fortran order": mapped("F"),
    "part of a map": lambda folder: mapped("C")(folder)[::2, ::-1],
    "rows": stored(chunks=(5, D), compressors=None),
    "chunks": stored(chunks=(5, 12), compressors=None),
    "large chunk": stored(chunks=(100, 60), compressors=None),
    "big-endian": stored(data=X.astype(">f8"), chunks=(5, D), compressors=None),
    "v2": stored(chunks=(5, D), compressors=None, zarr_format=2),
    "shards": stored(chunks=(5, 10), shards=(20, 30), compressors=None),
    "compressed columns": stored(chunks=(10, 16)),
    "compressed shards": stored(chunks=(5, 8), shards=(10, 16)),
    "checksum": stored(chunks=(N, 8), compressors=Crc32cCodec()),
}


@pytest.mark.parametrize("name", SOURCES)
def test_strips_are_the_columns(name, tmp_path):
    data = SOURCES[name](tmp_path)
    source = open_source(data, "X")
    expected = np.asarray(data if isinstance(data, np.ndarray) else zarr.open_array(data)[:])
    assert WIDTH % source.column_step == 0
    strips = source.in_strips(WIDTH)
    assert strips.shape == expected.T.shape
    reader = strips.open()
    for start in range(0, D, WIDTH):
        stop = min(start + WIDTH, D)
        np.testing.assert_array_equal(reader.read(start, stop), expected.T[start:stop])
    reader.close()


@pytest.mark.parametrize("layout", [{}, {"compressors": Crc32cCodec()}], ids=["zstd", "crc32c"])
def test_compressed_rows_have_no_strips(tmp_path, layout):
    assert open_source(stored(chunks=(5, D), **layout)(tmp_path), "X").column_step == 0


def test_strips_of_decoded_or_omitted_rows_are_not_read(tmp_path):
    packed = zarr.create_array(tmp_path / "X.zarr", data=X, compressors=None)
    packed.attrs["scale_factor"] = 0.5
    assert Dataset(open_source(packed, "X")).column_step == 0
    assert Dataset(open_source(X, "X"), nan_policy="omit").column_step == 0


def test_absent_chunks_are_the_fill_value_or_an_error(tmp_path):
    zeros = np.where(np.arange(N)[:, None] < 10, np.float32(0), X)
    path = stored(data=zeros, chunks=(10, 25), compressors=None)(tmp_path)
    filled = open_source(path, "X", missing_chunks="fill").in_strips(WIDTH).open()
    np.testing.assert_array_equal(filled.read(0, 16), zeros.T[:16])
    filled.close()
    with pytest.raises(DataCorruptionError, match=r"c/0/0 .* is missing"):
        open_source(path, "X").in_strips(WIDTH).open().read(0, 16)


def test_a_truncated_chunk_is_named(tmp_path):
    path = stored(chunks=(10, D), compressors=None)(tmp_path)
    chunk = tmp_path / "X.zarr" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-4])
    with pytest.raises(DataCorruptionError, match="c/2/0"):
        open_source(path, "X").in_strips(WIDTH).open().read(0, 16)


def test_rows_without_x_have_their_numbers():
    y, weight = np.arange(N) / 2, np.arange(N) % 3 * 1.0
    named = {"X": X, "y": y, "weight": weight}
    dataset = Dataset(**{name: open_source(values, name) for name, values in named.items()})
    seen = dataset.seen_as(View(without_x=True))
    assert seen.X.shape == (N, 1)
    np.testing.assert_array_equal(seen.X.open().read(3, 7)[:, 0], [3, 4, 5, 6])
    assert seen.y is dataset.y
    assert seen.weight is dataset.weight
