"""Counts, sizes and values in messages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamreg.formatting import KIB, MIB, count, format_nbytes, format_seconds, shown
from streamreg.validate import parse_nbytes


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "row", "1 row"),
        (0, "row", "0 rows"),
        (12_345, "column", "12,345 columns"),
        (2, "entry", "2 entries"),
        (1, "entry", "1 entry"),
    ],
)
def test_a_count_agrees_with_its_noun(number, noun, text):
    assert count(number, noun) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float64(-1.0), "-1.0"),
        (np.int64(3), "3"),
        (np.str_("gd"), "'gd'"),
        ("a\nb", r"'a\nb'"),
        (np.array([[1], [2]]), "array([[1], [2]])"),
    ],
)
def test_a_value_is_shown_on_one_line_as_python_writes_it(value, text):
    assert shown(value) == text


def test_a_long_value_is_cut():
    assert shown(10**5000) == "<int>"
    assert all(len(shown(value)) <= 100 for value in ("a" * 5000, 10**400, [0] * 500))


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (KIB, "1.0 KiB"),
        (8 * 100_000**2, "74.5 GiB"),
        (128_000_000, "122.1 MiB"),
        # 1023.97 KiB would print as 1024.0
        (MIB - 30, "1.0 MiB"),
        (8 * 10**20, "693.9 EiB"),
        (10**400, None),
    ],
)
def test_sizes_are_printed(nbytes, text):
    assert format_nbytes(nbytes) == text if text else format_nbytes(nbytes).endswith(" EiB")


@given(st.integers(1, 10**25))
def test_printed_sizes_parse_to_the_same_size_within_the_shown_digit(nbytes):
    assert parse_nbytes(format_nbytes(nbytes)) == pytest.approx(nbytes, rel=0.05)
    shown = parse_nbytes(format_nbytes(nbytes, up=True))
    assert nbytes <= shown <= nbytes * 1.1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under 1 s"), (12, "about 12 s"), (125, "about 2 min"), (3 * 3600, "about 3 h")],
)
def test_an_estimated_time_is_printed_in_words(seconds, text):
    assert format_seconds(seconds) == text
