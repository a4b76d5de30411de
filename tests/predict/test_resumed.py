"""Interrupted predictions are resumed, or start over if the model or the rows changed."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import zarr

from streamreg import LinearRegression
from streamreg.engines.reader_pool import ReaderPool
from streamreg.errors import InputError
from streamreg.output import staging, zarr_writer
from streamreg.predict import predictions as prediction
from streamreg.sources.fingerprint import folder_state

N, D = 600_000, 3


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(zarr_writer, "CHUNK_NBYTES", 8 * 70_000)


@pytest.fixture
def store(tmp_path):
    X = np.random.default_rng(0).standard_normal((N, D))
    zarr.create_array(tmp_path / "X", data=X, chunks=(80_000, D))
    return tmp_path / "X"


@pytest.fixture
def model(store):
    X = zarr.open_array(store)[:]
    return LinearRegression(n_threads=1).fit(X, X @ [1.0, 2.0, 3.0])


def stopped(model, store, out, monkeypatch, error, *, after=3):
    """Begin to predict, and fail after some blocks."""
    real, n_blocks = ReaderPool.report, [0]

    def tell(engine, rows):
        n_blocks[0] += 1
        if n_blocks[0] > after:
            raise error
        real(engine, rows)

    with monkeypatch.context() as patch:
        patch.setattr(ReaderPool, "report", tell)
        with pytest.raises(type(error)) as caught:
            model.predict(store, out=out)
    return caught.value


def blocks_read(monkeypatch):
    read = []
    real = prediction.numpy_kernels.predict
    monkeypatch.setattr(
        prediction.numpy_kernels, "predict", lambda X, *rest: read.append(len(X)) or real(X, *rest)
    )
    return read


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space"), MemoryError()]
)
def test_what_was_written_is_not_predicted_again(model, store, tmp_path, monkeypatch, error):
    out = tmp_path / "y.zarr"
    raised = stopped(model, store, out, monkeypatch, error)
    assert "do the same again to resume, or remove it" in raised.__notes__[0]
    assert not out.exists()
    read = blocks_read(monkeypatch)
    model.predict(store, out=out)
    assert 0 < sum(read) < N
    np.testing.assert_array_equal(zarr.open_array(out)[:], model.predict(store))
    assert sorted(file.name for file in out.iterdir()) == ["c", "zarr.json"]
    assert not (tmp_path / "y.zarr.partial").exists()


def test_a_chunk_that_was_not_written_whole_is_written_again(model, store, tmp_path, monkeypatch):
    out = tmp_path / "y.zarr"
    stopped(model, store, out, monkeypatch, KeyboardInterrupt())
    chunk = tmp_path / "y.zarr.partial/c/1"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    model.predict(store, out=out)
    np.testing.assert_array_equal(zarr.open_array(out)[:], model.predict(store))


@pytest.mark.parametrize("change", ["model", "rows", "rows behind a link"])
def test_predict_starts_over_if_model_or_rows_changed(model, store, tmp_path, monkeypatch, change):
    out = tmp_path / "y.zarr"
    if change == "rows behind a link":
        (store / "c").rename(tmp_path / "elsewhere")
        (store / "c").symlink_to(tmp_path / "elsewhere")
    stopped(model, store, out, monkeypatch, KeyboardInterrupt())
    if change == "model":
        model.coef_ = model.coef_ + 1
    else:
        os.utime(store / "c/0/0", (1, 1))
    read = blocks_read(monkeypatch)
    model.predict(store, out=out)
    assert sum(read) == N
    np.testing.assert_array_equal(zarr.open_array(out)[:], model.predict(store))


def test_a_failure_to_publish_loses_nothing(model, store, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.EIO, "broken")

    out = tmp_path / "y.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(staging, "sync", full)
        with pytest.raises(OSError, match="broken"):
            model.predict(store, out=out)
    read = blocks_read(monkeypatch)
    model.predict(store, out=out)
    assert read == []
    np.testing.assert_array_equal(zarr.open_array(out)[:], model.predict(store))


def test_predictions_that_cannot_be_resumed_are_removed(model, store, tmp_path, monkeypatch):
    stopped(model, store, tmp_path / "y.zarr", monkeypatch, InputError("NaN"))
    assert not (tmp_path / "y.zarr.partial").exists()


def test_a_kill_before_the_first_chunk_does_not_block_a_new_run(model, store, tmp_path):
    (tmp_path / "y.zarr.partial").mkdir()
    (tmp_path / "y.zarr.partial/.streamreg-output").write_text("half")
    model.predict(store, out=tmp_path / "y.zarr")
    assert zarr.open_array(tmp_path / "y.zarr").shape == (N,)


def test_links_that_lead_nowhere_are_ignored(tmp_path):
    store = tmp_path / "a.zarr"
    zarr.save_array(store, np.ones(3))
    known = folder_state(store)
    (store / "loop").symlink_to(store / "loop")
    (store / "in a file").symlink_to(store / "zarr.json/x")
    assert folder_state(store) == known


def test_folder_state_does_not_depend_on_which_link_is_listed_first(tmp_path, monkeypatch):
    (tmp_path / "a.zarr/x").mkdir(parents=True)
    (tmp_path / "a.zarr/x/file").write_bytes(b"1")
    (tmp_path / "a.zarr/link").symlink_to("x")
    walk, states = os.walk, []
    for turned in (False, True):

        def listed(folder, *, followlinks, turned=turned):
            for parent, folders, files in walk(folder, followlinks=followlinks):
                folders.sort(reverse=turned)
                yield parent, folders, files

        monkeypatch.setattr("os.walk", listed)
        states.append(folder_state(tmp_path / "a.zarr"))
    assert states[0] == states[1]


@pytest.mark.parametrize("kind", ["memory", "mapped"])
def test_rows_in_memory_are_not_read_for_a_fingerprint(model, tmp_path, monkeypatch, kind):
    X = np.random.default_rng(0).standard_normal((3_000, model.n_features_in_))
    if kind == "mapped":
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    read = []
    monkeypatch.setattr(prediction, "identity", read.append)
    model.predict(X, out=tmp_path / "out.zarr")
    assert read == []
