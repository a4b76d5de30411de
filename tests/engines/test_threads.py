"""Passes on threads: what is done at once, in which order, and on which thread."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc

import numpy as np
import pytest
from synthetic_rows import Rows, Sum, only

from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.engines.partition import Blocks
from streamreg.engines.reader_pool import ReaderPool
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.sources import block_reader
from streamreg.sources.dataset import Dataset
from streamreg.sources.in_memory import ArraySource
from streamreg.sources.open import open_dataset

# how long a thread may wait for another before the test fails rather than hangs
PATIENCE = 20


def pool_of(source, n_threads):
    dataset = only(source)
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    return ReaderPool(dataset, blocks, n_threads, lambda _: None)


def total(source):
    return source.shape[0] * (source.shape[0] - 1) / 2


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_segments_are_merged_in_order_and_few_states_are_alive(n_threads):
    source, accumulator = Rows(), Sum()
    with ThreadsEngine(only(source), n_threads) as engine:
        result = engine.reduce(accumulator).result
    assert result.total == total(source)
    assert result.segments == sorted(result.segments)
    # states: the merged one, and those in progress or to be merged, one more than threads
    assert accumulator.most_alive <= (2 if n_threads == 1 else min(n_threads, 3) + 2)


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_a_slow_merge_holds_the_threads_back(n_threads):
    n_segments, expected = 16, 2 if n_threads == 1 else n_threads + 2
    accumulator, merge = Sum(), Sum.merge
    merged = itertools.count(1)

    def slow(a, b):
        # merge as late as possible: after the other threads made all states that they may
        wanted = min(expected, n_segments + 2 - next(merged))
        deadline = time.monotonic() + PATIENCE
        while accumulator.alive < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        # long enough for one state more
        time.sleep(0.005)
        return merge(accumulator, a, b)

    accumulator.merge = slow
    with ThreadsEngine(only(Rows(n_segments=n_segments)), n_threads) as engine:
        engine.reduce(accumulator)
    # states: the merged one, and those in progress or to be merged, one more than threads
    assert accumulator.most_alive == expected < n_segments


@pytest.mark.parametrize("n_threads", [1, 3])
def test_there_are_no_more_readers_than_threads_and_all_are_closed(n_threads):
    source = Rows()
    with ThreadsEngine(only(source), n_threads) as engine:
        for _ in range(5):
            engine.reduce(Sum())
        assert len(source.readers) <= n_threads
    assert not any(reader.is_open for reader in source.readers)


def test_a_pass_with_one_state_keeps_one_reader():
    source = Rows()
    with ThreadsEngine(only(source), 4) as engine:
        engine.reduce(Sum())
        engine.reduce(Sum(state_nbytes=10**9))
        assert sum(reader.is_open for reader in source.readers) == 1


def test_with_one_thread_all_work_is_done_by_the_caller():
    threads = set()
    source = Rows(on_read=lambda _: threads.add(threading.current_thread()))
    with ThreadsEngine(only(source), 1) as engine:
        engine.reduce(Sum())
        list(engine._pool.read_in_order([0, 1], lambda reader, *rows: reader.read(*rows)))
    assert threads == {threading.current_thread()}


def test_several_threads_read_at_once():
    together = threading.Barrier(3)
    first = {0, 8 * 4096, 16 * 4096}  # rows where the first three segments begin

    def on_read(start):
        if start in first:
            together.wait(PATIENCE)

    with ThreadsEngine(only(Rows(on_read=on_read)), 3) as engine:
        engine.reduce(Sum())


def test_threads_share_the_panels_of_a_large_state():
    names = set()

    class Panels(Sum):
        def update(self, state, block, kernels):
            meet = threading.Barrier(2)

            def task(number):
                names.add(threading.current_thread().name.partition("_")[0])
                if number < 2:
                    meet.wait(PATIENCE)

            kernels.parallel.run(task, 5, lambda: None)
            return super().update(state, block, kernels)

    source = Rows()
    with ThreadsEngine(only(source), 2) as engine:
        assert engine.reduce(Panels(state_nbytes=10**9)).result.total == total(source)
    assert names == {"streamreg"}
    assert len(source.readers) == 1


def test_blocks_come_in_order_and_only_a_few_are_read_ahead():
    read = []
    source = Rows(on_read=read.append)
    with pool_of(source, 3) as pool:
        seen = []
        for start in pool.read_in_order(range(32), lambda reader, *rows: reader.read(*rows).start):
            seen.append(start)
            assert len(read) <= len(seen) + 4
    assert seen == sorted(seen)
    assert len(seen) == 32


def test_a_block_is_released_before_the_next_is_read():
    tracemalloc.start()
    try:
        with ThreadsEngine(only(Rows()), 1) as engine:
            engine.reduce(Sum())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


def test_a_state_that_threads_share_is_bitwise_identical_to_a_serial_one():
    random = np.random.default_rng(0)
    X, y = random.standard_normal((3000, 1200)), random.standard_normal(3000)
    dataset = open_dataset(X, y)
    states = []
    for n_threads in (1, 3):
        with ThreadsEngine(dataset, n_threads) as engine:
            states.append(engine.reduce(Gram(1200, 1)).result)
    for ours, theirs in zip(*states, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_an_engine_can_be_used_after_a_failed_pass(n_threads):
    fails = [True]

    def on_read(start):
        if start == 16 * 4096 and fails:
            raise ZeroDivisionError

    source = Rows(on_read=on_read)
    with ThreadsEngine(only(source), n_threads) as engine:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                engine.reduce(Sum())
        fails.clear()
        reduction = engine.reduce(Sum())
        assert reduction.result.total == total(source)
        assert reduction.n_rows == reduction.weight_sum == source.shape[0]
        assert len(source.readers) <= n_threads


def test_integers_beyond_float64_are_looked_for_in_the_first_pass_only(monkeypatch):
    X = np.full((300_000, 8), 2**53 + 1)
    checked = []
    monkeypatch.setattr(
        block_reader, "has_inexact", lambda values: checked.append(len(values)) or True
    )
    with ThreadsEngine(open_dataset(X, X[:, 0]), 2) as engine:
        for _ in range(3):
            engine.reduce(Gradient(np.zeros((8, 1)), np.zeros(1), 1))
            assert sum(checked) == 2 * len(X)  # X and y, once
        assert engine.rounded == {"X", "y"}


@pytest.mark.parametrize("bad", [np.nan, np.inf, None])
def test_once_sums_overflow_later_blocks_are_not_read_twice(bad):
    reads = []

    class Huge(Rows):
        def values(self, start, stop):
            values = np.full((stop - start, self.shape[1]), 1e200)
            if bad is not None and stop == self.shape[0]:
                values[-1, 5] = bad
            return values

    source = Huge(on_read=reads.append, n_segments=1)
    accumulator = Gradient(np.ones((64, 1)), np.zeros(1), 1)
    y = ArraySource(np.ones(source.shape[0]), "y")
    with ThreadsEngine(Dataset(source, y), 1) as engine:
        if bad is None:
            engine.reduce(accumulator)
        else:
            with pytest.raises(InputError, match=f"row {source.shape[0] - 1:,}, column 5"):
                engine.reduce(accumulator)
    # the first block is read again to find NaN or inf, and so is the block that has one
    assert len(reads) == 8 + 1 + (bad is not None)
