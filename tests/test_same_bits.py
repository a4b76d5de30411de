"""The answer is a function of the data and their chunks: never of threads, nor of memory."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

import streamreg
from streamreg import LinearRegression
from streamreg.engines.partition import HOST, Blocks
from streamreg.formatting import MIB
from streamreg.sources.open import open_dataset

# these tests limit the epochs, so solvers do not converge
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SOLVERS = {
    "closed_form": {},
    "qr": {},
    "cg": {"max_epochs": 4},
    "gd": {"max_epochs": 4},
    "gd with a rate": {"max_epochs": 4, "learning_rate": 0.005, "standardize": False},
}


@pytest.fixture(scope="module")
def tall():
    """Rows of 56 MiB: threads take one each of three segments."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((730_000, 10)) + 5
    Y = np.column_stack([X @ np.arange(10.0), X[:, 0]]) + rng.standard_normal((len(X), 2))
    return X, Y, rng.uniform(0, 2, len(X)).round(1)


@pytest.fixture(scope="module")
def wide():
    """Rows with a state of 10 MB, whose factor has three panels."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((1000, 1100))
    return X, X[:, :5].sum(axis=1) + rng.standard_normal(len(X))


@pytest.fixture
def large_states(monkeypatch):
    """Let a state of some MiB be a large one: there is one for all threads, and they share it."""
    smaller = {"large_state_nbytes": 2 * MIB, "piece_nbytes": 4 * MIB, "block_nbytes": MIB}
    for name, value in smaller.items():
        # plans and engines use this object
        monkeypatch.setitem(vars(HOST), name, value)


@pytest.fixture(scope="module")
def on_disk(tall, tmp_path_factory):
    """The rows in chunks, of X compressed, of y cut elsewhere."""
    folder = tmp_path_factory.mktemp("tall")
    paths = []
    for values, rows, name in zip(tall, (70_001, 333_000, 730_000), "Xyw", strict=True):
        path = folder / f"{name}.zarr"
        zarr.create_array(
            store=path,
            data=values,
            chunks=(rows, *values.shape[1:]),
            compressors=ZstdCodec(level=1) if name == "X" else None,
        )
        paths.append(str(path))
    return tuple(paths)


def bits(model):
    return (
        model.coef_.tobytes(),
        np.asarray(model.intercept_).tobytes(),
        tuple(model.loss_history_),
        model.n_iter_,
    )


def ways(data, parameters):
    """Numbers of threads, and memory limits from the least that will do upwards."""
    solver = parameters["solver"]
    for n_threads in (1, 2, 3, 8):
        yield {"n_threads": n_threads}
        plan = streamreg.plan(*data, n_threads=n_threads, **parameters)
        peak = plan.candidates[solver].peak_nbytes
        if n_threads in {1, 3}:
            yield {"n_threads": n_threads, "memory_limit": peak}
        if n_threads == 1:
            # fewer threads than asked for, since more do not fit
            yield {"n_threads": 8, "memory_limit": peak}
            yield {"n_threads": 8, "memory_limit": peak + (8 << 20)}


def assert_same_bits_all_ways(data, **parameters):
    found = [
        bits(LinearRegression(**parameters, **way).fit(*data)) for way in ways(data, parameters)
    ]
    assert all(each == found[0] for each in found)


@pytest.mark.parametrize("kind", SOLVERS)
def test_arrays_in_memory(kind, tall):
    assert_same_bits_all_ways(tall[:2], solver=kind.partition(" ")[0], **SOLVERS[kind])


@pytest.mark.parametrize("kind", SOLVERS)
def test_arrays_on_disk(kind, on_disk):
    assert_same_bits_all_ways(on_disk, solver=kind.partition(" ")[0], **SOLVERS[kind])


@pytest.mark.parametrize("solver", ["closed_form", "qr", "dual"])
@pytest.mark.parametrize("stored", [False, True])
def test_a_state_that_threads_share(stored, solver, wide, large_states, tmp_path):
    data = wide
    if stored:
        zarr.create_array(store=tmp_path / "X.zarr", data=wide[0], chunks=(100, 1100))
        data = (str(tmp_path / "X.zarr"), wide[1])
    # a penalty, because the data have fewer rows than columns
    assert_same_bits_all_ways(data, solver=solver, l2=0.5)


def test_the_rows_are_what_these_tests_take_them_for(tall, wide, large_states):
    for data, n_segments in ((tall, 3), (wide, 1)):
        dataset = open_dataset(*data)
        k = dataset.n_targets
        state_nbytes = 8 * dataset.n_features * (dataset.n_features + k)
        blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
        found = HOST.n_segments(len(blocks), dataset.n_rows * dataset.row_nbytes, state_nbytes)
        assert found >= n_segments
        assert (found == 1) == (n_segments == 1)
        assert len(blocks) > 1
