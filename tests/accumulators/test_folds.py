"""The moments of folds: each fold's own, whatever the order of its rows."""

from __future__ import annotations

from dataclasses import replace

import laws
import numpy as np
import pytest
from laws import Rows

from streamreg.accumulators.folds import Folds
from streamreg.accumulators.gram import Gram
from streamreg.blocks import FileRows

N, D, K, F = 300, 4, 2, 3
ORDERS = {
    "consecutive": np.repeat(np.arange(F), N // F),
    "alternating": np.arange(N) % F,
    "two runs of one fold": np.repeat([0, 1, 0, 2], N // 4),
    "shuffled": np.random.default_rng(3).permutation(np.arange(N) % F),
}


@pytest.fixture(params=[True, False], ids=["weights", "no weights"])
def rows(request):
    rng = np.random.default_rng(0)
    weight = rng.uniform(0.1, 3, N) if request.param else None
    return Rows(1e6 + rng.standard_normal((N, D)), rng.standard_normal((N, K)), weight)


def blocks(rows, folds, heights=(70, 0, 130, 100)):
    return [
        replace(block, groups=folds[block.start : block.start + block.n_rows].astype(np.int64))
        for block in rows.blocks(heights)
    ]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("centred", [True, False])
def test_each_fold_has_the_moments_of_its_rows(rows, order, centred):
    folds = ORDERS[order]
    first, *rest = blocks(rows, folds)
    state = laws.reduce(Folds(F, D, K, centred), [[first], rest])
    for fold in range(F):
        mine = folds == fold
        own = Rows(*(None if each is None else each[mine] for each in rows))
        gram = Gram(D, K, centred)
        expected = gram.finalize(laws.state_of(gram, own.blocks([len(own.X)])))
        found = gram.finalize(state.fold(fold))
        assert found.n == expected.n
        # sums of some hundred terms, about different origins
        for name in ("s", "mean", "y_mean", "y_variance", "cross"):
            a, b = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-9 if centred else 0)
        lower = np.tril_indices(D)
        np.testing.assert_allclose(found.gram[lower], expected.gram[lower], rtol=1e-12, atol=1e-8)


def test_folds_obey_the_laws(rows):
    accumulator, given = Folds(F, D, K), blocks(rows, ORDERS["shuffled"])
    alone = laws.state_of(accumulator, given)
    again = laws.state_of(accumulator, given)
    laws.assert_same_bits(accumulator.merge(accumulator.zero(), again), alone)
    laws.assert_same_bits(accumulator.merge(again, accumulator.zero()), alone)
    before = laws.state_of(accumulator, given[2:])
    accumulator.merge(again, before)
    laws.assert_same_bits(before, laws.state_of(accumulator, given[2:]))


def test_parts_of_a_state_join_to_the_state():
    # two panels of columns, and three ranges of targets
    d, k, rng = 500, 700, np.random.default_rng(0)
    rows = Rows(rng.standard_normal((20, d)), rng.standard_normal((20, k)))
    accumulator = Folds(2, d, k)
    state = laws.state_of(accumulator, blocks(rows, np.arange(20) % 2, [20]))
    assert accumulator.n_parts == 5
    each = (range(0, 5, 3), range(1, 5, 3), range(2, 3))
    parts = [(numbers, accumulator.part(state, numbers)) for numbers in each]
    laws.assert_same_bits(accumulator.joined(parts), state)


@pytest.mark.parametrize("order", ORDERS)
def test_rows_in_files_are_read_no_more_than_a_window_at_a_time(rows, order):
    read = []

    def read_rows(first, stop):
        read.append(stop - first)
        return rows.X[first:stop]

    none = np.empty(0, np.int64)
    X = FileRows((N, D), rows.X.dtype, none, none, np.zeros(1, np.int64), read_rows, none)
    (block,) = blocks(rows, ORDERS[order], [N])
    accumulator = Folds(F, D, K)
    state = laws.state_of(accumulator, [replace(block, X=X)])
    laws.assert_same_bits(state, laws.state_of(accumulator, [block]))
    assert sum(read) <= N + F
    assert max(read) <= accumulator.window_rows
