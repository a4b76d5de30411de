"""Sizes that users pass."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg.errors import InputError
from streamreg.formatting import GIB, MIB
from streamreg.validate import parse_nbytes


@pytest.mark.parametrize(
    ("size", "nbytes"),
    [
        (1, 1),
        (10**30, 10**30),
        (2048.0, 2048),
        (np.int64(7), 7),
        ("512 MiB", 512 * MIB),
        ("512MiB", 512 * MIB),
        (" 2 gib ", 2 * GIB),
        ("2 GB", 2 * 10**9),
        ("2g", 2 * GIB),
        ("1.5 KiB", 1536),
        (".5 KiB", 512),
        ("7", 7),
        ("800 bytes", 800),
        ("1 byte", 1),
        ("1 B", 1),
        ("3 EiB", 3 * 2**60),
        # more digits than a float holds, and a number beyond the range of floats
        ("9007199254740993", 9007199254740993),
        ("1" + 400 * "0" + " EB", 10**418),
    ],
)
def test_sizes_are_parsed(size, nbytes):
    assert parse_nbytes(size) == nbytes


@pytest.mark.parametrize(
    "size",
    [
        "4 GBB",
        "",
        " ",
        "GiB",
        "-1 GiB",
        "1e3 GiB",
        "1,024 MiB",
        "1.2.3 GiB",
        "½ GiB",
        "٣ GiB",
        "inf",
        "nan",
        0.5,
        float("nan"),
        float("inf"),
        True,
        None,
        [1],
        np.ones(2),
    ],
)
def test_other_values_than_sizes_are_refused(size):
    with pytest.raises(InputError, match=r"memory_limit=.* is not a size; .*512 MiB"):
        parse_nbytes(size)


@pytest.mark.parametrize("size", [0, -5, "0 GiB", "0.1 bytes"])
def test_a_size_must_be_positive(size):
    with pytest.raises(InputError, match="more than zero"):
        parse_nbytes(size)


def test_the_error_names_the_parameter():
    with pytest.raises(InputError, match=r"chunk_size='a'"):
        parse_nbytes("a", name="chunk_size")
