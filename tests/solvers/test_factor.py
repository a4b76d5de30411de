"""The factor of XᵀX."""

from __future__ import annotations

import tracemalloc

import numpy as np

from streamreg.solvers.factor import Factor


def test_factor_of_dependent_columns_copies_no_part_of_the_matrix():
    d, rank = 600, 300
    X = np.random.default_rng(0).normal(size=(rank, d))
    gram = np.asfortranarray(X.T @ X / rank)
    tracemalloc.start()
    factor = Factor.of_gram(gram, np.ones(d))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert factor.rank == rank
    # 64 columns of the inverse, and vectors; a copy of what is below the triangle has 150
    assert peak < 8 * d * 80
