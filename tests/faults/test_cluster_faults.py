"""Faults R3 to R8: workers killed, stopped or all lost, and a scheduler stopped or lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from clusters import loopback_cluster

from streamreg import LinearRegression
from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.moments import Moments
from streamreg.checkpoint.checkpoint import Checkpoint
from streamreg.cluster.engine import ClusterEngine
from streamreg.cluster.scheduler import Scheduler
from streamreg.cluster.tasks import Tasks
from streamreg.cluster.workers import job_for
from streamreg.engines.threads import ThreadsEngine, ThreadsReducer
from streamreg.errors import ClusterError
from streamreg.kernels.registry import best_kernels
from streamreg.sources.open import open_dataset

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(180)]

PARAMETERS = {"solver": "gd", "standardize": False, "learning_rate": 1e-3, "tol": 0.0}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200_000, 64))
    path = tmp_path_factory.mktemp("cluster") / "data.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=X, chunks=(4000, 64))
    group.create_array("y", data=X.sum(axis=1) + rng.standard_normal(len(X)), chunks=(50_000,))
    return path


@pytest.fixture
def cluster():
    with loopback_cluster() as client:
        yield client


def fit(X, y=None, *, n_epochs=10, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearRegression(max_epochs=n_epochs, **PARAMETERS, **parameters).fit(X, y)
    return model.coef_.tobytes(), model.loss_history_


def pids_of(client):
    """Return the processes of the workers that answer, by their addresses."""
    return client.run(os.getpid, on_error="ignore")


def kill_one(client):
    """Kill one worker, if there is any; return how many were killed."""
    pids = [*pids_of(client).values()][:1]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


class Clock:
    """A clock that moves by ``step`` seconds at each reading, and when a test moves it."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def fake_time(client, kind=Scheduler):
    """Return a scheduler whose patience is 30 s of a fake clock."""
    return kind(client, 30.0, clock=Clock(0.25), tick_seconds=0.01)


def tasks_of(scheduler, submit, **more):
    return Tasks(scheduler, submit, "a sum", "4 B", **more)


def file_made(path, before=None):
    """Wait for a file, in a task on a worker that starts after the task of ``before``."""
    while not Path(path).exists():
        time.sleep(0.01)
    return before


def assert_bitwise_identical(results, expected):
    for result, other in zip(results, expected, strict=True):
        assert np.asarray(result).tobytes() == np.asarray(other).tobytes()


def running_on(client):
    return {key for keys in client.processing().values() for key in keys}


def wait_until(condition):
    while not condition():
        time.sleep(0.01)


@pytest.mark.parametrize("kind", ["store", "Dask array"])
def test_r4_workers_killed_within_passes_change_no_bit(cluster, store, kind):
    X, y = store / "X", store / "y"
    if kind == "Dask array":
        X, y = da.from_zarr(store / "X"), da.from_zarr(store / "y")
    n_segments = n_killed = 0

    def kill_some(n_rows):
        nonlocal n_segments, n_killed
        n_segments += 1
        # three times: Dask gives up a task that has lost four workers
        if n_segments in {2, 7, 14}:
            n_killed += kill_one(cluster)

    dataset = open_dataset(X, y)
    job, scheduler = job_for(dataset, ThreadsReducer(best_kernels())), Scheduler(cluster)
    with ClusterEngine(dataset, job, scheduler, kill_some) as engine:
        killed = [engine.reduce(Moments(64, 1)) for _ in range(5)]
    with ClusterEngine(dataset, job, scheduler, lambda _: None) as engine:
        expected = engine.reduce(Moments(64, 1)).result
    assert n_killed
    for reduction in killed:
        assert_bitwise_identical(reduction.result, expected)


def test_r4_a_worker_killed_between_passes_changes_no_bit(cluster, store):
    def kill(record):
        if record.epoch in {2, 3, 5}:
            kill_one(cluster)

    assert fit(store, client=cluster, progress=kill) == fit(store)


def test_r4_a_task_that_kills_its_workers_is_an_error_that_states_its_memory(cluster):
    def submit(*call, **where):
        return cluster.submit(*call, pure=False, **where)

    waiting = tasks_of(Scheduler(cluster), submit)
    with pytest.raises(ClusterError, match=r"a sum failed .* KilledWorker: .* a task holds 4 B"):
        list(waiting.in_order([(lambda: os.kill(os.getpid(), signal.SIGKILL),)]))


def test_r5_all_workers_lost_is_an_error_after_which_the_checkpoint_resumes(
    cluster, store, tmp_path
):
    dataset, accumulator = open_dataset(store), Moments(64, 1)
    job = job_for(dataset, ThreadsReducer(best_kernels()))

    def lose_all(n_rows):
        cluster.cluster.scale(0)
        wait_until(lambda: not cluster.nthreads())

    def two_passes(engine):
        with Checkpoint(tmp_path / "checkpoint", {}, dataset) as checkpoint, engine:
            return [checkpoint.reduce(engine, accumulator).result for _ in range(2)]

    with pytest.raises(ClusterError, match="the fit stopped waiting"):
        two_passes(ClusterEngine(dataset, job, fake_time(cluster), lose_all))
    resumed = two_passes(ThreadsEngine(dataset, 1))
    with ThreadsEngine(dataset, 1) as engine:
        expected = engine.reduce(accumulator).result
    for result in resumed:
        assert_bitwise_identical(result, expected)


def test_r5_all_workers_lost_is_an_error_that_names_the_pass(cluster, store):
    dataset = open_dataset(store)
    cluster.cluster.scale(0)
    wait_until(lambda: not cluster.nthreads())
    with (
        ClusterEngine(
            dataset,
            job_for(dataset, ThreadsReducer(best_kernels())),
            fake_time(cluster),
            lambda _: None,
        ) as engine,
        pytest.raises(
            ClusterError,
            match=r"Moments of .*X: no task ended for 30 s, with 0 workers",
        ),
    ):
        engine.reduce(Moments(64, 1))


def test_r7_a_worker_that_is_stopped_does_not_hold_up_the_fit(cluster, store):
    stopped = []

    def stop(record):
        if record.epoch == 2:
            stopped.append(next(iter(pids_of(cluster).values())))
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        # long before the 300 s after which Dask itself removes the worker
        with dask.config.set({"streamreg.no-progress-timeout": "40 s"}):
            assert fit(store, client=cluster, progress=stop) == fit(store)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert stopped


def test_r7_a_result_on_a_worker_that_is_stopped_is_computed_by_another(cluster):
    pids, stopped = pids_of(cluster), []

    def submit(*call, **where):
        future = cluster.submit(*call, pure=False, **where)
        if not stopped:
            with cluster.as_current():
                distributed.wait([future])
            (at,) = cluster.who_has([future])[future.key]
            stopped.append(at)
            os.kill(pids[at], signal.SIGSTOP)
        return future

    scheduler = Scheduler(cluster)
    waiting = tasks_of(scheduler, submit, patience=20.0)
    try:
        assert [*waiting.in_order([(sum, [1, 2])])] == [3]
        assert scheduler.suspects == {*stopped}
    finally:
        os.kill(pids[stopped[0]], signal.SIGCONT)


def test_r7_an_accumulator_on_a_worker_that_is_stopped_is_sent_to_the_others(cluster, tmp_path):
    X = np.random.default_rng(0).standard_normal((500, 9000))  # 34 MiB, two segments
    zarr.create_array(tmp_path / "X.zarr", data=X, chunks=(100, 9000))
    zarr.save_array(tmp_path / "y.zarr", X[:, 0])
    dataset = open_dataset(tmp_path / "X.zarr", tmp_path / "y.zarr")
    accumulator = Gradient(np.ones((9000, 1)), np.zeros(1), 1)  # pickled, 70 KiB
    pids, stopped = pids_of(cluster), []

    class StopsTheHolder(ClusterEngine):
        def _send(self, accumulator, workers):
            future = super()._send(accumulator, workers)
            if not stopped:
                with cluster.as_current():
                    distributed.wait([future])
                (at,) = cluster.who_has([future])[future.key]
                stopped.append(at)
                os.kill(pids[at], signal.SIGSTOP)
            return future

    job, scheduler = job_for(dataset, ThreadsReducer(best_kernels())), Scheduler(cluster, 40.0)
    try:
        with StopsTheHolder(dataset, job, scheduler, lambda _: None) as engine:
            on_cluster = engine.reduce(accumulator).result
    finally:
        os.kill(pids[stopped[0]], signal.SIGCONT)
    with ThreadsEngine(dataset, 1) as engine:
        assert_bitwise_identical(on_cluster, engine.reduce(accumulator).result)


def test_r7_a_call_that_hangs_is_made_by_another_worker_too(cluster, tmp_path):
    scheduler, n_attempts = fake_time(cluster), 0

    def submit(*call, **where):
        nonlocal n_attempts
        n_attempts += 1
        if n_attempts == 2:
            scheduler.clock.step = 0.0
        future = cluster.submit(*call, pure=False, **where)
        wait_until((tmp_path / "begun").exists)
        return future

    def first_hangs():
        try:
            (tmp_path / "begun").touch(exist_ok=False)
        except FileExistsError:
            return "another"
        return file_made(tmp_path / "end")

    waiting = tasks_of(scheduler, submit)
    try:
        assert [*waiting.in_order([(first_hangs,)])] == ["another"]
        assert len(scheduler.suspects) == 1
    finally:
        (tmp_path / "end").touch()


def test_r7_a_suspected_worker_that_gives_a_result_is_no_longer_suspected(cluster):
    def submit(*call, workers=None):
        return cluster.submit(*call, pure=False)

    scheduler = Scheduler(cluster)
    scheduler.suspects.update(cluster.nthreads())
    assert [*tasks_of(scheduler, submit).in_order([(sum, [1, 2])])] == [3]
    assert len(scheduler.suspects) == 2


def test_r6_a_task_that_is_cancelled_is_submitted_again(cluster):
    n_attempts = 0

    def submit(*call, **where):
        nonlocal n_attempts
        n_attempts += 1
        future = cluster.submit(*call, pure=False, **where)
        if n_attempts == 1:
            cluster.cancel([future])
        return future

    assert [*tasks_of(Scheduler(cluster), submit).in_order([(sum, [1, 2])])] == [3]
    assert n_attempts == 2


def test_r6_a_scheduler_that_is_lost_is_an_error_after_which_the_checkpoint_resumes(
    store, tmp_path
):
    path = tmp_path / "checkpoint"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    client = distributed.Client(cluster, set_as_default=False, timeout=3)

    def lose(record):
        if record.epoch == 2:
            cluster.close()

    try:
        with pytest.raises(ClusterError, match="the fit stopped waiting"):
            fit(store, client=client, progress=lose, checkpoint=path)
    finally:
        client.close()
    assert fit(store, checkpoint=path) == fit(store)


@pytest.fixture
def processes(tmp_path):
    """Yield the processes of a scheduler and its worker, and the file with its address."""
    file = tmp_path / "scheduler.json"
    local = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *local, "--port", "0"]
    # a worker imports this file, and what it imports
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=tmp_path, env=env) as process:
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", *local, "--no-nanny"]
        with subprocess.Popen(worker, cwd=tmp_path, env=env) as working:
            yield process, working, file
            for each in (working, process):
                each.kill()


def test_r6_a_scheduler_that_is_stopped_is_an_error_within_the_deadline(processes, store):
    process, _, file = processes
    dataset = open_dataset(store)
    with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
        client.wait_for_workers(1, timeout=60)
        scheduler = Scheduler(client)
        with ClusterEngine(
            dataset, job_for(dataset, ThreadsReducer(best_kernels())), scheduler, lambda _: None
        ) as engine:
            engine.reduce(Moments(64, 1))
            process.send_signal(signal.SIGSTOP)
            scheduler.patience = 2.0
            with pytest.raises(ClusterError, match="answer of its scheduler: none came for 2 s"):
                engine.reduce(Moments(64, 1))
            # so that the client can close
            process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("scheduler", "answer of its scheduler: none came for 2 s"),
        ("worker", "a sum: no task ended for 30 s, with 0 workers connected"),
    ],
)
def test_r5_r6_a_long_task_without_worker_or_scheduler_is_an_error(processes, tmp_path, lost, says):
    process, working, file = processes
    with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=60) as client:
        client.wait_for_workers(1, timeout=60)
        scheduler = fake_time(client)

        def submit(*call, **where):
            future = scheduler.submit(*call, **where)
            wait_until(lambda: future.key in running_on(client))
            if lost == "worker":
                working.kill()
            else:
                process.send_signal(signal.SIGSTOP)
                scheduler.patience = 2.0
            return future

        waiting = tasks_of(scheduler, submit, patience=1e6)
        try:
            with pytest.raises(ClusterError, match=says):
                list(waiting.in_order([(file_made, tmp_path / "end")]))
        finally:
            (tmp_path / "end").touch()
            # so that the client can close
            process.send_signal(signal.SIGCONT)


def test_r5_a_long_chain_of_tasks_is_waited_for_while_its_tasks_end(cluster, tmp_path):
    names = iter(range(100))

    class OneByOne(Scheduler):
        def processing(self):
            # the running tasks end, and most of the patience passes
            ending = running_on(self.client)
            (tmp_path / str(next(names))).touch()
            wait_until(lambda: not ending & running_on(self.client))
            self.clock.now += 0.8 * self.patience
            return super().processing()

    scheduler = fake_time(cluster, OneByOne)

    def submit(count, **where):
        future = None
        for number in range(count):
            future = scheduler.submit(file_made, tmp_path / str(number), future, **where)
        return scheduler.submit(str, future, **where)

    waiting = tasks_of(scheduler, submit)
    assert [*waiting.in_order([(8,)])] == ["None"]
    assert next(names) >= 8


def test_r7_tasks_of_other_clients_do_not_count_as_progress(cluster, tmp_path):
    steps = iter([0.3, 0.8])
    theirs = []

    class Shared(Scheduler):
        def processing(self):
            # between two answers, a task of another client ends and its next one starts
            for before in theirs[-1:]:
                (tmp_path / before.key).touch()
                before.result()
            key = f"theirs-{len(theirs)}"
            theirs.append(self.client.submit(file_made, tmp_path / key, key=key))
            wait_until(lambda: key in running_on(self.client))
            self.clock.now += next(steps) * self.patience
            return super().processing()

    scheduler = fake_time(cluster, Shared)
    waiting = tasks_of(scheduler, scheduler.submit)
    try:
        with pytest.raises(ClusterError, match=r"a sum: no task ended for 3\d s"):
            list(waiting.in_order([(file_made, tmp_path / "ours")]))
    finally:
        for name in ("ours", theirs[-1].key):
            (tmp_path / name).touch()


def test_r8_workers_that_come_and_go_change_no_bit(cluster, store):
    def scale(record):
        cluster.cluster.scale(1 + record.epoch % 3)

    assert fit(store, client=cluster, progress=scale) == fit(store)


def test_r5_a_cluster_without_workers_is_an_error_before_the_fit(store):
    with (
        loopback_cluster(0) as client,
        dask.config.set({"streamreg.no-progress-timeout": "5 s"}),
        pytest.raises(ClusterError, match="has had no worker for 5 s"),
    ):
        fit(store, client=client)
