"""Passes on threads: what is in flight, how they end, and what they leave behind."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import zarr
from threadpoolctl import threadpool_info, threadpool_limits

from streamreg.accumulators.base import Accumulator
from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.engines.base import fold_segment
from streamreg.engines.blas_limit import one_blas_thread
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataCorruptionError, InputError
from streamreg.fitting import FitSettings, fit
from streamreg.kernels import serial
from streamreg.layout import Blocks
from streamreg.memory import MIB
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.dataset import DataSet, open_dataset

# how long a thread may wait for another before the test fails rather than hangs
PATIENCE = 20


class Rows(RowSource):
    """Made-up rows: 64 MiB in blocks of 2 MiB, so that a pass has four segments of eight."""

    def __init__(self, columns=64, on_read=None):
        self.name = "X"
        self.dtype = np.dtype(np.float64)
        self.shape = (64 * MIB // (8 * columns), columns)
        self.grid = RowGrid(self.shape[0], 2 * MIB // (8 * columns))
        self.on_read = on_read or (lambda _: None)
        self.readers = []

    def open(self):
        self.readers.append(_RowsReader(self))
        return self.readers[-1]

    def reader_nbytes(self, block_rows):
        return block_rows * self.row_nbytes


class _RowsReader(Reader):
    def __init__(self, source):
        self.source = source
        self.is_open = True

    def read(self, start, stop):
        self.source.on_read(start)
        rows = np.ones((stop - start, self.source.shape[1]))
        rows[:, 0] = np.arange(start, stop)
        return rows

    def close(self):
        self.is_open = False


class SumState(NamedTuple):
    total: np.ndarray
    segments: list


class Sum(Accumulator[SumState, SumState]):
    """Sums the first column, and notes how states come and go."""

    def __init__(self, state_nbytes=8):
        self._nbytes = state_nbytes
        self._lock = threading.Lock()
        self.alive = self.most_alive = 0

    state_nbytes = property(lambda self: self._nbytes)
    scratch_nbytes = 0

    def zero(self):
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        return SumState(np.zeros(()), [])

    def update(self, state, block, _):
        state.total[...] += block.X[:, 0].sum()
        state.segments.append(block.start)
        return state

    def merge(self, a, b):
        with self._lock:
            self.alive -= 1
        a.total[...] += b.total
        a.segments.extend(b.segments)
        return a

    def finalize(self, state):
        return state

    def is_finite(self, _):
        return True


def only(source):
    return DataSet(source)


def total(source):
    return source.shape[0] * (source.shape[0] - 1) / 2


@pytest.mark.parametrize("n_threads", [1, 2, 3, 8])
def test_segments_are_merged_in_order_and_few_states_are_alive(n_threads):
    source, accumulator = Rows(), Sum()
    with ThreadsEngine(only(source), n_threads) as engine:
        result = engine.reduce(accumulator)
    assert result.total == total(source)
    assert result.segments == sorted(result.segments)
    # merged, to be merged, and one more under way than there are threads; never all segments
    assert accumulator.most_alive <= (2 if n_threads == 1 else min(n_threads, 3) + 2)


def test_a_slow_merge_holds_the_threads_back():
    columns, n_segments = 64, 4
    accumulator = Sum()
    merge = accumulator.merge

    def slow(a, b):
        time.sleep(0.05)
        return merge(a, b)

    accumulator.merge = slow
    with ThreadsEngine(only(Rows(columns)), 1) as engine:
        engine.reduce(accumulator)
    assert accumulator.most_alive == 2 < n_segments


@pytest.mark.parametrize("n_threads", [1, 3])
def test_one_reader_a_thread_closed_at_the_end(n_threads):
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


def test_one_thread_runs_in_the_callers_own():
    threads = set()
    source = Rows(on_read=lambda _: threads.add(threading.current_thread()))
    with ThreadsEngine(only(source), 1) as engine:
        engine.reduce(Sum())
        list(engine.each_block(lambda *_: threads.add(threading.current_thread())))
    assert threads == {threading.current_thread()}


def test_several_threads_read_at_once():
    together = threading.Barrier(3)
    first = {0, 8 * 4096, 16 * 4096}  # of the first three segments

    def on_read(start):
        if start in first:
            together.wait(PATIENCE)

    with ThreadsEngine(only(Rows(on_read=on_read)), 3) as engine:
        engine.reduce(Sum())


def test_threads_share_the_panels_of_a_large_state():
    names = set()

    class Panels(Sum):
        def update(self, state, block, parallel):
            meet = threading.Barrier(2)

            def task(number):
                names.add(threading.current_thread().name.partition("_")[0])
                if number < 2:
                    meet.wait(PATIENCE)

            parallel(task, 5)
            return super().update(state, block, parallel)

    source = Rows()
    with ThreadsEngine(only(source), 2) as engine:
        assert engine.reduce(Panels(state_nbytes=10**9)).total == total(source)
    assert names == {"streamreg"}
    assert len(source.readers) == 1


def test_blocks_come_in_order_and_only_a_few_ahead():
    read = []
    source = Rows(on_read=read.append)
    with ThreadsEngine(only(source), 3) as engine:
        seen = []
        for start in engine.each_block(lambda _, block: block.start):
            seen.append(start)
            assert len(read) <= len(seen) + 4
    assert seen == sorted(seen)
    assert len(seen) == 32


# how passes end


class _BoomError(Exception):
    pass


@pytest.mark.parametrize("n_threads", [1, 2, 4])
@pytest.mark.parametrize("segment", [0, 1, 3])
def test_an_error_reaches_the_caller_and_stops_the_others(n_threads, segment):
    read = []

    def on_read(start):
        read.append(start)
        if start == segment * 8 * 4096:
            raise _BoomError
        time.sleep(0.02)

    source = Rows(on_read=on_read)
    before = threading.active_count()
    with pytest.raises(_BoomError), ThreadsEngine(only(source), n_threads) as engine:
        engine.reduce(Sum())
    assert threading.active_count() == before
    assert not any(reader.is_open for reader in source.readers)
    if n_threads > segment:
        # each thread ends with the block at which it is, and the pass at none of its 32
        assert len(read) <= 3 * n_threads + segment


def test_an_error_does_not_wait_for_earlier_segments():
    failed = threading.Event()

    def on_read(start):
        if start == 8 * 4096:
            failed.set()
            raise _BoomError
        if start == 4096:
            # the second block of the first segment: read only if nobody stops that thread
            raise AssertionError
        failed.wait(PATIENCE)
        time.sleep(0.1)

    with pytest.raises(_BoomError), ThreadsEngine(only(Rows(on_read=on_read)), 2) as engine:
        engine.reduce(Sum())


def test_of_two_errors_the_first_row_is_told():
    both = threading.Barrier(2)

    def on_read(start):
        if start in {0, 8 * 4096}:
            both.wait(PATIENCE)
            raise _BoomError(start)

    with (
        pytest.raises(_BoomError, match=r"^0$"),
        ThreadsEngine(only(Rows(on_read=on_read)), 2) as engine,
    ):
        engine.reduce(Sum())


def test_an_error_of_progress_ends_the_pass():
    def on_rows(_):
        raise _BoomError

    with pytest.raises(_BoomError), ThreadsEngine(only(Rows()), 2, on_rows) as engine:
        engine.reduce(Sum())


def test_an_error_in_a_panel_ends_the_pass():
    class Panels(Sum):
        def update(self, state, _, parallel):
            def task(number):
                if number == 3:
                    raise _BoomError

            parallel(task, 5)
            return state

    before = threading.active_count()
    with pytest.raises(_BoomError), ThreadsEngine(only(Rows()), 2) as engine:
        engine.reduce(Panels(state_nbytes=10**9))
    assert threading.active_count() == before


def test_blocks_that_nobody_wants_are_not_read():
    read = []
    with ThreadsEngine(only(Rows(on_read=read.append)), 2) as engine:
        blocks = engine.each_block(lambda _, block: block.start)
        next(blocks)
        blocks.close()
    assert len(read) < 10


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT goes to a group there")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("state_nbytes", [8, 10**9])
def test_an_interrupt_ends_a_pass(n_threads, state_nbytes):
    program = f"""
        import sys, threading, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_engines import Rows, Sum, ThreadsEngine, only
        def on_read(start):
            if start > 4096:
                print("reading", flush=True)
            time.sleep(0.01)
        class Panels(Sum):
            def update(self, state, block, parallel):
                parallel(lambda number: time.sleep(0.01), 4)
                return super().update(state, block, parallel)
        try:
            with ThreadsEngine(only(Rows(on_read=on_read)), {n_threads}) as engine:
                while True:
                    engine.reduce(Panels({state_nbytes}))
        except KeyboardInterrupt:
            print("ended with", threading.active_count(), flush=True)
            raise SystemExit(130)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        out, _ = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - began < 3
    assert process.returncode == 130
    assert out.splitlines()[-1] == "ended with 1"


# what is left behind


def numbers(n=20_000, d=50):
    random = np.random.default_rng(0)
    X = random.standard_normal((n, d))
    return X, X.sum(axis=1) + random.standard_normal(n)


@contextmanager
def nothing_left():
    """No thread and no open file more than before."""

    def files():
        return sorted(file.name for file in Path("/proc/self/fd").glob("*"))

    gc.collect()
    threads, opened = set(threading.enumerate()), files()
    yield
    assert set(threading.enumerate()) == threads
    assert files() == opened


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    X, y = numbers(100_000)
    group = zarr.create_group(folder / "data.zarr")
    group.create_array("X", data=X, chunks=(5000, 50))
    group.create_array("y", data=y, chunks=(5000,))
    # zarr starts a thread of its own when it is first used
    return folder / "data.zarr"


@pytest.mark.parametrize("solver", ["closed_form", "cg"])
def test_a_fit_leaves_no_thread_and_no_file(store, solver):
    dataset = open_dataset(str(store))
    with nothing_left():
        fit(dataset, FitSettings(solver=solver, n_threads=3, max_epochs=3))


def test_a_fit_that_fails_leaves_no_thread_and_no_file(store, tmp_path):
    X, y = numbers(100_000)
    X[77_777, 3] = np.nan
    with nothing_left(), pytest.raises(InputError, match="row 77,777"):
        fit(open_dataset(X, y), FitSettings(n_threads=3))
    (store / "X" / "c" / "13" / "0").rename(tmp_path / "chunk")
    dataset = open_dataset(str(store))
    with nothing_left(), pytest.raises(DataCorruptionError, match=r"c/13/0"):
        fit(dataset, FitSettings(n_threads=3))
    (tmp_path / "chunk").rename(store / "X" / "c" / "13" / "0")


def test_ten_thousand_passes_leak_nothing():
    dataset = open_dataset(*numbers(100, 3))
    accumulator = Gradient(np.zeros((3, 1)), np.zeros(1), 1)
    with ThreadsEngine(dataset, 2) as engine:
        for _ in range(100):
            engine.reduce(accumulator)
        gc.collect()
        objects = len(gc.get_objects())
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(10_000):
                engine.reduce(accumulator)
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # a byte a pass would be a leak
    assert after - before < 10_000
    assert len(gc.get_objects()) < objects + 100


def test_many_small_fits_leak_nothing():
    dataset = open_dataset(*numbers(100, 3))
    settings = FitSettings(solver="closed_form", memory_limit="1 GiB", n_threads=2)
    for _ in range(10):
        fit(dataset, settings)
    gc.collect()
    objects = len(gc.get_objects())
    with nothing_left():
        for _ in range(100):
            fit(dataset, settings)
    gc.collect()
    assert len(gc.get_objects()) < objects + 100


# BLAS


def blas_threads():
    return [
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    ]


@pytest.fixture
def three_blas_threads():
    with threadpool_limits(3, user_api="blas"):
        yield


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize("fails", [False, True])
def test_blas_has_one_thread_within_a_pass_and_its_own_again_after(fails):
    seen = []

    def on_read(_):
        seen.extend(blas_threads())
        if fails:
            raise _BoomError

    try:
        with ThreadsEngine(only(Rows(on_read=on_read)), 2) as engine:
            engine.reduce(Sum())
    except _BoomError:
        assert fails
    assert set(seen) == {1}
    assert set(blas_threads()) == {3}


@pytest.mark.usefixtures("three_blas_threads")
def test_blas_stays_at_one_thread_until_the_last_of_two_fits_ends():
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert set(blas_threads()) == {1}
    second.__exit__(None, None, None)
    assert set(blas_threads()) == {3}


def test_two_fits_at_once_are_as_if_one_after_the_other():
    X, y = numbers(60_000)
    expected, made = {}, {}
    jobs = {"closed_form": X, "cg": X[:, ::-1].copy()}

    def run(solver, into):
        settings = FitSettings(solver=solver, n_threads=2, max_epochs=5)
        into[solver] = fit(open_dataset(jobs[solver], y), settings).solution.coefficients

    for solver in jobs:
        run(solver, expected)
    before = blas_threads()
    for _ in range(3):
        threads = [threading.Thread(target=run, args=(solver, made)) for solver in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        for solver in jobs:
            assert np.array_equal(made[solver], expected[solver])
    assert blas_threads() == before


# the inner loop


def test_a_block_is_gone_before_the_next_is_read():
    dataset = only(Rows())
    reader = dataset.open()
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    tracemalloc.start()
    try:
        fold_segment(reader, Sum(), blocks, serial, lambda _: None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * MIB


def test_the_shared_state_has_the_bits_of_the_serial_one():
    X, y = numbers(3000, 1200)
    dataset = open_dataset(X, y)
    states = []
    for n_threads in (1, 3):
        with ThreadsEngine(dataset, n_threads) as engine:
            states.append(engine.reduce(Gram(1200, 1)))
    for ours, theirs in zip(*states, strict=True):
        assert np.array_equal(ours, theirs)
