"""Checkpoints: what they resume, what they refuse, and what may fail on the way."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
import zipfile
from contextlib import closing

import numpy as np
import pytest
import zarr
from disk_operations import announce

from streamreg import LinearRegression
from streamreg.checkpoint import file as checkpoint_file
from streamreg.checkpoint.file import CheckpointFile
from streamreg.engines.partition import PartitionPolicy
from streamreg.errors import CheckpointError, DataCorruptionError, DataWarning, InputError
from streamreg.output import atomic
from streamreg.output.archive import Archive, write_archive
from streamreg.planning.threads_backend import ThreadsBackend
from streamreg.sources.block_reader import BlockReader
from streamreg.sources.open import open_dataset

N, D = 3000, 6


class StopError(Exception):
    """Stops a fit before its end."""


@pytest.fixture(autouse=True)
def saved_after_each_block(monkeypatch):
    monkeypatch.setattr(checkpoint_file, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint_file, "_LEAST_MULTIPLE", 0)


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D)) * np.geomspace(1, 5, D) + 3
    X[:, 1] += X[:, 0]
    path = tmp_path / "data.zarr"
    group = zarr.open_group(path, mode="w")
    group.create_array("X", data=X, chunks=(500, D))
    group.create_array("y", data=X.sum(axis=1) + rng.standard_normal(N), chunks=(500,))
    return path


def fit(data, y=None, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LinearRegression(**{"solver": "cg", "tol": 1e-12, **parameters}).fit(data, y)


def answer(model):
    numbers = model.intercept_, model.n_iter_, model.loss_history_
    return model.coef_.tobytes(), *numbers, model.status_


def stopping_after(epoch):
    def stop(record):
        if record.epoch == epoch:
            raise StopError

    return stop


def stopped(data, path, *, epoch=2, **parameters):
    """Start a fit and stop it after an epoch."""
    with pytest.raises(StopError) as caught:
        fit(data, checkpoint=path, progress=stopping_after(epoch), **parameters)
    return caught.value


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("solver", ["cg", "gd"])
def test_a_resumed_fit_is_bitwise_identical_to_an_uninterrupted_one(
    data, tmp_path, solver, standardize
):
    parameters = {"solver": solver, "standardize": standardize, "max_epochs": 30}
    stop = stopped(data, tmp_path / "a", **parameters)
    assert "start it again with the same data and parameters" in stop.__notes__[0]
    epochs = []
    resumed = fit(data, checkpoint=tmp_path / "a", progress=epochs.append, **parameters)
    assert answer(resumed) == answer(fit(data, **parameters))
    assert epochs[0].epoch in {2, 3}


def test_a_fit_that_is_done_is_not_run_again(data, tmp_path, chunks_opened):
    first = fit(data, checkpoint=tmp_path / "a")
    before = chunks_opened()
    assert answer(fit(data, checkpoint=tmp_path / "a")) == answer(first)
    assert not [path for path in chunks_opened()[len(before) :] if "/c/" in path]


def test_more_epochs_may_be_asked_for(data, tmp_path):
    few = fit(data, checkpoint=tmp_path / "a", max_epochs=2)
    assert (few.converged_, few.n_iter_) == (False, 2)
    more = fit(data, checkpoint=tmp_path / "a", memory_limit="100 MiB", n_threads=1)
    assert answer(more) == answer(fit(data))


def test_a_resumed_fit_has_the_same_random_start(data, tmp_path):
    stopped(data, tmp_path / "a", epoch=1, init="random")
    resumed = fit(data, checkpoint=tmp_path / "a", init="random")
    (tmp_path / "a").unlink()
    (tmp_path / "a.previous").unlink()
    assert answer(resumed) == answer(fit(data, checkpoint=tmp_path / "a", init="random"))


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"l2": 1.0}, r"l2 was 0\.0 and is 1\.0"),
        ({"tol": 1e-3}, r"tol was 1e-12 and is 0\.001"),
        ({"solver": "gd"}, "solver was 'cg' and is 'gd'"),
        ({"init": np.ones(D)}, "init was 'zeros' and is"),
        ({"nan_policy": "omit"}, "nan_policy was 'raise' and is 'omit'"),
        ({"fit_intercept": False}, "fit_intercept was True and is False"),
    ],
)
def test_other_parameters_are_refused_with_the_difference(data, tmp_path, parameters, says):
    stopped(data, tmp_path / "a")
    with pytest.raises(CheckpointError, match=f"is of another fit: .*{says}"):
        fit(data, checkpoint=tmp_path / "a", **parameters)


def test_other_data_are_refused_with_the_difference(data, tmp_path):
    stopped(data, tmp_path / "a")
    X = zarr.open_array(data / "X")[:]
    with pytest.raises(CheckpointError, match=r"data X codecs was .*data y chunks was"):
        fit(X, X[:, 0], checkpoint=tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"data X shape was \[3000, 6\] and is \[3000, 5\]"):
        fit(X[:, :5], X[:, 0], checkpoint=tmp_path / "a")


@pytest.mark.parametrize("solver", ["closed_form", "cg"])
def test_the_checkpoint_of_a_complete_fit_is_refused_for_other_data(data, tmp_path, solver):
    fit(data, solver=solver, checkpoint=tmp_path / "a")
    other = shutil.copytree(data, tmp_path / "other.zarr")
    zarr.open_array(other / "X", mode="r+")[:] *= 2
    with pytest.raises(
        DataCorruptionError, match=r"c/0/0 of .*other\.zarr/X .* changed since"
    ) as error:
        fit(other, solver=solver, checkpoint=tmp_path / "a")
    assert "with their times (cp -p)" in error.value.__notes__[0]
    (data / "y/c/5").unlink()
    with pytest.raises(
        DataCorruptionError, match=r"c/5 of .*y .* was read before and is missing now"
    ):
        fit(data, solver=solver, checkpoint=tmp_path / "a")


def test_other_values_in_a_file_of_hdf5_are_refused(data, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file["X"] = zarr.open_array(data / "X")[:]
    with h5py.File(tmp_path / "X.h5") as file:
        fit(file["X"], zarr.open_array(data / "y")[:], checkpoint=tmp_path / "a")
    with h5py.File(tmp_path / "X.h5", "r+") as file:
        file["X"][1234] = 0
    os.utime(tmp_path / "X.h5", (1, 1))
    with (
        h5py.File(tmp_path / "X.h5") as file,
        pytest.raises(CheckpointError, match="data X files was"),
    ):
        fit(file["X"], zarr.open_array(data / "y")[:], checkpoint=tmp_path / "a")


def test_a_checkpoint_of_another_partition_is_refused(data, tmp_path, monkeypatch):
    stopped(data, tmp_path / "a")
    monkeypatch.setattr(ThreadsBackend, "policy", PartitionPolicy(segment_nbytes=7))
    with pytest.raises(CheckpointError, match=r"is of another fit: partition was .* and is .* 7,"):
        fit(data, checkpoint=tmp_path / "a")


@pytest.mark.parametrize("solver", ["closed_form", "qr", "cg", "gd"])
def test_rows_that_change_after_they_were_read_are_noticed_at_the_end(data, solver, monkeypatch):
    read = []
    before = BlockReader.read

    def rewritten(reader, start, stop, **how):
        block = before(reader, start, stop, **how)
        if not read:
            chunk = data / "X/c/0/0"
            chunk.write_bytes(chunk.read_bytes())  # the same size, another time
        read.append(start)
        return block

    monkeypatch.setattr(BlockReader, "read", rewritten)
    with pytest.raises(DataCorruptionError, match=r"c/0/0 of .* changed since it was first read"):
        fit(data, solver=solver, max_epochs=1)


def test_an_hdf5_file_is_the_same_data_by_any_path(data, tmp_path):
    h5py = pytest.importorskip("h5py")
    y = zarr.open_array(data / "y")[:]
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file["X"] = zarr.open_array(data / "X")[:]
    (tmp_path / "link.h5").symlink_to(tmp_path / "X.h5")
    with h5py.File(tmp_path / "X.h5") as file:
        done = fit(file["X"], y, checkpoint=tmp_path / "a")
    with h5py.File(tmp_path / "link.h5") as file:
        # all its epochs are saved
        assert answer(fit(file["X"], y, checkpoint=tmp_path / "a")) == answer(done)


def test_other_parts_of_one_file_are_refused(data, tmp_path):
    X, y = zarr.open_array(data / "X")[:], zarr.open_array(data / "y")[:1000]
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r+")
    fit(mapped[:1000], y, checkpoint=tmp_path / "a")
    with pytest.raises(CheckpointError, match="data X values was"):
        fit(mapped[1000:2000], y, checkpoint=tmp_path / "a")
    mapped[500] = 0  # through the map, which need not change the file's time
    with pytest.raises(CheckpointError, match="data X values was"):
        fit(mapped[:1000], y, checkpoint=tmp_path / "a")
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "X.h5", "w") as file:
        file["one"], file["two"] = X[:1000], X[1000:2000]
    with h5py.File(tmp_path / "X.h5") as file:
        fit(file["one"], y, checkpoint=tmp_path / "b")
        with pytest.raises(CheckpointError, match=r"data X codecs was .*/one.* is .*/two"):
            fit(file["two"], y, checkpoint=tmp_path / "b")


def test_an_absent_chunk_that_appears_is_a_change(data, tmp_path):
    chunk = (data / "X/c/2/0").read_bytes()
    (data / "X/c/2/0").unlink()
    fit(data, missing_chunks="fill", checkpoint=tmp_path / "a")
    fit(data, missing_chunks="fill", checkpoint=tmp_path / "a")
    (data / "X/c/2/0").write_bytes(chunk)
    with pytest.raises(DataCorruptionError, match=r"c/2/0 of .* changed since it was first read"):
        fit(data, missing_chunks="fill", checkpoint=tmp_path / "a")


def test_fewer_epochs_than_were_run_are_refused(data, tmp_path):
    fit(data, checkpoint=tmp_path / "a", max_epochs=4)
    with pytest.raises(
        InputError, match="max_epochs=1 but the checkpoint is of a fit that has run"
    ):
        fit(data, checkpoint=tmp_path / "a", max_epochs=1)


@pytest.mark.parametrize(
    "header",
    [
        {"first": 3},
        {"first": [1]},
        {"first": [{}]},
        {"later": None},
        {"n_blocks": -1},
        {"n_blocks": "9"},
        {"n_blocks": 0.5},
        {"n_omitted": None},
        {"rounded": [[]]},
        {"rounded": [1, "X"]},
        {"rounded": "X"},
        {"accumulator": 7},
        {"accumulator": "Gram"},
        {"n_blocks": 10**9},
    ],
    ids=str,
)
def test_a_header_with_wrong_values_is_damage(data, tmp_path, header):
    path = tmp_path / "a"
    stopped(data, path)
    with closing(Archive(path)) as archive:
        with zipfile.ZipFile(path) as names:
            arrays = {name[:-4]: archive.read(name[:-4]) for name in names.namelist()}
        changed = archive.header
    del arrays["header"]
    for key, value in header.items():
        (changed if key in changed else changed["later"][-1])[key] = value
    with path.open("wb") as file:
        write_archive(file, changed, arrays)
    with pytest.raises(CheckpointError, match="damaged"):
        fit(data, checkpoint=path)


def test_a_pipe_at_the_path_of_a_checkpoint_does_not_hang(data, tmp_path):
    os.mkfifo(tmp_path / "a")
    with pytest.raises(CheckpointError, match="not a regular file"):
        fit(data, checkpoint=tmp_path / "a")


@pytest.mark.parametrize("row", [0, 1234, N - 1])
def test_other_values_in_memory_are_refused(data, tmp_path, row):
    X, y = zarr.open_array(data / "X")[:], zarr.open_array(data / "y")[:]
    stopped(X, tmp_path / "a", y=y)
    X[row, 0] += 1
    with pytest.raises(CheckpointError, match="data X values was"):
        fit(X, y, checkpoint=tmp_path / "a")


def test_a_chunk_rewritten_since_is_refused_by_its_key(data, tmp_path):
    stopped(data, tmp_path / "a")
    os.utime(data / "X/c/3/0", (1, 1))
    with pytest.raises(
        DataCorruptionError, match=r"chunk c/3/0 of .*X .* changed since it was first read"
    ):
        fit(data, checkpoint=tmp_path / "a")


def test_a_fit_resumes_once_a_damaged_chunk_is_restored(data, tmp_path):
    expected = answer(fit(data))
    chunk = data / "X/c/3/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:20])
    with pytest.raises(DataCorruptionError, match="c/3/0"):
        fit(data, checkpoint=tmp_path / "a")
    chunk.write_bytes(whole)
    assert answer(fit(data, checkpoint=tmp_path / "a")) == expected


def test_a_chunk_that_was_read_before_it_was_damaged_must_be_restored_with_its_time(data, tmp_path):
    stopped(data, tmp_path / "a")
    chunk = data / "X/c/3/0"
    status, whole = chunk.stat(), chunk.read_bytes()
    chunk.write_bytes(bytes(len(whole)))
    os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataCorruptionError, match=r"c/3/0 .*with its time"):
        fit(data, checkpoint=tmp_path / "a")
    chunk.write_bytes(whole)
    with pytest.raises(DataCorruptionError, match="changed since it was first read"):
        fit(data, checkpoint=tmp_path / "a")
    os.utime(chunk, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert answer(fit(data, checkpoint=tmp_path / "a")) == answer(fit(data))


def test_a_chunk_that_vanishes_is_a_change_and_not_the_fill_value(data):
    dataset = open_dataset(data, missing_chunks="fill")
    with closing(BlockReader(dataset)) as reader:
        reader.read(0, N)
    (data / "X/c/2/0").unlink()
    # another reader, because the first one holds the rows
    with (
        closing(BlockReader(dataset)) as reader,
        pytest.raises(DataCorruptionError, match=r"c/2/0 of .* changed since it was first read"),
    ):
        reader.read(0, N)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_of_a_damaged_checkpoint_the_one_before_is_resumed(data, tmp_path):
    path = tmp_path / "a"
    stopped(data, path)
    flip(path, path.read_bytes().index(b"\x93NUMPY") + 100)
    with pytest.warns(DataWarning, match=r"is damaged .* the previous one, 'a\.previous'"):
        model = LinearRegression(solver="cg", tol=1e-12, checkpoint=path).fit(data)
    assert answer(model) == answer(fit(data))


def test_two_damaged_checkpoints_are_refused(data, tmp_path):
    path = tmp_path / "a"
    stopped(data, path)
    for file in (path, tmp_path / "a.previous"):
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(CheckpointError, match=r"is damaged: .* Remove it and 'a\.previous'"):
        fit(data, checkpoint=path)


def test_a_file_that_is_no_checkpoint_is_refused_and_not_overwritten(data, tmp_path):
    path = tmp_path / "a"
    path.write_text("my notes")
    with pytest.raises(CheckpointError, match=r"is damaged: .*zip"):
        fit(data, checkpoint=path)
    np.savez(path.with_suffix(".npz"), header=np.frombuffer(b'{"format": "other"}', np.uint8))
    with pytest.raises(CheckpointError, match="its format is 'other'"):
        fit(data, checkpoint=path.with_suffix(".npz"))
    assert path.read_text() == "my notes"


def test_a_checkpoint_of_an_earlier_version_is_refused_and_stays(data, tmp_path):
    path = tmp_path / "a.npz"
    header = b'{"format": "streamreg-checkpoint", "version": 1}'
    np.savez(path, header=np.frombuffer(header, np.uint8))
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=r"version 1, .* Resume with the version that wrote"):
        fit(data, checkpoint=path)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_written_is_refused_before_any_pass(data, tmp_path, chunks_opened):
    before = len(chunks_opened())
    with pytest.raises(InputError, match="is a folder"):
        fit(data, checkpoint=tmp_path)
    with pytest.raises(InputError, match="has no folder; create"):
        fit(data, checkpoint=tmp_path / "none/a")
    assert len(chunks_opened()) == before


def test_two_fits_do_not_share_a_checkpoint(data, tmp_path):
    inside, may_end = threading.Event(), threading.Event()

    def wait(record):
        inside.set()
        assert may_end.wait(20)

    parameters = {"checkpoint": tmp_path / "a", "progress": wait}
    first = threading.Thread(target=fit, args=(data,), kwargs=parameters)
    first.start()
    try:
        assert inside.wait(20)
        with pytest.raises(InputError, match=r"in use by another fit, which holds .*a\.lock"):
            fit(data, checkpoint=tmp_path / "a")
    finally:
        may_end.set()
        first.join(20)


class FailingDisk:
    """Counts operations, and lets one of them fail."""

    def __init__(self, patch, fails):
        self.count, self.fails = 0, fails
        announce(patch, self.step)

    def step(self):
        self.count += 1
        if self.count == self.fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_fit_survives_each_operation_that_fails_and_its_checkpoint_is_whole(data, tmp_path):
    # data in memory and on one scale, and few arrays in a state, so that a fit does little besides
    # writing checkpoints
    X, y = zarr.open_array(data / "X")[:], zarr.open_array(data / "y")[:]
    parameters = {"solver": "gd", "max_epochs": 5, "standardize": False, "n_threads": 1}
    expected, fails, count = answer(fit(X, y, **parameters)), 0, 1
    # the files alone decide how a fit resumes: equal files are resumed from once
    resumed = set()
    while fails < count:
        fails += 1
        path = tmp_path / f"{fails}"
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            disk = FailingDisk(patch, fails)
            with pytest.raises(StopError):
                fit(X, y, checkpoint=path, progress=stopping_after(2), **parameters)
        count = disk.count
        assert sorted(file.name for file in tmp_path.glob(f"{fails}.*")) in (
            [f"{fails}.lock"],
            [f"{fails}.lock", f"{fails}.previous"],
        )
        saved = tuple(
            file.read_bytes() if file.exists() else b""
            for file in (path, tmp_path / f"{fails}.previous")
        )
        if saved not in resumed:
            resumed.add(saved)
            assert answer(fit(X, y, checkpoint=path, **parameters)) == expected
    assert count > 100, count


def test_a_full_disk_is_one_warning_and_an_error_if_nothing_was_saved(data, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(atomic.os, "fsync", full)
    model = LinearRegression(solver="cg", checkpoint=tmp_path / "a")
    with (
        pytest.warns(DataWarning, match="cannot be written: No space left") as warned,
        pytest.raises(CheckpointError, match="is done and its answer is valid, but nothing"),
    ):
        model.fit(data)
    assert len(warned) == 1
    assert model.coef_.tobytes() == fit(data, tol=1e-8).coef_.tobytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_a_fit_of_the_api(data, tmp_path, number, code):
    program = textwrap.dedent(f"""
        import sys
        from streamreg import LinearRegression
        from streamreg.checkpoint import file as checkpoint_file
        # nothing is saved but by the signal
        checkpoint_file.INTERVAL_SECONDS = 1e9
        try:
            LinearRegression(
                solver="gd", standardize=False, learning_rate=1e-9, tol=0.0, max_epochs=10**6,
                checkpoint="a", progress=lambda record: print(record.epoch, flush=True),
            ).fit({str(data)!r})
        except KeyboardInterrupt as interrupt:
            print(*interrupt.__notes__, flush=True)
            sys.exit(130)
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    with process:
        while int(process.stdout.readline()) < 5:
            pass
        process.send_signal(number)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert number == signal.SIGTERM or "to resume" in out
    reported = [int(line) for line in out.splitlines() if line.isdigit()]
    file = CheckpointFile(tmp_path / "a", {})
    file._require_own = lambda: None
    file.open()
    n_epochs = len(file.read("iterate/losses", like=np.zeros(1), grows=True)) - 1
    file.close()
    assert n_epochs >= (reported[-1] if reported else 5) - 1


@pytest.mark.filterwarnings("ignore::streamreg.DataWarning")
@pytest.mark.parametrize("stop_after", [1, 2, 4, 5])
def test_a_fit_that_needs_a_second_solver_resumes_to_the_same_bits(tmp_path, stop_after):
    rng = np.random.default_rng(0)
    z = 10 + rng.standard_normal(2000)
    # one length in two units, as float32: XᵀX cannot tell them apart
    X = np.column_stack([z, z * 1e-3]).astype("f4")
    y = z + rng.standard_normal(2000)
    whole = LinearRegression().fit(X, y)
    assert whole.solver_ == "qr"
    assert whole.n_iter_ > stop_after
    seen = []

    def stop(record):
        seen.append(record)
        if len(seen) == stop_after:
            raise StopError

    with pytest.raises(StopError):
        LinearRegression(checkpoint=tmp_path / "a", progress=stop).fit(X, y)
    resumed = LinearRegression(checkpoint=tmp_path / "a").fit(X, y)
    assert resumed.coef_.tobytes() == whole.coef_.tobytes()
    assert resumed.loss_history_ == whole.loss_history_
