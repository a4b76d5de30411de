"""Metadata that are absent, damaged or hostile: rows S6 and S7 of the table of faults."""

from __future__ import annotations

import json

import pytest
from lab import (
    Faults,
    Lab,
    assert_error,
    read_all,
)

from streamreg.errors import DataCorruptionError, InputError
from streamreg.formatting import MIB
from streamreg.sources.open import open_dataset

pytestmark = pytest.mark.timeout(10)


FAULTS = Faults()


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


@FAULTS.row("S6 unknown codec", DataCorruptionError, r"metadata of .*X\.zarr", "nosuch")
def _(lab):
    chain = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "nosuch", "configuration": {}},
    ]
    path = lab.edit(lab.named("zstd"), codecs=chain)
    return lambda: read_all(path)


@FAULTS.row("S6 unknown codec, v2", DataCorruptionError, r"metadata of .*X\.zarr", "nosuch")
def _(lab):
    path = lab.edit(lab.named("v2 lz4"), compressor={"id": "nosuch"})
    return lambda: read_all(path)


@FAULTS.row("S7 a folder without Zarr", InputError, r"X\.zarr holds no Zarr array or group")
def _(lab):
    path = lab.folder / "X.zarr"
    path.mkdir()
    return lambda: read_all(path)


@FAULTS.row("S7 nothing", InputError, r"there is nothing at .*X\.zarr")
def _(lab):
    return lambda: read_all(lab.folder / "X.zarr")


@FAULTS.row("S7 a table", InputError, r"X\.csv is a table: pass streamreg", "read_table")
def _(lab):
    path = lab.folder / "X.csv"
    path.write_text("a,b\n1,2\n")
    return lambda: read_all(path)


@FAULTS.row("S7 a URL", InputError, "nothing can be opened at memory://nowhere")
def _(_):
    pytest.importorskip("fsspec")
    return lambda: read_all("memory://nowhere")


def _metadata(row, content, *says, error=DataCorruptionError):
    """Add three faults: broken metadata of an array, of an array in a group, of a Zarr v2 array."""

    def broken(file):
        if content is None:
            file.unlink()
        elif isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(json.dumps(content(json.loads(file.read_text()))))

    @FAULTS.row(f"S7 {row}", error, r"X\.zarr", *says)
    def _(lab):
        path = lab.named("zstd")
        broken(path / "zarr.json")
        return lambda: read_all(path)

    @FAULTS.row(f"S7 {row} in a group", error, r"d\.zarr/X", *says)
    def _(lab):
        path = lab.dataset()
        broken(path / "X" / "zarr.json")
        return lambda: open_dataset(path)

    @FAULTS.row(f"S7 {row}, v2", error, r"X\.zarr", *says)
    def _(lab):
        path = lab.named("v2 lz4")
        broken(path / ".zarray")
        return lambda: read_all(path)


def _without(*keys):
    return lambda document: {k: v for k, v in document.items() if k not in keys}


_metadata("missing", None, "chunks but no metadata", "Restore")
_metadata("empty", b"", "is empty")
_metadata("cut short", b'{"zarr_format": 3, "sha', "is not JSON")
_metadata("not text", bytes(range(128, 256)), "is not JSON")
_metadata("too deep", b"[" * 200_000, "is not JSON|no JSON object")
_metadata("a list", b"[1, 2]", "no JSON object")
_metadata("17 MiB", b" " * (17 * MIB), r"17\.0 MiB", r"16\.0 MiB")
_metadata("without shape", _without("shape"), "shape|metadata")
_metadata("without dtype", _without("data_type", "dtype"), "metadata")
_metadata("without version", _without("zarr_format"), "metadata")
_metadata(
    "NaN", lambda document: {**document, "fill_value": float("nan")},
    "the token NaN as fill_value", 'the text "NaN"',
)  # fmt: skip
_metadata("shape is text", lambda document: {**document, "shape": "many"}, "metadata")


@FAULTS.row("S7 metadata of the group", DataCorruptionError, r"d\.zarr/zarr\.json is not JSON")
def _(lab):
    path = lab.dataset()
    (path / "zarr.json").write_text("{")
    return lambda: open_dataset(path)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.row)
def test_a_fault_is_a_typed_error_that_says_where(fault, lab, chunks_opened):
    assert_error(fault, lab, chunks_opened)
