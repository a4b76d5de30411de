"""Workers that are killed, stopped, lost all together, and a scheduler that is: rows R3 to R8."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import warnings

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
import zarr

from streamreg import LinearRegression
from streamreg.cluster import tasks, worker_tasks
from streamreg.cluster.scheduler import Scheduler
from streamreg.errors import ClusterError

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(90)]

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
    with (
        distributed.LocalCluster(
            n_workers=3, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
            memory_limit="1 GiB",
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):  # fmt: skip
        yield client


def fit(X, y=None, *, n_epochs=10, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearRegression(max_epochs=n_epochs, **PARAMETERS, **parameters).fit(X, y)
    return model.coef_.tobytes(), model.loss_history_


class Accidents:
    """Kills a worker of its choice, some times."""

    def __init__(self, client, seconds, most):
        self._client, self._seconds, self._most = client, seconds, most
        self._over, self._hit = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.n_hit = 0

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exception):
        self._over.set()
        self._thread.join()

    def _run(self):
        chance = random.Random(0)
        while self.n_hit < self._most and not self._over.wait(self._seconds):
            pids = list(pids_of(self._client).values())
            if pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                self.n_hit += 1
                self._hit.set()

    def waited_for(self, record):
        """Hold a fit up in its first epochs until something has befallen it."""
        if record.epoch < 3:
            self._hit.wait(20)
            self._hit.clear()


def pids_of(client):
    """Return the processes of the workers that are there, by their addresses."""
    info = client.run_on_scheduler(
        lambda dask_scheduler: {at: w.metrics for at, w in dask_scheduler.workers.items()}
    )
    return {at: found for at, found in ((at, process_at(at)) for at in info) if found}


def process_at(address):
    """Return the process that listens at an address, of those of this one."""
    port = int(address.rpartition(":")[2])
    for process in psutil.Process().children(recursive=True):
        try:
            if any(
                c.status == "LISTEN" and c.laddr.port == port for c in process.net_connections()
            ):
                return process.pid
        except psutil.Error:
            continue
    return None


@pytest.mark.parametrize("kind", ["store", "Dask array"])
def test_r4_workers_killed_every_second_change_no_bit(cluster, store, kind):
    X, y = store / "X", store / "y"
    if kind == "Dask array":
        X, y = da.from_zarr(store / "X"), da.from_zarr(store / "y")
    expected = fit(X, y)
    with Accidents(cluster, 1.0, most=5) as accidents:
        assert fit(X, y, client=cluster, progress=accidents.waited_for) == expected
    assert accidents.n_hit


def test_r5_all_workers_lost_is_an_error_within_the_deadline(cluster, store, tmp_path):
    path = tmp_path / "checkpoint"

    def lose_all(record):
        if record.epoch == 2:
            cluster.cluster.scale(0)

    with (
        dask.config.set({"streamreg.no-progress-timeout": "4 s"}),
        pytest.raises(
            ClusterError,
            match=r"Gradient of .*X was waited for: nothing came for 4 s, with 0 workers",
        ),
    ):
        fit(store, client=cluster, progress=lose_all, checkpoint=path)
    assert fit(store, checkpoint=path) == fit(store)


def test_r7_a_worker_that_is_stopped_does_not_hold_up_the_fit(cluster, store, monkeypatch):
    monkeypatch.setattr(tasks, "_LEAST_SUSPICION_SECONDS", 1.0)
    stopped = []

    def stop(record):
        if record.epoch == 2:
            stopped.append(next(iter(pids_of(cluster).values())))
            os.kill(stopped[0], signal.SIGSTOP)

    try:
        assert fit(store, client=cluster, progress=stop) == fit(store)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    assert stopped


def test_r6_a_scheduler_that_is_lost_is_an_error_and_the_checkpoint_goes_on(store, tmp_path):
    path = tmp_path / "checkpoint"
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    )
    client = distributed.Client(cluster, set_as_default=False, timeout=3)

    def lose(record):
        if record.epoch == 2:
            cluster.close()

    try:
        with (
            dask.config.set({"streamreg.no-progress-timeout": "10 s"}),
            pytest.raises(ClusterError, match="was given up"),
        ):
            fit(store, client=client, progress=lose, checkpoint=path)
    finally:
        client.close()
    assert fit(store, checkpoint=path) == fit(store)


@pytest.fixture
def scheduler(tmp_path):
    """Yield the processes of a scheduler and its worker, and where the address is written."""
    file = tmp_path / "scheduler.json"
    local = ["--scheduler-file", str(file), "--host", "127.0.0.1", "--no-dashboard"]
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", *local, "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path) as process:
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", *local, "--no-nanny"]
        with subprocess.Popen(worker, cwd=tmp_path) as working:
            yield process, working, file
            for each in (working, process):
                each.kill()


def test_r6_a_scheduler_that_is_stopped_is_an_error_within_the_deadline(scheduler, store):
    process, _, file = scheduler
    with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)

        def stop(record):
            if record.epoch == 2:
                process.send_signal(signal.SIGSTOP)

        with (
            dask.config.set({"streamreg.no-progress-timeout": "4 s"}),
            pytest.raises(
                ClusterError, match="answer of its scheduler was waited for: none came for 4 s"
            ),
        ):
            fit(store, client=client, progress=stop)
        # so that the client can take its leave
        process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("scheduler", "answer of its scheduler was waited for: none came for 1 s"),
        ("worker", "a sum was waited for: no worker was there for 2 s, with 0 workers there"),
    ],
)
def test_r5_r6_a_task_may_take_hours_but_not_to_notice_that_nobody_is_at_it(scheduler, lost, says):
    process, working, file = scheduler
    with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout=30) as client:
        client.wait_for_workers(1, timeout=30)

        def submit(*call, **where):
            future = client.submit(*call, pure=False, **where)
            client.submit(int).result()  # the call has come to the worker
            process.send_signal(signal.SIGSTOP) if lost == "scheduler" else working.kill()
            return future

        waiting = tasks.Tasks(
            Scheduler(client, patience=2.0),
            submit,
            "a sum",
            prefix="",
            holds="a sum",
            patience=36_000,
        )
        try:
            with pytest.raises(ClusterError, match=says):
                # a call that never ends
                list(waiting.in_order([(select.select, [], [], [])]))
        finally:
            # so that the client can take its leave
            process.send_signal(signal.SIGCONT)


def some_work(before):
    return sum(range(5_000_000)) + 0 * before


def test_r5_a_chain_that_takes_long_is_waited_for_while_its_tasks_end(cluster):
    def submit(count, **where):
        futures = [0]
        for _ in range(count):
            futures.append(cluster.submit(some_work, futures[-1], pure=False, **where))
        return futures[-1]

    # fewer seconds than the chain takes, and more than one of its tasks
    waiting = tasks.Tasks(
        Scheduler(cluster, patience=5.0), submit, "a chain", prefix="", holds="a sum", patience=5.0
    )
    assert [*waiting.in_order([(50,)])] == [sum(range(5_000_000))]


def test_r7_what_others_have_done_on_a_shared_cluster_is_no_sign_of_ours(cluster, monkeypatch):
    monkeypatch.setattr(tasks, "_FIRST_SUSPICION", 0.5)  # nobody is suspected before the end
    over = threading.Event()

    def others():
        while not over.is_set():
            cluster.submit(some_work, 0, pure=False).result()

    def submit(*call, **where):
        return cluster.submit(*call, pure=False, key=worker_tasks.new_key("ours"), **where)

    waiting = tasks.Tasks(
        Scheduler(cluster, patience=2.0), submit, "a task", prefix="ours", holds="a sum",
        patience=2.0,
    )  # fmt: skip
    busy = threading.Thread(target=others)
    busy.start()
    try:
        with pytest.raises(ClusterError, match="a task was waited for: nothing came for 2 s"):
            # a call that never ends, by one worker of three
            list(waiting.in_order([(select.select, [], [], [])]))
    finally:
        over.set()
        busy.join()


def test_r8_workers_that_come_and_go_change_no_bit(cluster, store):
    def scale(record):
        cluster.cluster.scale(1 + record.epoch % 3)

    assert fit(store, client=cluster, progress=scale) == fit(store)


def test_r5_a_cluster_without_workers_is_told_before_the_fit(store):
    with (
        distributed.LocalCluster(
            n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as empty,
        distributed.Client(empty, set_as_default=False) as client,
        dask.config.set({"streamreg.no-progress-timeout": "1 s"}),
        pytest.raises(ClusterError, match="has had no worker for 1 s"),
    ):
        fit(store, client=client)
