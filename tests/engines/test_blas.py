"""BLAS on one thread while a pass runs, and as before when none does."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from synthetic_rows import Rows, Sum, only
from threadpoolctl import threadpool_info, threadpool_limits

from streamreg.config.fit_config import FitConfig
from streamreg.engines.blas import blas_threads_of_solver, one_blas_thread
from streamreg.engines.threads import ThreadsEngine
from streamreg.fitting.fit import fit_dataset
from streamreg.solvers import registry
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.sources.open import open_dataset


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
def test_a_pass_limits_blas_to_one_thread_and_then_restores_the_limit(fails):
    seen = []

    def on_read(_):
        seen.extend(blas_threads())
        if fails:
            raise ZeroDivisionError

    try:
        with ThreadsEngine(only(Rows(on_read=on_read)), 2) as engine:
            engine.reduce(Sum())
    except ZeroDivisionError:
        assert fails
    assert set(seen) == {1}
    assert set(blas_threads()) == {3}


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize("ends_first", ["here", "there"])
def test_blas_stays_at_one_thread_until_the_last_of_two_fits_ends(ends_first):
    begun, may_end = threading.Event(), threading.Event()

    def fit_there():
        with one_blas_thread():
            begun.set()
            assert may_end.wait(20)

    there = threading.Thread(target=fit_there)
    # threadpoolctl would ignore the other thread, because this one set the fixture's limit
    with one_blas_thread():
        there.start()
        assert begun.wait(20)
        if ends_first == "there":
            may_end.set()
            there.join(20)
        assert set(blas_threads()) == {1}
    if ends_first == "here":
        assert set(blas_threads()) == {1}
        may_end.set()
        there.join(20)
    assert set(blas_threads()) == {3}


@pytest.mark.usefixtures("three_blas_threads")
def test_blas_has_one_thread_in_a_fit_off_the_main_thread():
    seen = []

    def fit_there():
        with one_blas_thread():
            seen.extend(blas_threads())

    there = threading.Thread(target=fit_there)
    there.start()
    there.join(20)
    assert set(seen) == {1}
    assert set(blas_threads()) == {3}


def test_concurrent_fits_give_the_results_of_consecutive_fits():
    random = np.random.default_rng(0)
    X = random.standard_normal((60_000, 50))
    y = X.sum(axis=1) + random.standard_normal(60_000)
    expected, made = {}, {}
    jobs = {"closed_form": X, "cg": X[:, ::-1].copy()}

    def run(solver, into):
        settings = FitConfig.parse(solver=solver, n_threads=2, max_epochs=5)
        into[solver] = fit_dataset(open_dataset(jobs[solver], y), settings).solution.coefficients

    for solver in jobs:
        run(solver, expected)
    before = blas_threads()
    for _ in range(3):
        threads = [threading.Thread(target=run, args=(solver, made)) for solver in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        for solver in jobs:
            assert np.array_equal(made[solver], expected[solver])
    assert blas_threads() == before


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize(("n_features", "expected"), [(100, 1), (5000, 3)])
def test_a_solver_that_factors_many_columns_has_all_threads_of_blas(n_features, expected):
    dataset = only(Rows())
    with ThreadsEngine(dataset, 2) as engine, blas_threads_of_solver(n_features):
        engine.reduce(Sum())
        assert set(blas_threads()) == {expected}


@pytest.mark.usefixtures("three_blas_threads")
@pytest.mark.parametrize(("n_features", "n_threads"), [(4_096, 3), (10, 1)])
def test_a_solver_of_many_columns_has_all_threads_between_its_passes(
    monkeypatch, n_features, n_threads
):
    seen = []

    class Spy(ConjugateGradient):
        def verdict(self, before, after):
            seen.extend(blas_threads())
            return super().verdict(before, after)

    monkeypatch.setitem(registry.SOLVERS, "cg", lambda _: Spy(max_epochs=1))
    X = np.random.default_rng(0).standard_normal((20, n_features))
    fit_dataset(open_dataset(X, X[:, 0]), FitConfig.parse(solver="cg", max_epochs=1))
    assert set(seen) == {n_threads}
