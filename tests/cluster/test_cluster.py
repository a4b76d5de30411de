"""Fits on a Dask cluster: the bits of a fit on one machine, and refusals before any pass."""

from __future__ import annotations

import pickle
import re
import shutil
import threading
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
import zarr
from clusters import loopback_cluster
from problems import lstsq
from sklearn.base import clone
from sklearn.model_selection import KFold

from streamreg import LinearRegression, LinearRegressionCV, plan
from streamreg.accumulators.moments import Moments
from streamreg.cluster import worker_tasks
from streamreg.cluster.engine import ClusterEngine
from streamreg.cluster.scheduler import scheduler_of
from streamreg.cluster.versions import versions
from streamreg.cluster.workers import job_for, require_fit_workers
from streamreg.engines.partition import PartitionPolicy
from streamreg.engines.threads import ThreadsEngine, ThreadsReducer
from streamreg.errors import (
    ClusterError,
    DataCorruptionError,
    DataWarning,
    InputError,
    MemoryLimitError,
)
from streamreg.formatting import MIB
from streamreg.kernels.registry import best_kernels
from streamreg.sources.open import open_dataset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def client():
    # imported first, because at its end ``set`` would remove the settings that an import adds
    pytest.importorskip("distributed")
    with dask.config.set({"distributed.worker.daemon": True}), loopback_cluster() as client:
        yield client


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150_000, 60)) * rng.uniform(0.1, 5, 60) + rng.standard_normal(60)
    y = X @ rng.standard_normal((60, 2)) + rng.standard_normal((150_000, 2))
    return X, y, rng.integers(0, 3, 150_000).astype("u1")


@pytest.fixture(scope="module")
def store(tmp_path_factory, rows):
    X, y, weight = rows
    path = tmp_path_factory.mktemp("cluster") / "data.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=X, chunks=(4000, 60))
    group.create_array("plain", data=X.astype("f4"), chunks=(50_000, 60), compressors=None)
    group.create_array("wide", data=np.tile(X[:2500], (1, 35)), chunks=(100, 2100))
    group.create_array("y", data=y, chunks=(40_000, 2))
    group.create_array("sample_weight", data=weight, chunks=(150_000,))
    return path


def bits(X, y=None, weight=None, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tiled columns are dependent, and epochs are too few
        model = LinearRegression(**{"max_epochs": 4, "memory_limit": "500 MiB", **parameters})
        model.fit(X, y, weight)
    return model.coef_.tobytes(), np.array(model.intercept_).tobytes(), tuple(model.loss_history_)


@pytest.mark.parametrize("solver", ["closed_form", "qr", "gd", "cg"])
def test_a_fit_on_a_cluster_is_bitwise_identical_to_one_machine(client, store, solver):
    weight = zarr.open_array(store / "sample_weight")
    for X, y, s in (
        (store / "X", store / "y", None),
        (store / "plain", store / "y", store / "sample_weight"),
        (store / "X", store / "sample_weight", weight),
    ):
        assert bits(X, y, s, solver=solver, client=client) == bits(X, y, s, solver=solver)


@pytest.mark.parametrize(
    ("cv", "groups"),
    [(3, None), (KFold(3, shuffle=True, random_state=0), None), (3, "sample_weight")],
    ids=["consecutive", "shuffled", "groups"],
)
def test_folds_on_a_cluster_have_the_bits_of_one_machine(client, store, cv, groups):
    groups = None if groups is None else store / groups

    def scores(client=None):
        model = LinearRegressionCV(l2=[0.0, 1.0, 1e7], cv=cv, client=client)
        return model.fit(store / "X", store / "y", groups=groups).cv_scores_

    np.testing.assert_array_equal(scores(client), scores())


@pytest.fixture(scope="module")
def sparse_rows():
    rng = np.random.default_rng(4)
    X = scipy.sparse.random_array((60_000, 60), density=0.2, rng=rng, format="csr")
    return X, X @ rng.standard_normal(60) + rng.standard_normal(60_000)


@pytest.fixture(scope="module")
def sparse_store(sparse_rows, tmp_path_factory):
    X, y = sparse_rows
    path = tmp_path_factory.mktemp("sparse") / "data.zarr"
    root = zarr.create_group(path)
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": list(X.shape)})
    for name in ("data", "indices", "indptr"):
        group.create_array(name, data=getattr(X, name), chunks=(100_000,))
    root.create_array("y", data=y, chunks=(10_000,))
    return path


@pytest.mark.parametrize("solver", ["closed_form", "gd", "cg"])
def test_sparse_rows_on_a_cluster_have_the_bits_of_one_machine(client, sparse_store, solver):
    models = [
        LinearRegression(solver=solver, l2=0.1, client=each, max_epochs=200).fit(str(sparse_store))
        for each in (None, client)
    ]
    assert models[0].coef_.tobytes() == models[1].coef_.tobytes()
    assert models[1].score(str(sparse_store)) > 0


def test_a_closed_form_of_sparse_rows_in_several_panels_has_the_bits_of_one_machine(client):
    ones = np.random.default_rng(5).binomial(1, 0.02, (2_000, 400)).astype(float)
    X = da.from_array(ones, chunks=(1_000, 400)).map_blocks(scipy.sparse.csr_array)
    y = da.arange(2_000.0, chunks=1_000)
    models = [
        LinearRegression(solver="closed_form", client=each).fit(X, y) for each in (None, client)
    ]
    assert models[0].coef_.tobytes() == models[1].coef_.tobytes()


@pytest.mark.parametrize("encoding", ["dense", "csr"])
def test_a_preconditioned_fit_on_a_cluster_has_the_bits_of_one_machine(client, tmp_path, encoding):
    rng = np.random.default_rng(5)
    # beyond 361 columns no directions are kept; words of one phrase are correlated
    phrases = rng.binomial(1, np.geomspace(0.3, 0.003, 100), (2000, 100))
    X = np.repeat(phrases, 4, axis=1) * rng.binomial(1, 0.9, (2000, 400))
    X, y = X + 0.0, X @ rng.standard_normal(400) + rng.standard_normal(2000)
    root = zarr.create_group(tmp_path / "data.zarr")
    root.create_array("y", data=y)
    if encoding == "dense":
        root.create_array("X", data=X, chunks=(500, 400))
    else:
        rows, group = scipy.sparse.csr_array(X), root.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": list(X.shape)})
        for name in ("data", "indices", "indptr"):
            group.create_array(name, data=getattr(rows, name), chunks=(20_000,))
    shared = {"solver": "cg", "l2": 1e-3, "max_epochs": 8}
    found, expected, plain = (
        bits(tmp_path / "data.zarr", precondition=k, client=each, **shared)
        for k, each in ((200, client), (200, None), (None, None))
    )
    assert found == expected != plain


@pytest.mark.parametrize("solver", ["closed_form", "cg"])
def test_sparse_dask_arrays_on_a_cluster_have_the_bits_of_one_machine(client, solver):
    rng = da.random.default_rng(0)
    dense = rng.random((20_000, 30), chunks=(5_000, -1))
    X = dense.map_blocks(lambda rows: scipy.sparse.csr_array(np.where(rows < 0.3, rows, 0)))
    y = rng.random(20_000, chunks=3_000)
    how = {"solver": solver, "tol": 1e-3}
    models = [LinearRegression(**how, client=each).fit(X, y) for each in (None, client)]
    assert models[0].coef_.tobytes() == models[1].coef_.tobytes()


def test_a_chunk_of_sparse_rows_that_changes_between_tasks_is_noticed(sparse_store):
    dataset = open_dataset(str(sparse_store))
    # of a chunk of values
    number = next(n for n, name in enumerate(dataset.stamps()) if "values" in name)
    reads = ({at: {0: stamp} if at == number else {} for at in range(4)} for stamp in (1, 2))
    first, second = (
        worker_tasks.Done([], dict(zip(dataset.stamps(), read.values(), strict=True)))
        for read in reads
    )
    worker_tasks.merge_stamps(dataset, first)
    with pytest.raises(DataCorruptionError, match=r"X/data .* changed since it was first read"):
        worker_tasks.merge_stamps(dataset, second)


def test_sparse_rows_in_memory_are_refused_with_a_way_to_write_them(client, sparse_rows):
    with pytest.raises(InputError, match=r"anndata.AnnData\(X\).write_zarr\(PATH\)"):
        LinearRegression(client=client).fit(*sparse_rows)


@pytest.mark.parametrize("kind", ["store", "Dask arrays"])
def test_workers_decode_packed_values_as_one_machine_does(client, tmp_path, rows, kind):
    stored = (100 * rows[0][:20_000, :4]).round().clip(-9999, 9999).astype("i2")
    stored[17, 2] = -32768
    group = zarr.open_group(tmp_path / "packed.zarr", mode="w")
    packed = group.create_array("X", data=stored, chunks=(1000, 4))
    packed.attrs.update({"scale_factor": 0.01, "_FillValue": -32768})
    group.create_array("y", data=rows[1][:20_000, 0], chunks=(20_000,))
    X = tmp_path / "packed.zarr/X" if kind == "store" else da.from_zarr(tmp_path / "packed.zarr/X")
    y = tmp_path / "packed.zarr/y"
    on_cluster = bits(X, y, nan_policy="omit", client=client)
    assert on_cluster == bits(X, y, nan_policy="omit")
    decoded = np.where(stored == -32768, np.nan, stored * 0.01)
    assert on_cluster == bits(decoded, y, nan_policy="omit")


@pytest.mark.parametrize("kind", ["store", "Dask arrays"])
def test_workers_refuse_absent_chunks(client, store, tmp_path, kind):
    shutil.copytree(store / "X", tmp_path / "X")
    (tmp_path / "X/c/3/0").unlink()
    X = tmp_path / "X" if kind == "store" else da.from_zarr(tmp_path / "X")
    with pytest.raises(DataCorruptionError, match=r"chunk c/3/0 of .*X .*is missing"):
        LinearRegression(client=client).fit(X, store / "y")


@pytest.mark.parametrize("solver", ["closed_form", "qr"])
@pytest.mark.parametrize("kind", ["store", "Dask arrays"])
def test_workers_make_parts_of_a_state_too_large_for_each_of_them(client, store, kind, solver):
    X, y = store / "wide", da.from_zarr(store / "y")[:2500, 0]
    if kind == "Dask arrays":
        X, y = da.from_zarr(X), da.from_zarr(store / "y")[:2500]
    on_cluster = bits(X, y, solver=solver, client=client)
    assert on_cluster == bits(X, y, solver=solver)


@pytest.mark.parametrize("kind", ["lazy", "persisted", "expression", "uneven", "y in a store"])
@pytest.mark.parametrize("solver", ["closed_form", "cg"])
def test_a_fit_of_dask_arrays_on_a_cluster_is_bitwise_identical_to_one_machine(
    client, store, rows, kind, solver
):
    X, y = da.from_zarr(store / "X"), da.from_zarr(store / "y")
    lazy = X, y
    if kind == "persisted":
        X, y = client.persist([X, y])
    if kind == "expression":
        X = (X - X.mean(axis=0)) * 2.0
        y = y.rechunk((7000, 2))
    if kind == "uneven":
        X = X.rechunk(((1, 50_000, 0, 49_999, 50_000), (30, 30)))
    if kind == "y in a store":
        y = store / "y"
    local = lazy if kind == "persisted" else (X, y)
    assert bits(X, y, solver=solver, client=client) == bits(*local, solver=solver)


def test_persisted_chunks_without_client_are_refused(client, store):
    X = client.persist(da.from_zarr(store / "X"))
    with pytest.raises(InputError, match=r"chunks of X are on a Dask cluster; pass .* as client"):
        LinearRegression().fit(X, store / "y")


def test_a_fit_on_a_cluster_is_resumed_on_one_machine(client, store, tmp_path):
    class StopError(Exception):
        pass

    def stop(record):
        if record.epoch == 2:
            raise StopError

    path = tmp_path / "fit.checkpoint"
    with pytest.raises(StopError):
        bits(store, solver="cg", client=client, checkpoint=path, progress=stop)
    assert bits(store, solver="cg", checkpoint=path) == bits(store, solver="cg")


def test_a_pass_with_a_large_state_starts_over_on_a_cluster_with_one_warning(client, store):
    policy = PartitionPolicy(large_state_nbytes=MIB)
    X = da.from_zarr(store / "wide")
    y = da.from_array(np.random.default_rng(0).standard_normal((2500, 100)), chunks=(500, 100))
    dataset, accumulator = open_dataset(X, y), Moments(2100, 100)
    partials = []

    def save(partial):
        if partial.n_blocks == 3:
            partials.append(partial.copied())

    with ThreadsEngine(dataset, 1, policy=policy) as engine:
        expected = engine.reduce(accumulator, None, save).result
    job = job_for(dataset, ThreadsReducer(best_kernels(), policy))
    with ClusterEngine(dataset, job, scheduler_of(client), lambda _: None, policy) as engine:
        with pytest.warns(DataWarning, match=r"a state of 1\.7 MiB is not saved within a pass"):
            resumed = engine.reduce(accumulator, partials[0], lambda _: None).result
        again = engine.reduce(accumulator, None, lambda _: None).result
    for result in (resumed, again):
        for one, other in zip(result, expected, strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_n_threads_with_a_client_is_a_warning_at_the_line_of_the_user(client, store):
    with pytest.warns(
        DataWarning, match="n_threads=2 has no effect on a fit with client"
    ) as warned:
        LinearRegression(client=client, n_threads=2, solver="closed_form").fit(store)
    assert [warning.filename for warning in warned] == [__file__]


def test_a_worker_that_connects_later_is_checked_too(client, store):
    dataset = open_dataset(store)
    job = job_for(dataset, ThreadsReducer(best_kernels()))
    job = job._replace(versions=versions() | {"numpy": "1.26"})
    with pytest.raises(ClusterError, match=r"a worker on .* has other versions: numpy"):
        worker_tasks.reduce_segments(job, pickle.dumps(Moments(60, 2)), [range(1)])


@pytest.mark.parametrize("value", ["abc", "-3s", None, "0s", "inf"])
def test_a_no_progress_timeout_that_is_no_time_is_refused(client, store, value):
    with (
        dask.config.set({"streamreg.no-progress-timeout": value}),
        pytest.raises(InputError, match="is not a duration; "),
    ):
        LinearRegression(client=client).fit(store)


def test_an_estimator_with_a_client_can_be_cloned_and_pickled(client):
    model = LinearRegression(client=client, l2=2.0)
    copied = clone(model)
    assert (copied.client, copied.l2) == (client, 2.0)
    assert pickle.loads(pickle.dumps(model)).get_params() == model.get_params() | {"client": None}


def test_rows_left_out_on_workers_are_counted(client, rows, tmp_path):
    X, y, _ = rows
    X = X[:20_000].copy()
    X[[3, 15_000], 2] = np.nan
    path = tmp_path / "X.zarr"
    zarr.create_array(path, data=X, chunks=(1000, 60))
    zarr.save_array(tmp_path / "y.zarr", y[:20_000, 0])
    model = LinearRegression(nan_policy="omit", client=client)
    with pytest.warns(DataWarning, match="2 of 20,000 rows hold NaN or inf"):
        model.fit(path, tmp_path / "y.zarr")
    finite = np.isfinite(X).all(axis=1)
    expected, _ = lstsq(X[finite], y[:20_000, 0][finite])
    np.testing.assert_allclose(model.coef_, expected[:, 0], rtol=1e-9)
    with pytest.raises(InputError, match=r"X\.zarr has NaN in row 3, column 2"):
        LinearRegression(client=client).fit(path, tmp_path / "y.zarr")


def test_a_missing_chunk_is_named_as_on_one_machine(client, store, tmp_path):
    path = shutil.copytree(store, tmp_path / "copy.zarr")
    (path / "X/c/7/0").unlink()
    with pytest.raises(DataCorruptionError, match=r"chunk c/7/0 of .*X .*is missing"):
        LinearRegression(client=client).fit(path)


def test_a_dask_array_that_cannot_be_computed_is_named(client, rows):
    def fail(block):
        raise ZeroDivisionError("the mean of no rows")

    X = da.from_array(rows[0][:5000], chunks=(1000, 60)).map_blocks(fail, dtype=float)
    y = da.zeros(5000, chunks=1000)
    with pytest.raises(ClusterError, match="ZeroDivisionError: the mean of no rows"):
        LinearRegression(client=client).fit(X, y)


def test_arrays_in_memory_are_refused(client, rows, store):
    X, y, _ = rows
    with pytest.raises(InputError, match=r"X exists in this process only.* save it"):
        LinearRegression(client=client).fit(X, y)
    in_memory = zarr.array(y[:, 0])
    with pytest.raises(InputError, match="in the memory of this process"):
        LinearRegression(client=client).fit(store / "X", in_memory)


def test_a_path_that_workers_do_not_see_is_refused_by_their_names(client, store, tmp_path):
    path = shutil.copytree(store, tmp_path / "copy.zarr")
    X, y = zarr.open_array(path / "X"), zarr.open_array(path / "y")
    path.rename(tmp_path / "moved.zarr")
    with pytest.raises(
        ClusterError, match=r"3 workers of 3 cannot do .*tcp.*cannot open the data.*same path"
    ):
        LinearRegression(client=client).fit(X, y)


def test_other_versions_on_workers_are_refused(client, store):
    job = job_for(open_dataset(store), ThreadsReducer(best_kernels()))
    job = job._replace(versions=job.versions | {"numpy": "1.26"})
    with pytest.raises(
        ClusterError, match=r"other versions: numpy .* \(the fit's process has 1\.26\)"
    ):
        require_fit_workers(scheduler_of(client), job, set())


def test_processors_of_several_kinds_are_a_warning(client, store):
    job = job_for(open_dataset(store), ThreadsReducer(best_kernels()))
    with pytest.warns(DataWarning, match="processors of several kinds .*Z80"):
        require_fit_workers(scheduler_of(client), job, {"Z80"})


def test_a_worker_whose_memory_is_too_small_is_refused(client, store):
    with pytest.raises(MemoryLimitError, match="memory_limit is"):
        LinearRegression(client=client, memory_limit="1 MiB").fit(store)


def test_a_limit_above_what_workers_have_is_lowered_with_a_warning_and_a_remedy(client, tmp_path):
    # metadata alone: nothing is read
    for name, shape in (("X", (20_000, 12_000)), ("y", (20_000,))):
        zarr.create_array(tmp_path / name, shape=shape, chunks=(100, *shape[1:]), dtype="f4")
    with pytest.warns(DataWarning, match=r"is lowered to 614\.4 MiB, 60% of the 1\.0 GiB of the"):
        table = str(
            plan(
                str(tmp_path / "X"),
                str(tmp_path / "y"),
                client=client,
                solver="closed_form",
                memory_limit="4 GiB",
            )
        )
    assert "memory limit 614.4 MiB for each worker (the smallest has 1.0 GiB)" in table
    assert re.search(r"Start workers with \d\.\d GiB of memory or more, or use solver=", table)
    assert "Raise memory_limit" not in table


@pytest.mark.parametrize("given", ["tcp://127.0.0.1:1", 7])
def test_a_client_of_another_type_is_refused(given, store):
    with pytest.raises(InputError, match=r"pass a dask\.distributed\.Client"):
        LinearRegression(client=given).fit(store)


def test_many_epochs_leave_nothing_on_the_cluster(client, store):
    def held():
        tasks = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        return tasks, threading.active_count()

    parameters = {"solver": "gd", "learning_rate": 1e-9, "tol": 0.0, "client": client}
    small = zarr.open_array(store / "sample_weight")
    path = store.parent / "small.zarr"
    zarr.save_array(path, np.random.default_rng(0).standard_normal((1000, 3)))
    zarr.save_array(store.parent / "target.zarr", small[:1000])
    model = LinearRegression(max_epochs=100, **parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(path, store.parent / "target.zarr")
        before = held()
        model.fit(path, store.parent / "target.zarr")
    after = held()
    assert after[0] <= before[0] + 5
    assert after[1] <= before[1]


@pytest.mark.parametrize("kind", ["store", "Dask arrays"])
def test_an_interrupted_pass_leaves_no_task_even_while_its_error_is_referenced(client, store, kind):
    X, y = store / "X", store / "y"
    if kind == "Dask arrays":
        X, y = da.from_zarr(X), da.from_zarr(y)
    scheduler = scheduler_of(client)
    dataset = open_dataset(X, y)

    def leave(partial):
        raise KeyboardInterrupt

    job = job_for(dataset, ThreadsReducer(best_kernels()))
    with ClusterEngine(dataset, job, scheduler, lambda _: None) as engine:
        with pytest.raises(KeyboardInterrupt) as raised:
            engine.reduce(Moments(60, 2), None, leave)
        # the scheduler handles messages in order
        client.submit(int, pure=False).result()
        left = client.run_on_scheduler(
            lambda dask_scheduler: [
                key for key, task in dask_scheduler.tasks.items() if task.who_wants
            ]
        )
    assert len(left) <= 2  # the task that the engine holds, and perhaps the one submitted above
    del raised


@pytest.mark.parametrize("kind", ["store", "Dask arrays"])
def test_dask_makes_one_group_of_the_tasks_of_all_passes(client, store, kind):
    def remembered(dask_scheduler):
        groups = [span.groups for span in dask_scheduler.extensions["spans"].spans.values()]
        return sum(group.name == "streamreg" for each in groups for group in each)

    seen = []
    X, y = store / "X", store / "y"
    if kind == "Dask arrays":
        X, y = da.from_zarr(X), da.from_zarr(y)

    def look(record):
        seen.append(client.run_on_scheduler(remembered))

    bits(X, y, solver="gd", tol=0.0, client=client, progress=look)
    assert len(seen) == 4
    assert 0 < seen[0] == seen[-1]
