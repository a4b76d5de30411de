"""Counts and values in messages."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg.formatting import count, shown


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "row", "1 row"), (0, "row", "0 rows"), (12_345, "column", "12,345 columns"),
     (2, "entry", "2 entries"), (1, "entry", "1 entry")],
)  # fmt: skip
def test_a_count_agrees_with_its_noun(number, noun, text):
    assert count(number, noun) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.float64(-1.0), "-1.0"), (np.int64(3), "3"), (np.str_("gd"), "'gd'"), ("a\nb", r"'a\nb'"),
     (np.array([[1], [2]]), "array([[1], [2]])")],
)  # fmt: skip
def test_a_value_is_shown_on_one_line_as_python_has_it(value, text):
    assert shown(value) == text


def test_a_long_value_is_cut():
    assert shown(10**5000) == "<int>"
    assert all(len(shown(value)) <= 100 for value in ("a" * 5000, 10**400, [0] * 500))
