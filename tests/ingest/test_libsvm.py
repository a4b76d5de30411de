"""Libsvm text becomes a data set of sparse rows, or is fitted as it is."""

import bz2
import gzip
import re

import numpy as np
import pytest
import scipy.sparse
import zarr
from sklearn.datasets import dump_svmlight_file
from typer.testing import CliRunner

from streamreg import LinearRegression, load, read_table
from streamreg.cli.app import app
from streamreg.errors import DataWarning, InputError
from streamreg.ingest.convert import ingest
from streamreg.sources.tables import libsvm

N, D = 300, 50


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = scipy.sparse.random_array((N, D), density=0.2, rng=rng, format="csr")
    # scikit-learn writes 16 digits
    X.data = X.data.round(9)
    return X, (X @ rng.standard_normal(D) + 3).round(9)


def svm(path, X, y, *, zero_based=False):
    dump_svmlight_file(X, y, str(path), zero_based=zero_based)
    return str(path)


def stored(path):
    """Return what AnnData's reader of a CSR group would."""
    group = zarr.open_group(path, mode="r")["X"]
    assert dict(group.attrs)["encoding-type"] == "csr_matrix"
    parts = (group["data"][:], group["indices"][:], group["indptr"][:])
    return scipy.sparse.csr_array(parts, shape=group.attrs["shape"])


@pytest.mark.parametrize("packed", ["", ".gz", ".bz2"])
def test_a_data_set_has_the_values_of_the_text(data, tmp_path, out, packed):
    X, y = data
    path = svm(tmp_path / "a.svm", X, y)
    if packed:
        pack = gzip.compress if packed == ".gz" else bz2.compress
        text = (tmp_path / "a.svm").read_bytes()
        path = tmp_path / f"a.svm{packed}"
        path.write_bytes(pack(text))
    report = ingest(path, out, first_column=1)
    assert (report.rows_read, report.n_features, report.target_names) == (N, D, ("y",))
    assert (stored(out) != X).nnz == 0
    np.testing.assert_array_equal(zarr.open_array(out / "y", mode="r")[:], y)
    model = LinearRegression(solver="cg", l2=1e-6).fit(out)
    np.testing.assert_allclose(model.predict(X), y, atol=1e-3)


def test_pieces_of_a_file_end_anywhere(data, tmp_path, out, monkeypatch):
    monkeypatch.setattr(libsvm, "_PIECE_NBYTES", 100)
    X, y = data
    # float32 holds the first values, and not those that come after several pieces
    X.data[: X.nnz // 2] = 2.0
    text = (path := tmp_path / "a.svm", svm(path, X, y))[1]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().rstrip(b"\n"))
    ingest(text, out, first_column=1)
    assert (stored(out) != X).nnz == 0
    spooled = LinearRegression(solver="cg", l2=1e-6).fit(read_table(text, first_column=1))
    expected = LinearRegression(solver="cg", l2=1e-6).fit(X, y)
    np.testing.assert_array_equal(spooled.coef_, expected.coef_)


def test_values_are_float32_if_it_holds_all(data, tmp_path, out):
    X, y = data
    X.data[:] = 1.0
    ingest(svm(tmp_path / "a.svm", X, y), out, first_column=1)
    assert stored(out).dtype == np.float32


def test_the_command_line_fits_and_predicts_text(data, tmp_path):
    X, y = data
    svm(tmp_path / "a.svm", X, y)
    # other rows, of fewer columns, in a file that has no ending and counts from 0
    other = svm(tmp_path / "a.t", X[1:50, : D - 1], y[1:50], zero_based=True)
    run = CliRunner().invoke
    model, predicted = str(tmp_path / "m.json"), str(tmp_path / "p.zarr")
    fit = ["fit", str(tmp_path / "a.svm"), "--first-column", "1", "--solver", "cg", "--out", model]
    done = run(app, fit, catch_exceptions=False)
    assert done.exit_code == 0
    options = ["--first-column", "0", "--model", model]
    run(app, ["predict", other, "--out", predicted, *options], catch_exceptions=False)
    padded = scipy.sparse.hstack([X[1:50, : D - 1], np.zeros((49, 1))]).tocsr()
    np.testing.assert_allclose(
        zarr.open_array(predicted, mode="r")[:], load(model).predict(padded), rtol=1e-12
    )
    again = ["ingest", str(tmp_path / "a.svm"), str(tmp_path / "b.zarr"), "--like", model]
    run(app, again, catch_exceptions=False)
    assert load(model).score(tmp_path / "b.zarr") > 0.99


def test_the_number_of_columns_is_that_which_is_named(data, tmp_path, out):
    X, y = data
    path = svm(tmp_path / "a.svm", X[:, : D - 7], y)
    arguments = ["ingest", path, str(out), "--first-column", "1", "--n-features", str(D)]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert stored(out).shape == (N, D)
    assert read_table(path, first_column=1.0, n_features=D).schema.n_columns == D
    said = refusal(path, first_column=1, n_features=5)
    assert re.search(
        r"a value in column (\d+), where the first is 1: that takes \1 columns, and n_features=5",
        said,
    )
    assert "n_features=0 must be a whole number, 1 to 2^31" in refusal(
        path, first_column=1, n_features=0
    )
    assert "drop_missing is of a table" in refusal(path, first_column=1, drop_missing=True)
    assert "first_column" in refusal(path, first_column=True)
    assert "n_features is taken from like" in refusal(path, like=out, n_features=D)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    said = refusal(tmp_path / "a.csv", target="a", n_features=2)
    assert said.startswith("n_features is of libsvm text; columns of")


@pytest.mark.parametrize("name", ["parts", "parts/*.svm", "parts/part-*"])
def test_files_of_a_folder_are_read_in_the_order_of_their_numbers(data, tmp_path, out, name):
    X, y = data
    (tmp_path / "parts").mkdir()
    for number, rows in ((0, slice(50)), (2, slice(50, 60)), (10, slice(60, N))):
        svm(tmp_path / f"parts/part-{number}.svm", X[rows], y[rows])
    path = f"{tmp_path}/{name}"
    assert "pass first_column=1 for files of LIBSVM" in refusal(path)
    ingest(path, out, first_column=1)
    assert (stored(out) != X).nnz == 0
    np.testing.assert_array_equal(zarr.open_array(out / "y", mode="r")[:], y)
    (tmp_path / "parts/part-2.svm").write_text("1 1:1\n2 x:1\n")
    with pytest.raises(InputError, match=r"part-2.svm, line 2, character 3: 'x:1' is no pair"):
        read_table(path, first_column=1)


def refusal(path, **options):
    with pytest.raises(InputError) as error:
        read_table(path, **options)
    return error.value.args[0]


def test_refusals_name_the_place_and_the_cure(data, tmp_path):
    X, y = data
    path = svm(tmp_path / "a.svm", X, y)
    said = refusal(path)
    assert "does not say whether its first column is 0 or 1: pass first_column=1" in said
    assert "--first-column 1 for files of LIBSVM" in said.for_command_line()
    assert "target is of a table whose columns have names" in refusal(
        path, first_column=1, target="y"
    )
    assert "first_column=2 must be 0 or 1" in refusal(path, first_column=2)
    (tmp_path / "b.svm").write_text("1 2:3\n2 1:x\n")
    said = refusal(tmp_path / "b.svm", first_column=1)
    assert said.endswith("b.svm, line 2, character 3: 'x' is not a finite number")
    (tmp_path / "c.svm").write_text("\n# nothing\n")
    assert "has no rows" in refusal(tmp_path / "c.svm", first_column=1)
    model = LinearRegression(solver="cg").fit(read_table(path, first_column=1))
    (tmp_path / "d.svm").write_text(f"1 {D + 1}:1\n")
    said = refusal(tmp_path / "d.svm", like=model)
    assert f"in column {D + 1}, where the first is 1" in said
    assert f"the schema gives {D}. Pass a file" in said


def test_a_first_column_without_values_is_warned_of(data, tmp_path):
    path = svm(tmp_path / "a.svm", *data)
    with pytest.warns(DataWarning, match="no row of .* has a value in column 0"):
        read_table(path, first_column=0)
