"""Data that would run code or fill the memory (rows X of README.md)."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from lab import (
    LAST,
    Faults,
    Lab,
    assert_error,
    read_all,
)
from zarr.codecs import ZstdCodec

import streamreg
from streamreg.errors import DataCorruptionError, MemoryLimitError
from streamreg.formatting import MIB

pytestmark = pytest.mark.timeout(60)

FAULTS = Faults()


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


class _Trap:
    """An object that runs code when it is unpickled."""

    def __reduce__(self):
        return (Path("trapped").touch, ())


@pytest.mark.parametrize("place", ["filters", "compressor"])
def test_x2_pickles_in_chunks_are_never_run(lab, place, monkeypatch, chunks_opened):
    monkeypatch.chdir(lab.folder)
    path = lab.named("v2 lz4")
    pickled = {"id": "pickle", "protocol": 5}
    changes = {"compressor": pickled} if place == "compressor" else {"filters": [pickled]}
    lab.edit(path, **changes)
    for chunk in path.glob("*.0"):
        chunk.write_bytes(pickle.dumps(_Trap()))
    before = len(chunks_opened())
    with pytest.raises(DataCorruptionError, match=r"metadata of .*X\.zarr.*pickle"):
        read_all(path)
    assert chunks_opened()[before:] == []
    assert not Path("trapped").exists()


def _bomb(row, layout, content, *says):
    key = "10.0" if layout.startswith("v2") else "c/10/0"

    @FAULTS.row(f"X3 {row}", DataCorruptionError, rf"{key} of .*X\.zarr", LAST, *says, reads=True)
    def _(lab):
        path = lab.named(layout)
        file = lab.last_chunk(path)
        file.write_bytes(content(bytearray(file.read_bytes())))
        return lambda: read_all(path)


def _deflated(nbytes, window):
    packer = zlib.compressobj(9, zlib.DEFLATED, window)
    return packer.compress(bytes(nbytes)) + packer.flush()


def _claiming(at, width):
    def change(content):
        content[at : at + width] = (2**40 % 2 ** (8 * width) or 2**31 - 1).to_bytes(width, "little")
        return content

    return change


def _zstd_stream(_):
    """Return a frame whose header does not give the decoded size."""
    pa = pytest.importorskip("pyarrow")
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(bytes(64 * MIB))
    return sink.getvalue().to_pybytes()


def _zstd_claiming(_):
    # a frame whose eight bytes of content size say 1 TiB: RFC 8878, section 3.1.1.1
    return b"\x28\xb5\x2f\xfd\xe0" + (2**40).to_bytes(8, "little") + b"\x01\x00\x00"


_bomb("zstd claims 1 TiB", "zstd", _zstd_claiming, "claims 1,099,511,627,776")
_bomb("zstd expands", "zstd", _zstd_stream, "zstd cannot decode it")
_bomb("blosc claims 2 GiB", "blosc", _claiming(4, 4), "claims 2,147,483,647")
_bomb("lz4 claims 2 GiB", "v2 lz4", _claiming(0, 4), "claims 2,147,483,647")
_bomb("gzip expands", "gzip", lambda _: _deflated(3 * MIB, 31), "more than the chunk's 3,200")
_bomb("zlib expands", "v2 zlib", lambda _: _deflated(3 * MIB, 15), "more than the chunk's 3,200")
_bomb("zlib is large", "v2 zlib", lambda _: _deflated(64 * MIB, 15), "3,200 were encoded")


@FAULTS.row(
    "X4 plain",
    DataCorruptionError,
    "c/0/0 of",
    "rows 0.9",
    "has 32 bytes where 35,184,372,088,832",
    reads=True,
)
def _(lab):
    path = lab.declared(shape=(10, 4), chunks=(2**40, 4))
    (path / "c/0").mkdir(parents=True)
    (path / "c/0/0").write_bytes(bytes(32))
    return lambda: streamreg.LinearRegression().fit(path, np.zeros(10))


@FAULTS.row("X4 compressed", MemoryLimitError, r"TiB", "no data was read")
def _(lab):
    path = lab.declared(shape=(10, 4), chunks=(2**40, 4), compressors=ZstdCodec())
    (path / "c/0").mkdir(parents=True)
    (path / "c/0/0").write_bytes(bytes(32))
    return lambda: streamreg.LinearRegression().fit(path, np.zeros(10))


@FAULTS.row("X4 missing", DataCorruptionError, "c/0/0 of", "rows 0.9", "missing", reads=True)
def _(lab):
    path = lab.declared(shape=(10, 4), chunks=(2**40, 4))
    return lambda: streamreg.LinearRegression().fit(path, np.zeros(10))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row)
def test_a_fault_is_a_typed_error_that_says_where(fault, lab, chunks_opened):
    assert_error(fault, lab, chunks_opened)
