"""What an update allocates: no more than the accumulator states, whichever kernels run."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.accumulators.moments import Moments
from streamreg.accumulators.residuals import Residuals
from streamreg.accumulators.root import Root
from streamreg.accumulators.score import Score
from streamreg.blocks import Block
from streamreg.kernels.library import load_level
from streamreg.kernels.registry import load_kernels
from streamreg.kernels.two_float import TwoFloats

LEVELS = ["numpy", *(name for name in ("baseline", "v3", "v4", "neon") if load_level(name))]
N_ROWS = 5_000
# the objects of Python that an update creates, such as views
OBJECTS_NBYTES = 16 << 10


def gradient(d, k):
    return Gradient(np.ones((d, k)), np.ones(k), k)


def gradient_with_direction(d, k):
    return Gradient(np.ones((d, 2 * k)), np.ones(2 * k), k)


def residuals(d, k):
    return Residuals(TwoFloats.of(np.ones((d, k))), TwoFloats.of(np.ones(k)), k)


def score(d, k):
    return Score(np.ones((d, k)), np.ones(k))


ACCUMULATORS = [gradient, gradient_with_direction, Moments, residuals, Gram, Root, score]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weighted"])
@pytest.mark.parametrize("k", [1, 32, 100, 300])
@pytest.mark.parametrize("make", ACCUMULATORS)
def test_an_update_takes_no_more_than_the_scratch_memory(make, k, weighted, level):
    rng = np.random.default_rng(0)
    d = 64
    n = 1_000 if make is residuals else N_ROWS
    X = rng.standard_normal((n, d), dtype="f4")
    y = rng.integers(-100, 100, (n, k), dtype="i1")
    block = Block(X, y, rng.uniform(0.5, 1.5, n) if weighted else None, 0)
    accumulator = make(d, k)
    state, kernels = accumulator.zero(), load_kernels(level).for_block(block)
    tracemalloc.start()
    try:
        accumulator.update(state, block, kernels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= accumulator.scratch_nbytes + OBJECTS_NBYTES


def test_a_merge_of_many_targets_allocates_no_second_cross_product_array():
    rng = np.random.default_rng(0)
    n, d, k = 40, 65, 20_000
    X, y = rng.standard_normal((n, d)), rng.standard_normal((n, k))
    gram, halves = Gram(d, k), []
    for rows in (slice(0, 15), slice(15, n)):
        block = Block(X[rows], y[rows], None, rows.start)
        halves.append(gram.update(gram.zero(), block, load_kernels("numpy").for_block(block)))
    tracemalloc.start()
    try:
        merged = gram.merge(*halves)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # one panel of 1 MiB and some arrays (K,); the array itself has 9.9 MiB
    assert peak < merged.cross.nbytes / 4
    expected = (X - X.mean(axis=0)).T @ (y - y.mean(axis=0))
    np.testing.assert_allclose(merged.cross, expected, rtol=0, atol=1e-12 * n)
