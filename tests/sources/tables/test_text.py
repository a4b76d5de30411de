"""Text files as they lie: delimiters, decimal marks, encodings, packing, and missing values."""

import bz2
import gzip
import lzma
import zipfile

import numpy as np
import pandas as pd
import pytest
from table_files import message, write, written

import streamreg
from streamreg.errors import InputError
from streamreg.ingest.convert import ingest

EUROPEAN = "a;b, metres;y\n1,5;2;3\n2,5;1;4\n"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.zarr"


def values_of(path, out, **options):
    return written(ingest(path, out, target=["y"], **options))["X"]


def test_semicolons_and_decimal_commas_are_read_as_pandas_reads_them(tmp_path, out):
    table = write(tmp_path / "t.csv", EUROPEAN)
    expected = pd.read_csv(table, sep=";", decimal=",")[["a", "b, metres"]]
    X = values_of(table, out, delimiter=";", decimal=",")
    np.testing.assert_array_equal(X, expected)


def test_an_error_names_the_delimiter_and_the_decimal_mark_that_would_do(tmp_path, out):
    table = write(tmp_path / "t.csv", EUROPEAN)
    assert 'pass delimiter=";"' in message(table, out)
    said = message(table, out, delimiter=";")
    assert "a ('1,5' in row 2)" in said
    assert 'Pass decimal=","' in said
    assert values_of(table, out, delimiter=";", decimal=",").shape == (2, 2)


@pytest.mark.parametrize("text", ["1.5", "1.000,5"])
def test_with_decimal_commas_a_point_makes_no_number(text, tmp_path, out):
    table = write(tmp_path / "t.csv", f"a;y\n{text};1\n2;3\n")
    said = message(table, out, delimiter=";", decimal=",")
    assert f"a ({text!r} in row 2)" in said


PACKED = {
    "t.tsv": b"a\ty\n1.5\t2\n3\t4\n",
    "T.CSV": b"a,y\n1.5,2\n3,4\n",
    "utf16.csv": "a,y\n1.5,2\n3,4\n".encode("utf-16"),
    "t.csv.gz": gzip.compress(b"a,y\n1.5,2\n") + gzip.compress(b"3,4\n"),
    "named.csv": gzip.compress(b"a,y\n1.5,2\n3,4\n"),
    "t.csv.bz2": bz2.compress(b"a,y\n1.5,2\n3,4\n"),
    "t.csv.xz": lzma.compress(b"a,y\n1.5,2\n3,4\n"),
}


@pytest.mark.parametrize("name", [*PACKED, "t.csv.zst", "t.csv.zip"])
def test_packed_and_encoded_files_are_read_whatever_their_names_are(name, tmp_path, out):
    path = tmp_path / name
    if name.endswith(".zst"):
        pd.DataFrame({"a": [1.5, 3], "y": [2, 4]}).to_csv(tmp_path / "plain.csv", index=False)
        import pyarrow as pa  # noqa: PLC0415

        with pa.output_stream(str(path), compression="zstd") as stream:
            stream.write((tmp_path / "plain.csv").read_bytes())
    elif name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside.csv", "a,y\n1.5,2\n3,4\n")
    else:
        path.write_bytes(PACKED[name])
    assert values_of(path, out).tolist() == [[1.5], [3]]


def test_latin_1_is_read_once_it_is_named(tmp_path, out):
    table = tmp_path / "t.csv"
    table.write_bytes("ort,y,x\nKöln,1,5\nBonn,2,7\n".encode("latin-1"))
    assert "encoding=ENCODING" in message(table, out, one_hot=["ort"])
    report = ingest(table, out, target=["y"], one_hot=["ort"], encoding="latin-1")
    assert report.feature_names == ("ort=Köln", "x")


@pytest.mark.parametrize("drop_missing", [False, True])
def test_a_quoted_mark_is_a_level_and_an_unquoted_one_is_missing(drop_missing, tmp_path, out):
    rows = '"DE",1,5\n"NA",2,6\n"FR",4,7\n"NA",4,9\n"DE",5,1\n'
    table = write(tmp_path / "t.csv", f"c,a,y\n{rows}")
    report = ingest(table, out, target=["y"], one_hot=["c"], drop_missing=drop_missing)
    assert (report.rows_dropped, report.feature_names) == (0, ("c=FR", "c=NA", "a"))
    table.write_text(f"c,a,y\n{rows}NA,1,2\n NA ,3,4\n")
    report = ingest(table, out, target=["y"], one_hot=["c"], drop_missing=True, overwrite=True)
    assert report.rows_dropped == 2


@pytest.mark.parametrize("mark", ["?", ".", "-", "None", "#N/A", "\\N", "#DIV/0!", "(null)", "na"])
def test_a_mark_of_missing_values_can_be_named_as_the_error_says(mark, tmp_path, out):
    table = write(tmp_path / "t.csv", f"a,y\n1,5\n{mark},6\n4,7\n")
    said = message(table, out, drop_missing=True)
    assert f"a ({mark!r} in row 3)" in said
    assert "missing=" in said
    X = values_of(table, out, missing=[mark], drop_missing=True)
    assert X.tolist() == [[1], [4]]


def test_without_other_marks_na_is_a_level_and_empty_is_missing(tmp_path, out):
    table = write(tmp_path / "t.csv", "c,a,y\nNA,1,5\nDE,2,6\n,4,7\nNA,9,9\n")
    options = {"one_hot": ["c"], "drop_missing": True, "missing": []}
    report = ingest(table, out, target=["y"], **options)
    assert (report.rows_dropped, report.feature_names) == (1, ("c=NA", "a"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delimiter": "ab"}, 'delimiter="ab" is not one ASCII character'),
        ({"decimal": ";"}, 'decimal=";" must be . or ,'),
        ({"delimiter": ",", "decimal": ","}, "a comma cannot be both"),
        ({"encoding": "utf-99"}, 'encoding="utf-99" is not known'),
    ],
)
def test_formats_that_cannot_be_are_refused(options, said, tmp_path):
    table = write(tmp_path / "t.csv", EUROPEAN)
    with pytest.raises(InputError, match=said):
        streamreg.read_table(table, target="y", **options)


def test_nothing_is_left_in_the_folder_of_temporary_files(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    table = streamreg.read_table(write(tmp_path / "t.csv", "a,y\n1,2\n4,5\n"), target="y")
    assert list(folder.iterdir()) == []
    assert streamreg.LinearRegression().fit(table).coef_ == pytest.approx([1])


@pytest.mark.parametrize("text", ["-999", "-999.0", " -999.00 ", "-999."])
def test_a_number_that_means_a_missing_value_may_have_zeros_after_its_point(text, tmp_path, out):
    table = write(tmp_path / "t.csv", f'a,y\n1,2\n{text},4\n"-999",5\n')
    # a quoted text never means a missing value
    X = values_of(table, out, missing=["-999"], drop_missing=True)
    assert X.tolist() == [[1], [-999]]


@pytest.mark.parametrize("text", ["2020-01-31", "31.1.2020", "10:30", "2020-01-31T10:30:00Z"])
def test_a_date_is_refused_as_a_date(text, tmp_path, out):
    said = message(write(tmp_path / "t.csv", f"a,y\n{text},2\n"), out)
    assert f"a ('{text}' in row 2)" in said
    assert f"If '{text}' is a date or a time, write it as a number" in said


def test_a_level_with_a_decimal_comma_is_that_with_a_point(tmp_path, out):
    table = write(tmp_path / "t.csv", "a;y\n1,50;2\n2,0;4\n2;3\n")
    options = {"target": ["y"], "one_hot": ["a"]}
    report = ingest(table, out, delimiter=";", decimal=",", **options)
    assert report.feature_names == ("a=2",)
