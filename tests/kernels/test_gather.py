"""Columns of a table become rows of float64."""

import numpy as np
import pytest

from streamreg.kernels import gather

RNG = np.random.default_rng(0)
TYPES = ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("places", [range(11), [0, 2, 3, 5, 7, 8, 9, 10, 12, 13, 15]])
def test_columns_of_every_type_are_written_to_their_places(compiled, places, monkeypatch):
    if not compiled:
        monkeypatch.setattr(gather, "load_library", lambda: None)
    values = {
        place: RNG.integers(0, 100, 1000).astype(kind)
        for place, kind in zip(places, TYPES, strict=True)
    }
    rows = np.full((555, 16), -1.0)
    gather.Columns(values).write(301, rows)
    expected = np.full((555, 16), -1.0)
    for place, column in values.items():
        expected[:, place] = column[301:856]
    np.testing.assert_array_equal(rows, expected)


def test_float64_is_copied_bit_by_bit():
    values = {place: RNG.integers(0, 1 << 63, 300).view(np.float64) for place in range(20)}
    rows = np.empty((300, 20))
    gather.Columns(values).write(0, rows)
    for place, column in values.items():
        np.testing.assert_array_equal(rows[:, place].view(np.int64), column.view(np.int64))
