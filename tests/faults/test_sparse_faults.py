"""Damaged sparse stores, by path through the command line: exit code 6 and what is wrong."""

from __future__ import annotations

import h5py
import pytest
import zarr
from csr_stores import D, N, in_hdf5, in_zarr, matrix, targets
from programs import run

from streamreg import LinearRegression
from streamreg.errors import DataCorruptionError


def overflowed(indptr):
    """As bounds of more than 2^31 values are in 32 bits."""
    indptr[200:] = (indptr[200:].astype("i8") - 2**31).astype("i4")


ARRAYS = {
    "a falling bound": (lambda g: g["indptr"].__setitem__(50, 0), "falls from .* at row 50"),
    "bounds of 32 bits that overflowed": (
        lambda g: overflowed(g["indptr"]),
        r"falls from .* to -2,\d{3},\d{3},\d{3} at row 200.*int32 may have overflowed.*64 bits",
    ),
    "another first bound": (lambda g: g["indptr"].__setitem__(0, 1), "begins with 1"),
    "another end": (lambda g: g["indptr"].__setitem__(N, 7), "falls from|ends at"),
    "fewer indices": (lambda g: g["indices"].resize((100,)), "has the columns of 100"),
    "fewer rows": (lambda g: g.attrs.__setitem__("shape", [N - 1, D]), "401 bounds of rows but"),
    "no shape": (lambda g: g.attrs.__setitem__("shape", "?"), "the attribute shape of"),
    "no indices": (lambda g: g.__delitem__("indices"), "sparse matrix without indices"),
    "a column beyond the last": (
        lambda g: g["indices"].__setitem__(300, D),
        r"column 30 of row \d+, but has 30 columns",
    ),
    "a negative column": (
        lambda g: g["indices"].__setitem__(300, -1),
        r"column -1 of row \d+, but has 30 columns",
    ),
}

# what the third chunks hold, of 97 values or bounds: rows 33 to 48 begin with values 192 to 284
PLACES = {
    "data": "values 194–290 in rows 33–48",  # noqa: RUF001
    "indices": "values 194–290 in rows 33–48",  # noqa: RUF001
    "indptr": "bounds 194–290",  # noqa: RUF001
}
N_CHUNKS = {"data": 25, "indices": 25, "indptr": 5}
MISSING = 'missing (1 of {} chunks is absent). Restore it, or pass missing_chunks="fill"'


def flipped(file):
    """One bit of a checksum, which gzip has before four bytes of a length."""
    stored = bytearray(file.read_bytes())
    stored[-5] ^= 1
    file.write_bytes(stored)


def fit_by_path(tmp_path, X, y, *options):
    done = run("fit", "--x", X, "--y", y, *options, "--out", "model.json", cwd=tmp_path)
    assert not (tmp_path / "model.json").exists()
    return done


@pytest.mark.parametrize("solver", ["cg", "closed_form", "qr"])
@pytest.mark.parametrize(("damage", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_damaged_arrays_are_named(tmp_path, damage, message, solver):
    in_zarr(tmp_path / "a.zarr", matrix())
    damage(zarr.open_group(f"{tmp_path}/a.zarr")["X"])
    if solver == "cg":
        done = fit_by_path(tmp_path, "a.zarr/X", "a.zarr/y", "--solver", solver)
        assert done.returncode == 6, done.stderr
    with pytest.raises(DataCorruptionError, match=message):
        LinearRegression(solver=solver).fit(f"{tmp_path}/a.zarr/X", f"{tmp_path}/a.zarr/y")


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("damage", "messages"),
    [
        (lambda file: file.unlink(), [MISSING, MISSING]),
        (
            lambda file: file.write_bytes(file.read_bytes()[:-9]),
            ["damaged: it ends after", "damaged: the crc32c checksum differs."],
        ),
        (flipped, ["damaged: gzip cannot decode it", "damaged: the crc32c checksum differs."]),
    ],
    ids=["missing", "truncated", "flipped"],
)
def test_damaged_chunks_are_named_by_values_and_rows(tmp_path, name, zarr_format, damage, messages):
    in_zarr(tmp_path / "a.zarr", matrix(), zarr_format, checksum=True)
    key = {2: "2", 3: "c/2"}[zarr_format]
    damage(tmp_path / f"a.zarr/X/{name}/{key}")
    with pytest.raises(DataCorruptionError) as caught:
        LinearRegression(solver="cg").fit(f"{tmp_path}/a.zarr/X", f"{tmp_path}/a.zarr/y")
    where = f"chunk {key} of {tmp_path}/a.zarr/X/{name} ({PLACES[name]})"
    what = messages[zarr_format - 2].format(N_CHUNKS[name])
    assert str(caught.value).startswith(f"{where} is {what}")


def test_a_damaged_chunk_ends_a_command_with_code_6(tmp_path):
    in_zarr(tmp_path / "a.zarr", matrix(), checksum=True)
    (tmp_path / "a.zarr/X/indices/c/2").unlink()
    done = fit_by_path(tmp_path, "a.zarr/X", "a.zarr/y", "--solver", "cg")
    assert done.returncode == 6
    assert f"({PLACES['indices']}) is missing" in " ".join(done.stderr.split())


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_hdf5_chunks_never_written_are_named_by_values_and_rows(tmp_path, name):
    path = in_hdf5(tmp_path / "a.h5ad", matrix())
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        values = file[f"X/{name}"][:]
        del file[f"X/{name}"]
        again = file["X"].create_dataset(name, values.shape, values.dtype, chunks=(97,))
        again[:194], again[291:] = values[:194], values[291:]
        where = f"{PLACES[name]} of X ({tmp_path}/a.h5ad/X/{name})"
    noun = PLACES[name].split("s ")[0]
    with pytest.raises(DataCorruptionError) as caught:
        LinearRegression(solver="cg").fit(path, targets(matrix()))
    assert str(caught.value) == (
        f"{where} are not stored: 1 of its {N_CHUNKS[name]} chunks was never written. HDF5 reads "
        f"such {noun}s as its fill value, {0.0 if name == 'data' else 0}. Restore them, or pass "
        'missing_chunks="fill" if they mean the fill value'
    )


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_damaged_hdf5_chunks_are_named_by_values_and_rows(tmp_path, name):
    path = in_hdf5(tmp_path / "a.h5ad", matrix())
    with h5py.File(tmp_path / "a.h5ad") as file:
        chunk = file[f"X/{name}"].id.get_chunk_info(2)
    stored = bytearray((tmp_path / "a.h5ad").read_bytes())
    stored[chunk.byte_offset + chunk.size - 3] ^= 255
    (tmp_path / "a.h5ad").write_bytes(stored)
    with pytest.raises(DataCorruptionError) as caught:
        LinearRegression(solver="cg").fit(path, targets(matrix()))
    where = f"the chunk at (194,) of X ({tmp_path}/a.h5ad/X/{name}) ({PLACES[name]})"
    assert str(caught.value).startswith(f"{where} is damaged: zlib cannot decode it")


def test_an_hdf5_file_that_is_cut_off_is_refused(tmp_path):
    in_hdf5(tmp_path / "a.h5ad", matrix())
    whole = (tmp_path / "a.h5ad").read_bytes()
    (tmp_path / "a.h5ad").write_bytes(whole[: len(whole) // 2])
    done = fit_by_path(tmp_path, "a.h5ad/X", "a.h5ad/obs/age", "--solver", "cg")
    assert done.returncode in {2, 6}, done.stderr
    assert "a.h5ad" in done.stderr


def test_a_column_beyond_the_last_is_named_in_hdf5_too(tmp_path):
    in_hdf5(tmp_path / "a.h5ad", matrix())
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["X/indices"][300] = D + 3
    done = fit_by_path(tmp_path, "a.h5ad/X", "a.h5ad/obs/age", "--solver", "cg")
    assert done.returncode == 6
    assert "column 33 of row" in done.stderr.replace("\n", " ")


def test_predictions_of_a_damaged_store_end_with_the_same_code(tmp_path):
    in_zarr(tmp_path / "a.zarr", matrix())
    done = run("fit", "a.zarr", "--out", "model.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    zarr.open_group(f"{tmp_path}/a.zarr")["X/indices"][300] = D
    for command in (
        ("predict", "--model", "model.json", "--x", "a.zarr/X", "--out", "p.zarr"),
        ("score", "--model", "model.json", "a.zarr"),
    ):
        done = run(*command, cwd=tmp_path)
        assert done.returncode == 6, done.stderr
    assert not (tmp_path / "p.zarr").exists()
