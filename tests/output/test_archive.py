"""Damaged and hostile archives: correct numbers or a typed error, in bounded memory."""

from __future__ import annotations

import os
import zipfile
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from mutations import mutated, mutations, peak_nbytes

from streamreg.checkpoint.file import CheckpointFile
from streamreg.errors import CheckpointError, InputError
from streamreg.model import Model
from streamreg.output.archive import Archive, NotAnArchiveError, write_archive
from streamreg.output.atomic import atomic_write

# how many mutations are tried: 10,000 by STREAMREG_FUZZ=10000
EXAMPLES = int(os.environ.get("STREAMREG_FUZZ", "300"))
# what Python needs for a file of some kB: zipfile asks for pieces of up to 1 MiB
OVERHEAD_NBYTES = 1 << 21
ARRAYS = {
    "F": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "C": np.arange(6, dtype="u4").reshape(2, 3),
    "number": np.array(7.5),
    "none": np.empty((3, 0)),
    "flags": np.array([True, False]),
}


def write(path, arrays=ARRAYS):
    with atomic_write(path.with_suffix(".partial"), path) as file:
        write_archive(file, {"x": 1}, arrays)
    return path


def test_arrays_are_read_in_their_memory_order(tmp_path):
    path = write(tmp_path / "a")
    with closing(Archive(path, checks_all=True)) as archive:
        assert archive.header == {"x": 1}
        for name, array in ARRAYS.items():
            back = archive.read(name)
            np.testing.assert_array_equal(back, array, strict=True)
            assert back.flags.f_contiguous == array.flags.f_contiguous
        copied = write(tmp_path / "b", {name: archive.stored(name) for name in ARRAYS})
    assert copied.read_bytes() == path.read_bytes()


def test_compressed_archives_are_refused(tmp_path):
    # compressed, a file of 1 MB may hold 1 GB of zeros
    np.savez_compressed(tmp_path / "a.npz", header=np.zeros(10**6), coefficients=np.zeros((1, 10)))
    with pytest.raises(NotAnArchiveError, match="is compressed"):
        Archive(tmp_path / "a.npz")
    with pytest.raises(InputError, match="is compressed"):
        Model.load(tmp_path / "a.npz")


def test_a_claimed_size_beyond_the_file_is_refused(tmp_path):
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
        header += b" " * (118 - len(header) - 1) + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        archive.writestr("header.npy", content)
    with pytest.raises(NotAnArchiveError, match="'header' has 128 bytes for float64"):
        Archive(path)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(changes=mutations())
def test_a_mutated_model_is_an_error_or_a_model(tmp_path_factory, suffix, changes):
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / f"model{suffix}"
    model = Model(np.arange(1.0, 201.0)[None] / 3, np.ones(1), details={"n_iter": 1})
    whole = model.save(path).read_bytes()
    path.write_bytes(mutated(whole, changes))

    def load():
        try:
            return Model.load(path)
        except InputError:
            return None

    loaded, nbytes = peak_nbytes(load)
    assert nbytes <= 4 * len(whole) + OVERHEAD_NBYTES
    # JSON has no checksum, so a changed digit cannot be detected
    if loaded is not None and suffix == ".npz":
        assert loaded.coefficients.tobytes() == model.coefficients.tobytes()


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
@given(changes=mutations())
def test_a_mutated_checkpoint_is_an_error_or_the_same_numbers(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("fuzz", numbered=True) / "a"
    file = CheckpointFile(path, {"of": "one fit"})
    file.open()
    assert file.save({"first": []}, ARRAYS)
    file.close()
    whole = path.read_bytes()
    path.write_bytes(mutated(whole, changes))

    def load():
        file = CheckpointFile(path, {"of": "one fit"})
        try:
            file.open()
            return {name: file.read(name, like=array) for name, array in ARRAYS.items()}
        except CheckpointError:
            return None
        finally:
            file.close()

    loaded, nbytes = peak_nbytes(load)
    assert nbytes <= 4 * len(whole) + OVERHEAD_NBYTES
    for name, array in (loaded or {}).items():
        np.testing.assert_array_equal(array, ARRAYS[name], strict=True)
