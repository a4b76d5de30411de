"""How passes end, by themselves, by an error or an interrupt, and what they leave behind."""

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
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zarr
from synthetic_rows import Rows, Sum, only

from streamreg.accumulators.gradient import Gradient
from streamreg.config.fit_config import FitConfig
from streamreg.engines.reader_pool import ReaderPool, _StoppedError
from streamreg.engines.thread_task import ThreadTask
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataCorruptionError, InputError
from streamreg.fitting.fit import fit_dataset
from streamreg.sources.open import open_dataset

# how long a thread may wait for another before the test fails rather than hangs
PATIENCE = 20


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
        if n_threads > segment:
            # this thread is reading a block when another one fails
            assert engine._pool._stop.wait(PATIENCE)

    source = Rows(on_read=on_read)
    before = threading.active_count()
    engine = ThreadsEngine(only(source), n_threads)
    with pytest.raises(_BoomError), engine:
        engine.reduce(Sum())
    assert threading.active_count() == before
    assert not any(reader.is_open for reader in source.readers)
    if n_threads > segment:
        # each thread finishes its present block; the pass does not read all of its 32 blocks
        assert len(read) <= 3 * n_threads + segment


def test_an_error_does_not_wait_for_earlier_segments():
    def on_read(start):
        if start == 8 * 4096:
            raise _BoomError
        if start == 4096:
            # the second block of the first segment: read only if that thread is not stopped
            raise AssertionError
        assert engine._pool._stop.wait(PATIENCE)

    engine = ThreadsEngine(only(Rows(on_read=on_read)), 2)
    with pytest.raises(_BoomError), engine:
        engine.reduce(Sum())


def test_if_two_threads_fail_the_error_of_the_first_row_is_raised():
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


def test_an_error_in_the_progress_callback_ends_the_pass():
    def on_rows(_):
        raise _BoomError

    with pytest.raises(_BoomError), ThreadsEngine(only(Rows()), 2, on_rows) as engine:
        engine.reduce(Sum())


def test_an_error_in_a_panel_ends_the_pass():
    class Panels(Sum):
        def update(self, state, _, kernels):
            def task(number):
                if number == 3:
                    raise _BoomError

            kernels.parallel.run(task, 5, lambda: None)
            return state

    before = threading.active_count()
    with pytest.raises(_BoomError), ThreadsEngine(only(Rows()), 2) as engine:
        engine.reduce(Panels(state_nbytes=10**9))
    assert threading.active_count() == before


def test_blocks_that_are_not_asked_for_are_not_read():
    read = []
    with ThreadsEngine(only(Rows(on_read=read.append)), 2) as engine:
        blocks = engine._pool.read_in_order(range(32), lambda reader, *rows: reader.read(*rows))
        next(blocks)
        blocks.close()
    assert len(read) < 10


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends SIGINT to a group of processes")
@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("state_nbytes", [8, 10**9])
def test_an_interrupt_ends_a_pass(n_threads, state_nbytes):
    program = f"""
        import signal, sys, threading
        sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
        from synthetic_rows import Rows, Sum, only
        from streamreg.engines.threads import ThreadsEngine

        # a process that was started in the background ignores interrupts
        signal.signal(signal.SIGINT, signal.default_int_handler)

        def interrupt():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        # when all threads are at work
        meeting, met, read = threading.Barrier({n_threads}, action=interrupt), set(), []

        def work():
            if threading.get_ident() not in met:
                met.add(threading.get_ident())
                meeting.wait({PATIENCE})
                assert engine._pool._stop.wait({PATIENCE})

        class Panels(Sum):
            def update(self, state, block, kernels):
                if {state_nbytes} > 8:
                    kernels.parallel.run(lambda number: work(), 4, lambda: None)
                return super().update(state, block, kernels)

        def on_read(start):
            read.append(start)
            if {state_nbytes} == 8:
                work()

        engine = ThreadsEngine(only(Rows(on_read=on_read)), {n_threads})
        try:
            with engine:
                engine.reduce(Panels({state_nbytes}))
        except KeyboardInterrupt:
            # interrupted just after it started a thread, the pool does not wait for that thread
            for thread in {{*threading.enumerate()}} - {{threading.main_thread()}}:
                thread.join({PATIENCE})
            print(len(read), threading.active_count())
            raise SystemExit(130)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert ended.returncode == 130
    n_read, n_threads_left = map(int, ended.stdout.split())
    assert n_read < 32  # blocks of the pass
    assert n_threads_left == 1


def caller_waits():
    """Whether the main thread is in ``ThreadTask.wait``."""
    frame = sys._current_frames()[threading.main_thread().ident]
    return frame.f_code is ThreadTask.wait.__code__


@pytest.mark.parametrize("waits", ["merge", "in_order", "share"])
def test_an_interrupt_that_arrives_before_a_wait_ends_it(waits):
    with ReaderPool(only(Rows()), [], 2, lambda _: None) as pool:

        def run(number):
            if number == 0:
                # the caller that waits is not woken, because this thread gets the signal
                while not caller_waits():
                    time.sleep(0.001)
                signal.raise_signal(signal.SIGINT)
                assert waits == "share" or pool._stop.wait(PATIENCE)
            return number

        def wait():
            if waits == "merge":
                pool.merge(run, range(4), lambda a, b: a + b, 0)
            elif waits == "in_order":
                list(pool.in_order(run, range(4)))
            else:
                pool.share(lambda _: pool._stop.wait(PATIENCE), 2, lambda: run(0))

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                wait()
        finally:
            signal.signal(signal.SIGINT, before)
        assert pool.merge(lambda number: number, range(4), lambda a, b: a + b, 0) == 6


def test_a_pool_that_is_used_again_does_not_stop_at_once():
    source = Rows(n_segments=2)
    engine = ThreadsEngine(only(source), 2)
    for _ in range(2):
        with engine:
            assert engine.reduce(Sum()).n_rows == source.shape[0]


def test_threads_that_stopped_for_no_error_of_their_own_give_no_result():
    with ReaderPool(only(Rows()), [], 2, lambda _: None) as pool:
        pool._stop.set()
        for run in (pool.merge, lambda *how: list(pool.in_order(*how[:2]))):
            with pytest.raises(_StoppedError):
                run(lambda _: pool.report(1), range(4), lambda a, _: a, None)
            pool._stop.set()


# what remains open or running after a pass


def numbers(n=20_000, d=50):
    random = np.random.default_rng(0)
    X = random.standard_normal((n, d))
    return X, X.sum(axis=1) + random.standard_normal(n)


@contextmanager
def nothing_left():
    """Assert that the code within leaves no new thread and no new open file."""

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
    # zarr has started its own thread now, so that no test counts it as new
    return folder / "data.zarr"


@pytest.mark.parametrize("solver", ["closed_form", "cg"])
def test_a_fit_leaves_no_thread_and_no_file(store, solver):
    dataset = open_dataset(str(store))
    with nothing_left():
        fit_dataset(dataset, FitConfig.parse(solver=solver, n_threads=3, max_epochs=3))


def test_a_fit_that_fails_leaves_no_thread_and_no_file(store, tmp_path):
    X, y = numbers(100_000)
    X[77_777, 3] = np.nan
    with nothing_left(), pytest.raises(InputError, match="row 77,777"):
        fit_dataset(open_dataset(X, y), FitConfig.parse(n_threads=3))
    (store / "X" / "c" / "13" / "0").rename(tmp_path / "chunk")
    dataset = open_dataset(str(store))
    with nothing_left(), pytest.raises(DataCorruptionError, match=r"c/13/0"):
        fit_dataset(dataset, FitConfig.parse(n_threads=3))
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
            traced = []
            for _ in range(3):
                for _ in range(5_000):
                    engine.reduce(accumulator)
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    # a byte a pass would be a leak; one of the differences may be larger, because modules that were
    # imported meanwhile are searched for BLAS once
    assert min(b - a for a, b in pairwise(traced)) < 5_000
    assert len(gc.get_objects()) < objects + 100


def test_many_small_fits_leak_nothing():
    dataset = open_dataset(*numbers(100, 3))
    settings = FitConfig.parse(solver="closed_form", memory_limit="1 GiB", n_threads=2)
    for _ in range(10):
        fit_dataset(dataset, settings)
    gc.collect()
    objects = len(gc.get_objects())
    with nothing_left():
        for _ in range(100):
            fit_dataset(dataset, settings)
    gc.collect()
    assert len(gc.get_objects()) < objects + 100
