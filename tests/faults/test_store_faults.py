"""Files that are absent, damaged or not regular files: rows S of the table of faults."""

from __future__ import annotations

import os
import socket
import tempfile
import zlib
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from lab import (
    BOTH,
    LAST,
    LAYOUTS,
    Faults,
    Lab,
    X,
    Y,
    assert_error,
    open_lab,
    read_all,
    without_privileges,
)

import streamreg
from streamreg.errors import DataCorruptionError, InputError
from streamreg.formatting import MIB

pytestmark = pytest.mark.timeout(10)

FAULTS = Faults()


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def _damage(row, change, *says, layouts, error=DataCorruptionError):
    """Add a fault for each layout: the last chunk's file is changed."""
    for layout in layouts:
        key = "10.0" if layout.startswith("v2") else "c/10/0"
        if "shards" in layout or layout == "index first":
            key = r"chunk \(0, 0\) of shard c/5/0"

        @FAULTS.row(f"{row}, {layout}", error, rf"{key} of .*X\.zarr", LAST, *says, reads=True)
        def _(lab, layout=layout):
            path = lab.named(layout)
            change(lab.last_chunk(path))
            return lambda: read_all(path)


def _truncate(file, nbytes):
    os.truncate(file, file.stat().st_size + nbytes if nbytes < 0 else nbytes)


def _flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 16
    file.write_bytes(content)


def _replace(make):
    def change(file):
        file.unlink()
        make(file)

    return change


def _socket(file):
    # the path of a socket must be short, so it is made in another folder
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        Path(folder, "s").rename(file)


_damage("S1", Path.unlink, "is missing", 'missing_chunks="fill"', layouts=BOTH)
_damage("S2", lambda file: _truncate(file, 0), "0 bytes|cannot be read", layouts=LAYOUTS)
_damage(
    "S3 by one",
    lambda file: _truncate(file, -1),
    layouts=[name for name in LAYOUTS if name != "index first"],
)
_damage("S3 to one", lambda file: _truncate(file, 1), layouts=LAYOUTS)
_damage(
    "S3 too long", lambda file: file.write_bytes(file.read_bytes() + b"0"),
    layouts=("plain", "blosc", "crc32c", "v2 lz4", "shards"),
)  # fmt: skip
_damage("S3 too much", lambda file: file.write_bytes(bytes(MIB)), layouts=("zstd", "gzip"))
_damage(
    "S4 data", lambda file: _flip(file, file.stat().st_size // 2),
    layouts=("zstd checked", "gzip", "crc32c", "v2 zlib", "zarr-python"),
)  # fmt: skip
_damage("S4 index", lambda file: _flip(file, -9), "index", layouts=("shards", "zarr-python shards"))
_damage("S4 index", lambda file: _flip(file, 9), "index", layouts=("index first",))
_damage("S8 directory", _replace(Path.mkdir), "not a regular file", layouts=BOTH)
_damage("S8 pipe", _replace(os.mkfifo), "not a regular file", layouts=BOTH)
_damage("S8 socket", _replace(_socket), "cannot be opened|not a regular file", layouts=BOTH)
_damage(
    "S8 device", _replace(lambda file: file.symlink_to("/dev/zero")),
    "not a regular file", layouts=BOTH,
)  # fmt: skip
_damage(
    "S9", _replace(lambda file: file.symlink_to("nowhere")), "link|not a regular file", layouts=BOTH
)
_damage(
    "S10",
    _replace(lambda file: file.symlink_to(file)),
    "symbolic links|not a regular file",
    layouts=BOTH,
)
_damage("S6 another codec wrote it", lambda file: file.write_bytes(zlib.compress(X[-3:].tobytes())),
    "zstd|blosc|gzip", layouts=("zstd", "blosc", "gzip"),
)  # fmt: skip


def _index(at, value):
    """Change an entry of a shard's index, with a checksum that agrees."""

    def change(file):
        content = bytearray(file.read_bytes())
        index = content[-36:-4]
        index[at : at + len(value)] = value
        # the checksum follows the index
        content[-36:] = bytes(numcodecs.CRC32C(location="end").encode(bytes(index)))
        file.write_bytes(content)

    return change


SHARDS = ("shards", "zarr-python shards")
_damage("S1 in a shard", _index(0, b"\xff" * 16), "is missing", layouts=SHARDS)
_damage("S3 beyond its shard", _index(0, (2**40).to_bytes(8, "little")), layouts=SHARDS)


@FAULTS.row("S17", InputError, r"yhat\.zarr exists", "overwrite")
def _(lab):
    path, out = lab.store(), lab.store(Y, "yhat.zarr")
    model = streamreg.LinearRegression().fit(X, Y)
    return lambda: model.predict(path, out=out)


@FAULTS.row("S18 no folder", InputError, r"no/where/yhat\.zarr", "create")
def _(lab):
    path, out = lab.store(), lab.folder / "no/where/yhat.zarr"
    model = streamreg.LinearRegression().fit(X, Y)
    return lambda: model.predict(path, out=out)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row)
def test_a_fault_is_a_typed_error_that_says_where(fault, lab, chunks_opened):
    assert_error(fault, lab, chunks_opened)


@pytest.mark.parametrize("layout", BOTH)
@pytest.mark.parametrize(
    "change",
    [
        lambda file: _truncate(file, 1),
        _replace(Path.mkdir),
        _replace(lambda file: file.symlink_to("nowhere")),
        _replace(lambda file: file.symlink_to(file)),
    ],
)
def test_s_only_absent_chunks_may_mean_the_fill_value(lab, layout, change):
    path = lab.named(layout)
    change(lab.last_chunk(path))
    with pytest.raises(DataCorruptionError, match=LAST):
        read_all(path, missing_chunks="fill")


@pytest.mark.parametrize("layout", BOTH)
def test_s11_a_chunk_without_permission_to_read_is_named(layout):
    with open_lab() as lab:
        path = lab.named(layout)
        read_all(path)  # import all modules now: later they may not be readable either
        lab.last_chunk(path).chmod(0)
        denied = pytest.raises(DataCorruptionError, match=rf"{LAST}.*[Pp]ermission")
        with without_privileges(), denied as caught:
            read_all(path)
        assert str(caught.value).endswith(". Give this user the right to read it")


def test_s10_links_to_existing_files_are_followed(lab):
    path = lab.store()
    file = lab.last_chunk(path)
    file.rename(lab.folder / "moved")
    file.symlink_to(lab.folder / "moved")
    np.testing.assert_array_equal(read_all(path), X)


def test_s18_a_folder_that_is_read_only_is_refused():
    with open_lab() as lab:
        path = lab.store()
        model = streamreg.LinearRegression().fit(X, Y)
        model.predict(path)  # import all modules now: later they may not be readable either
        lab.folder.chmod(0o555)
        denied = pytest.raises(InputError, match=r"yhat\.zarr.*(may not write in|cannot be made)")
        with without_privileges(), denied:
            model.predict(path, out=lab.folder / "yhat.zarr")


@pytest.mark.parametrize(
    "layout",
    [{}, {"chunks": (100, 4)}, {"chunks": (100, 4), "compression": "gzip"}],
    ids=["contiguous", "chunks", "gzip"],
)
@pytest.mark.parametrize("shortened", ["X", "y"])
def test_s3_an_hdf5_file_that_is_shortened_during_a_fit(tmp_path, shortened, layout):
    # HDF5 reads zeros beyond the end
    h5py = pytest.importorskip("h5py")
    X, y = np.random.default_rng(0).standard_normal((2, 4000, 4))
    for name, values in (("X", X), ("y", y[:, 0])):
        rows = {} if name == "y" and layout else layout
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset(name, data=values, **rows)
    with h5py.File(tmp_path / "X.h5") as file_X, h5py.File(tmp_path / "y.h5") as file_y:
        path = tmp_path / f"{shortened}.h5"
        os.truncate(path, path.stat().st_size - 8_000)
        model = streamreg.LinearRegression(solver="gd")
        with pytest.raises(
            DataCorruptionError, match=rf"rows [\d,]+.[\d,]+ of .*{shortened}.*(truncated|filter)"
        ):
            model.fit(file_X["X"], file_y["y"])
