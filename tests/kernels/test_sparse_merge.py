"""Merges of sums of columns: the compiled one has the bits of NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg.kernels import sparse_merge
from streamreg.kernels.library import load_library
from streamreg.kernels.states import HIGH, LOW, WEIGHT


def columns(rng, d, n_targets):
    """Sums of d columns, of which a third have no values; then all are 0."""
    made = rng.standard_normal((d, 6 + 2 * n_targets))
    made[:, WEIGHT] = rng.integers(0, 3, d)
    made[:, HIGH] = made[:, LOW] + 1
    made[made[:, WEIGHT] == 0] = 0
    return made


@pytest.mark.skipif(load_library() is None, reason="nothing is compiled")
@pytest.mark.parametrize("n_targets", [0, 1, 3])
def test_compiled_merges_have_the_same_bits(monkeypatch, n_targets):
    rng = np.random.default_rng(0)
    a, b = (columns(rng, 5_000, n_targets) for _ in range(2))
    a[7, LOW], b[7, WEIGHT], b[8, [LOW, WEIGHT]] = np.nan, 1, [np.nan, 1]
    y_shift, compiled = rng.standard_normal(n_targets), a.copy()
    sparse_merge.merge_columns(compiled, b, y_shift)
    monkeypatch.setattr(sparse_merge, "load_library", lambda: None)
    sparse_merge.merge_columns(a, b, y_shift)
    np.testing.assert_array_equal(compiled.view(np.int64), a.view(np.int64))
