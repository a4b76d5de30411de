"""Numbers of folds, read in any pieces."""

from __future__ import annotations

import pickle
from contextlib import closing

import numpy as np
import pytest

from streamreg.sources.base import RowGrid
from streamreg.sources.folds import ConsecutiveFolds, GivenFolds, GroupFolds
from streamreg.sources.in_memory import ArraySource

GROUPS = np.array([7, 7, -2, 5, 5, 5, 7])
GRID = RowGrid(7, 3)
SOURCES = {
    "consecutive": (ConsecutiveFolds(GRID, 3), [0, 0, 0, 1, 1, 2, 2]),
    "as many as rows": (ConsecutiveFolds(GRID, 7), [0, 1, 2, 3, 4, 5, 6]),
    "given": (GivenFolds(GRID, np.array([1, 0, 1, 0, 2, 2, 1], "u2")), [1, 0, 1, 0, 2, 2, 1]),
    "groups": (
        GroupFolds(ArraySource(GROUPS, "g"), np.array([-2, 5, 7]), np.array([1, 0, 1], "u2")),
        [1, 1, 1, 0, 0, 0, 1],
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_piece_has_the_folds_of_its_rows(kind):
    source, expected = SOURCES[kind]
    # workers of a cluster get a copy
    for each in (source, pickle.loads(pickle.dumps(source))):
        assert each.shape == (7,)
        with closing(each.open()) as reader:
            for start in range(7):
                for stop in range(start + 1, 8):
                    found = reader.read(start, stop)
                    assert found.dtype == each.dtype
                    np.testing.assert_array_equal(found, expected[start:stop])
