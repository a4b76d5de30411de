"""Damaged sparse stores, by path through the command line: exit code 6 and what is wrong."""

from __future__ import annotations

import h5py
import pytest
import zarr
from csr_stores import D, N, in_hdf5, in_zarr, matrix
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


def fit_by_path(tmp_path, X, y, *options):
    done = run("fit", "--x", X, "--y", y, *options, "--out", "model.json", cwd=tmp_path)
    assert not (tmp_path / "model.json").exists()
    return done


@pytest.mark.parametrize("solver", ["cg", "closed_form", "qr"])
@pytest.mark.parametrize(("damage", "message"), ARRAYS.values(), ids=ARRAYS.keys())
def test_damaged_arrays_are_named(tmp_path, damage, message, solver):
    in_zarr(tmp_path / "a.zarr", matrix())
    damage(zarr.open_group(f"{tmp_path}/a.zarr")["X"])
    done = fit_by_path(tmp_path, "a.zarr/X", "a.zarr/y", "--solver", solver)
    assert done.returncode == 6, done.stderr
    with pytest.raises(DataCorruptionError, match=message):
        LinearRegression(solver=solver).fit(f"{tmp_path}/a.zarr/X", f"{tmp_path}/a.zarr/y")


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "where|damaged|truncated"),
        (lambda file: file.write_bytes(b"\xff" + file.read_bytes()[1:]), "checksum"),
    ],
    ids=["missing", "truncated", "flipped"],
)
def test_damaged_chunks_are_named_by_rows(tmp_path, name, damage, message):
    in_zarr(tmp_path / "a.zarr", matrix(), checksum=True)
    damage(tmp_path / f"a.zarr/X/{name}/c/2")
    done = fit_by_path(tmp_path, "a.zarr/X", "a.zarr/y", "--solver", "cg")
    assert done.returncode == 6, done.stderr
    with pytest.raises(DataCorruptionError, match=f"X/{name} .*({message})") as caught:
        LinearRegression(solver="cg").fit(f"{tmp_path}/a.zarr/X", f"{tmp_path}/a.zarr/y")
    notes = "".join(getattr(caught.value, "__notes__", []))
    assert name == "indptr" or "It holds values of rows" in notes


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
