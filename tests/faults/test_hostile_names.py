"""Names, addresses and metadata that would mislead users or fill memory: faults X5, X9, X10."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from streamreg import LinearRegression
from streamreg.errors import StreamregError
from streamreg.sources.zarr.metadata import printable

pytestmark = pytest.mark.timeout(30)


def refusal(*data):
    with pytest.raises(StreamregError) as caught:
        LinearRegression().fit(*data)
    return str(caught.value)


def test_x5_metadata_larger_than_any_array_needs_are_not_parsed(tmp_path):
    zarr.create_array(tmp_path / "X", data=np.ones((10, 2)))
    file = tmp_path / "X/zarr.json"
    document = json.loads(file.read_text())
    document["attributes"] = {"filling": "x" * (17 << 20)}
    file.write_text(json.dumps(document))
    assert "zarr.json" in refusal(tmp_path / "X", np.ones(10))


def test_x9_a_line_break_in_a_name_is_not_printed(tmp_path):
    path = tmp_path / "X\n[bold]streamreg: done"
    assert "\n" not in refusal(path, np.ones(10))


def test_x10_passwords_are_not_shown():
    assert printable("s3://key:s3cret@host/X.zarr") == "s3://***@host/X.zarr"
    said = refusal("http://user:s3cret@127.0.0.1:1/X.zarr", np.ones(10))
    assert "s3cret" not in said
