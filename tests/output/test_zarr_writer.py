import fcntl
import os
import signal
import subprocess
import sys
import threading
from unittest.mock import Mock

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from streamreg.errors import InputError
from streamreg.formatting import MIB
from streamreg.output.staging import require_writable
from streamreg.output.zarr_writer import RowAppender, create_array, new_array, new_group


def store(path, value=1.0):
    zarr.create_array(path, data=np.full((4, 2), value))
    return path


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_link_is_resolved_to_the_path_of_the_output(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = require_writable(tmp_path / "link" / "out.zarr", overwrite=False)
    assert found == tmp_path / "real" / "out.zarr"


def test_an_existing_output_is_refused_with_the_remedy(tmp_path):
    path = store(tmp_path / "out.zarr")
    with pytest.raises(InputError, match="exists; pass overwrite=True to replace"):
        require_writable(path, overwrite=False)
    require_writable(path, overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_only_zarr_is_overwritten(kind, overwrite, tmp_path):
    path = tmp_path / "thesis"
    if kind == "file":
        path.write_text("years of work")
    else:
        path.mkdir()
        (path / "chapter").write_text("years of work")
    refused = pytest.raises(InputError, match="not Zarr, so it is kept")
    with refused, new_group(path, overwrite=overwrite):
        pass
    assert names(tmp_path) == ["thesis"]
    assert kind == "file" or names(path) == ["chapter"]


def test_a_missing_folder_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=f"create '{tmp_path / 'nowhere'}'"):
        require_writable(tmp_path / "nowhere" / "out.zarr", overwrite=False)


def test_a_read_only_folder_is_refused(tmp_path, monkeypatch):
    # patched, because root may write whatever the permissions say
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    with pytest.raises(InputError, match="this process may not write"):
        require_writable(tmp_path / "out.zarr", overwrite=False)


@pytest.mark.parametrize("url", ["s3://bucket/out.zarr", "file:///tmp/out.zarr", "memory://out"])
def test_outputs_are_local(url):
    with pytest.raises(InputError, match="is a URL"):
        require_writable(url, overwrite=True)


@pytest.mark.parametrize(
    ("output", "source"),
    [
        ("data.zarr", "data.zarr"),
        ("data.zarr", "data.zarr/X"),
        ("data.zarr/yhat", "data.zarr"),
        ("link.zarr", "data.zarr"),
        ("data.zarr", "link.zarr/X"),
        ("link.zarr/X/deep", "data.zarr"),
        ("X.zarr", "X.zarr.partial"),
    ],
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_an_output_over_its_input_is_refused(output, source, scheme, tmp_path):
    store(tmp_path / "data.zarr" / "X")
    zarr.create_group(store=tmp_path / "data.zarr", overwrite=False)
    (tmp_path / "link.zarr").symlink_to("data.zarr")
    with pytest.raises(InputError, match="would overwrite the input"):
        require_writable(tmp_path / output, overwrite=True, inputs=[f"{scheme}{tmp_path / source}"])


def test_an_output_beside_its_inputs_is_accepted(tmp_path):
    inputs = [tmp_path / "other.zarr", tmp_path / "out.zarr2", "s3://bucket/out.zarr"]
    require_writable(tmp_path / "out.zarr", overwrite=False, inputs=inputs)


def test_a_group_appears_only_once_it_is_whole(tmp_path):
    with new_group(tmp_path / "out.zarr", overwrite=False) as group:
        create_array(group, "X", (4, 2))[:] = 1
        assert names(tmp_path) == ["out.zarr.partial"]
    assert names(tmp_path) == ["out.zarr"]
    assert (zarr.open_group(tmp_path / "out.zarr", mode="r")["X"][:] == 1).all()


def test_an_array_of_zeros_appears_with_all_its_chunks(tmp_path):
    with new_array(tmp_path / "y.zarr", (2 * MIB + 1,), overwrite=False) as array:
        array[:] = 0
        assert names(tmp_path) == ["y.zarr.partial"]
    assert names(tmp_path) == ["y.zarr"]
    assert names(tmp_path / "y.zarr" / "c") == ["0", "1", "2"]
    assert zarr.open_array(tmp_path / "y.zarr", mode="r").dtype == np.float64


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, OSError])
@pytest.mark.parametrize("existing", [False, True])
def test_nothing_changes_when_writing_fails(error, existing, tmp_path):
    path = tmp_path / "out.zarr"
    if existing:
        store(path, value=7.0)
    before = names(tmp_path)
    with pytest.raises(error), new_group(path, overwrite=True) as group:  # noqa: PT012
        create_array(group, "X", (4, 2))[:] = 1
        raise error
    assert names(tmp_path) == before
    assert not existing or (zarr.open_array(path, mode="r")[:] == 7).all()


def test_a_failed_rename_restores_the_old_output(tmp_path, monkeypatch):
    path = store(tmp_path / "out.zarr", value=7.0)
    rename = type(path).rename

    def refuse(self, target):
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(type(path), "rename", refuse)
    with pytest.raises(OSError, match="Input/output"), new_group(path, overwrite=True):
        pass
    assert names(tmp_path) == ["out.zarr"]
    assert (zarr.open_array(path, mode="r")[:] == 7).all()


def test_overwriting_replaces_the_whole_store(tmp_path):
    path = store(tmp_path / "out.zarr")
    with new_group(path, overwrite=True):
        pass
    assert names(tmp_path) == ["out.zarr"]
    assert names(path) == ["zarr.json"]


def test_an_output_that_appears_during_writing_is_not_replaced(tmp_path):
    path = tmp_path / "out.zarr"
    with pytest.raises(InputError, match="exists"), new_group(path, overwrite=False):
        store(path, value=7.0)
    assert names(tmp_path) == ["out.zarr"]
    assert (zarr.open_array(path, mode="r")[:] == 7).all()


def test_a_second_writer_of_one_path_is_refused(tmp_path):
    path = tmp_path / "out.zarr"
    with new_group(path, overwrite=False) as group:
        refused = pytest.raises(InputError, match="another writer")
        with refused, new_group(path, overwrite=False):
            pass
        create_array(group, "X", (4, 2))[:] = 1
    assert (zarr.open_group(path, mode="r")["X"][:] == 1).all()


def test_a_partial_folder_that_another_writer_published_is_not_written(tmp_path, monkeypatch):
    lock = fcntl.flock

    def late(*given):
        monkeypatch.undo()
        (tmp_path / "out.zarr.partial").rename(tmp_path / "other.zarr")
        lock(*given)

    monkeypatch.setattr(fcntl, "flock", late)
    refused = pytest.raises(InputError, match="another writer")
    with refused, new_group(tmp_path / "out.zarr", overwrite=False):
        pass
    assert names(tmp_path) == ["other.zarr"]
    assert names(tmp_path / "other.zarr") == []


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupt_while_an_output_is_replaced_leaves_the_new_one(tmp_path, monkeypatch, at):
    path = store(tmp_path / "out.zarr", value=7.0)
    rename, renamed = type(path).rename, []

    def interrupted(self, target):
        renamed.append(rename(self, target))
        if len(renamed) == at:
            os.kill(os.getpid(), signal.SIGINT)
            # long enough for Python to handle the signal
            threading.Event().wait(0.05)

    monkeypatch.setattr(type(path), "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_group(path, overwrite=True) as group:
        create_array(group, "X", (4, 2))[:] = 1
    assert names(tmp_path) == ["out.zarr"]
    assert names(path) == ["X", "zarr.json"]


def test_a_link_in_a_partial_output_is_removed_and_not_followed(tmp_path):
    mine = store(tmp_path / "mine.zarr")
    partial = store(tmp_path / "out.zarr.partial")
    (partial / "link").symlink_to(mine)
    with new_group(tmp_path / "out.zarr", overwrite=False):
        pass
    assert names(mine)


def test_an_interrupt_while_the_folder_is_made_leaves_none(tmp_path, monkeypatch):
    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(fcntl, "flock", interrupted)
    with pytest.raises(KeyboardInterrupt), new_group(tmp_path / "out.zarr", overwrite=False):
        pytest.fail("started to write")
    assert names(tmp_path) == []


def refused(*given, **options):
    raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize(
    ("name", "instead", "says"),
    [
        ("pathlib.Path.mkdir", refused, "cannot be made: No such file or directory"),
        ("streamreg.output.staging.os.open", refused, "cannot be made: No such file or directory"),
        ("streamreg.output.staging.os.path.samestat", lambda *_: False, "another writer"),
    ],
)
def test_a_folder_that_cannot_be_locked_is_an_error(tmp_path, monkeypatch, name, instead, says):
    monkeypatch.setattr(name, instead)
    with pytest.raises(InputError, match=says), new_group(tmp_path / "a.zarr", overwrite=False):
        pytest.fail("started to write")


def test_a_complete_output_stays_if_its_path_was_taken_during_writing(tmp_path):
    target = tmp_path / "a.zarr"

    def write(filled, *, overwrite):
        with new_array(target, (3,), overwrite=overwrite, identity="rows") as array:
            assert array[:].tolist() == [float(filled)] * 3
            array[:] = 1.0
            if not filled:
                zarr.save_array(target, np.zeros(3))  # somebody else's

    with pytest.raises(InputError, match="exists; pass overwrite=True") as error:
        write(filled=False, overwrite=False)
    assert "do the same again" in error.value.__notes__[0]
    write(filled=True, overwrite=True)
    assert zarr.open_array(target)[:].tolist() == [1, 1, 1]


def test_a_file_system_without_locks_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(37, "No locks available")))
    with new_group(tmp_path / "out.zarr", overwrite=False):
        pass
    assert names(tmp_path) == ["out.zarr"]


def test_the_next_writer_clears_the_partial_output_of_a_killed_one(tmp_path):
    path = tmp_path / "out.zarr"
    killed = """
import os, signal, sys
from streamreg.output.zarr_writer import create_array, new_group
with new_group(sys.argv[1], overwrite=False) as group:
    create_array(group, "left", (4, 2))[:] = 1
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", killed, str(path)], check=False)
    assert names(tmp_path) == ["out.zarr.partial"]
    with new_group(path, overwrite=False) as group:
        create_array(group, "X", (4, 2))[:] = 1
    assert names(tmp_path) == ["out.zarr"]
    assert list(zarr.open_group(path, mode="r").array_keys()) == ["X"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_other_files_at_the_partial_path_are_not_removed(kind, tmp_path):
    partial, mine = tmp_path / "out.zarr.partial", tmp_path / "mine.zarr"
    store(mine)
    if kind == "link":
        partial.symlink_to(mine)
    elif kind == "file":
        partial.write_text("mine")
    else:
        partial.mkdir()
        (partial / "mine").write_text("mine")
    refused = pytest.raises(InputError, match=r"out\.zarr\.partial")
    with refused, new_group(tmp_path / "out.zarr", overwrite=True):
        pass
    assert names(tmp_path) == ["mine.zarr", "out.zarr.partial"]
    assert (zarr.open_array(mine, mode="r")[:] == 1).all()
    assert kind != "folder" or names(partial) == ["mine"]


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((10**6, 32), (8 * MIB // 256, 32)),
        ((10**7,), (MIB,)),
        ((10, 3), (10, 3)),
        # a row of 16 MiB is split
        ((4, 2 * MIB), (1, MIB)),
        ((0, 3), (1, 3)),
    ],
)
def test_chunks_are_whole_rows_of_about_8_mib(shape, chunks):
    group = zarr.create_group(store=zarr.storage.MemoryStore())
    array = create_array(group, "X", shape)
    assert (array.chunks, array.dtype) == (chunks, np.dtype("f8"))


@pytest.mark.parametrize("values", ["zeros", "normal"])
@pytest.mark.parametrize("bit", [40, 3, -9])
def test_a_flipped_bit_is_noticed(values, bit, tmp_path):
    path = tmp_path / "X.zarr"
    with new_array(path, (1000, 4), overwrite=False) as array:
        array[:] = 0 if values == "zeros" else np.random.default_rng(0).normal(size=(1000, 4))
    chunk = path / "c" / "0" / "0"
    stored = bytearray(chunk.read_bytes())
    stored[bit // 8] ^= 1 << bit % 8
    chunk.write_bytes(stored)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(path, mode="r")[:]


@given(data=st.data(), shape=st.sampled_from([(37,), (37, 3), (1, 1), (8, 2)]))
def test_an_array_does_not_depend_on_the_pieces_appended(data, shape):
    expected = np.arange(np.prod(shape), dtype=float).reshape(shape)
    cuts = sorted(data.draw(st.lists(st.integers(0, shape[0]), max_size=12)))
    group = zarr.create_group(store=zarr.storage.MemoryStore())
    chunks = (8, *shape[1:])
    appender = RowAppender(group.create_array("X", shape=shape, chunks=chunks, dtype="f8"))
    for start, stop in zip([0, *cuts], [*cuts, shape[0]], strict=True):
        appender.append(expected[start:stop])
    appender.close()
    np.testing.assert_array_equal(group["X"][:], expected)


class WatchedArray:
    """Stands for a Zarr array and notes which rows are written."""

    def __init__(self, shape, chunks):
        self.shape, self.chunks, self.dtype, self.name = shape, chunks, np.dtype("f8"), "/X"
        self.written = []

    def __setitem__(self, key, rows):
        assert len(rows) == key.stop - key.start
        self.written.append((key.start, key.stop))


@pytest.mark.parametrize("piece", [1, 3, 4, 5, 9, 10])
def test_each_chunk_is_written_once_and_whole(piece):
    array = WatchedArray((10, 2), (4, 2))
    appender = RowAppender(array)
    for start in range(0, 10, piece):
        appender.append(np.zeros((min(piece, 10 - start), 2)))
    appender.close()
    assert array.written == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize("count", [9, 11])
def test_another_count_of_rows_is_refused(count):
    appender = RowAppender(WatchedArray((10,), (4,)))
    with pytest.raises(InputError, match=f"made for 10 rows but {count} came"):  # noqa: PT012
        appender.append(np.zeros(count))
        appender.close()
