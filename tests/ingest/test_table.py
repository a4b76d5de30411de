import gzip
from datetime import date
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from table_files import message, write, written

from streamreg.formatting import MIB
from streamreg.ingest.convert import ingest


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.int64(), [1, -(2**53), 3]),
        (pa.uint8(), [0, 7, 255]),
        (pa.float16(), [0.5, -2, 3]),
        (pa.float32(), [0.1, 1e30, -3]),
        (pa.float64(), [0.1, -1e308, 1e-300]),
        (pa.bool_(), [True, False, True]),
        (pa.decimal128(10, 2), [Decimal("1.25"), Decimal(-2), Decimal("0.5")]),
        # float64 has no 0.1: the nearest value is expected
        (pa.decimal128(38, 20), [Decimal("0.1"), Decimal("-12.3"), Decimal("1e17")]),
    ],
    ids=str,
)
def test_numbers_of_parquet_become_float64(kind, values, tmp_path, out):
    column = pa.array(values, kind)
    parquet.write_table(pa.table({"x": column, "y": column}), tmp_path / "t.parquet")
    data = written(ingest(tmp_path / "t.parquet", out, target=["y"]))
    np.testing.assert_array_equal(data["y"], [float(value) for value in column.to_pylist()])
    np.testing.assert_array_equal(data["X"][:, 0], data["y"])


def test_numbers_of_csv_are_parsed_as_python_parses_them(tmp_path, out):
    texts = ["1", " -2.5", "+3", "1e-3 ", ".5", "5.", "0.1", "1e308", "1e-400"]
    truths = {"true": 1, "False": 0, " TRUE": 1}
    rows = "".join(f"0,{text}\n" for text in [*texts, *truths])
    data = written(ingest(write(tmp_path / "t.csv", f"y,x\n{rows}"), out, target=["y"]))
    expected = [*map(float, texts), *truths.values()]
    np.testing.assert_array_equal(data["X"][:, 0], expected)


@pytest.mark.parametrize(
    "text",
    ["\ufeffx,y\r\n1,2\r\n", '"x","y"\n"1",2\n', "\nx,y\n\n1,2\n", 'note,x,y\n"a,\nb",1,2'],
    ids=["byte order mark", "quotes", "empty lines", "line break in a value"],
)
def test_csv_of_other_programs_is_read(text, tmp_path, out):
    (tmp_path / "t.csv").write_text(text, newline="")
    ignore = ["note"] if "note" in text else []
    report = ingest(tmp_path / "t.csv", out, target=["y"], ignore=ignore)
    assert report.feature_names == ("x",)
    assert written(report)["X"].tolist() == [[1]]


def test_a_type_does_not_depend_on_the_first_block(tmp_path, out):
    # three blocks: a column is first empty, then has whole numbers, at last fractions
    texts = ["NA"] * 150_000 + ["1"] * 150_000 + ["0.5"] * 150_000
    frame = pd.DataFrame({"x": texts, "y": range(len(texts))})
    table = write(tmp_path / "t.csv", frame)
    assert table.stat().st_size > 3 * MIB
    data = written(ingest(table, out, target=["y"], drop_missing=True))
    np.testing.assert_array_equal(data["X"][:, 0], pd.read_csv(table)["x"].dropna())
    np.testing.assert_array_equal(data["y"], range(150_000, 450_000))


def test_a_text_in_a_late_block_is_named_by_its_row(tmp_path, out):
    texts = ["1"] * 400_000
    texts[399_990] = "1;5"
    table = write(tmp_path / "t.csv", pd.DataFrame({"x": texts, "y": 0.5}))
    assert "x ('1;5' in row 399,992); row 1 is the header" in message(table, out)


TEXTS = {
    "text": ["a", "b", "c"],
    "digits": pd.Series(["1", "2", "3"], dtype="string"),
    "day": [date(2013, 1, 1)] * 3,
    "moment": pd.to_datetime(["2013-01-01 05:00"] * 3),
    "kind": pd.Categorical(["p", "q", "p"]),
}


@pytest.mark.parametrize(
    ("ending", "refused"),
    [
        # a CSV file cannot tell texts of digits from numbers
        (".csv", "text ('a', day ('2013-01-01', moment ('2013-01-01 05:00:00', kind ('p'"),
        (".parquet", "text (text), digits (text), day (dates, moment (dates, kind (categories)"),
    ],
)
def test_columns_that_are_not_numbers_are_all_named(ending, refused, tmp_path, out):
    table = write(tmp_path / f"t{ending}", pd.DataFrame(TEXTS | {"x": 1.0, "y": 2.0}))
    said = message(table, out)
    for start in (*refused.split(", "), "one_hot=COLUMN", "ignore=COLUMN"):
        assert start in said
    for option in ("--one-hot COLUMN", "--ignore COLUMN"):
        assert option in said.for_command_line()
    assert " x " not in said
    report = ingest(table, out, target=["y"], ignore=list(TEXTS))
    assert report.feature_names == ("x",)


@pytest.mark.parametrize(
    "values",
    [pa.array([[1, 2], [3]]), pa.array([{"a": 1}, {"a": 2}]), pa.array([b"\xff", b"a"])],
    ids=["lists", "structures", "bytes"],
)
def test_columns_of_lists_and_bytes_have_no_levels(values, tmp_path, out):
    parquet.write_table(pa.table({"odd": values, "y": [1, 2]}), tmp_path / "t.parquet")
    said = message(tmp_path / "t.parquet", out, one_hot=["odd"])
    assert f"column odd of {tmp_path}/t.parquet holds {str(values.type)[:4]}" in said
    assert 'leave it out with ignore="odd"' in said
    assert "--ignore odd" in said.for_command_line()


@pytest.mark.parametrize("place", [0.3, 0.6])
def test_a_damaged_page_of_parquet_is_noticed(place, tmp_path, out):
    path = tmp_path / "t.parquet"
    table = pa.table({name: np.random.default_rng(0).random(100_000) for name in "xy"})
    parquet.write_table(table, path, use_dictionary=False, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)
    assert "cannot be read: could not verify page integrity" in message(path, out)


@pytest.mark.parametrize("part", [{"target": ["a"]}, {"weight": "a"}])
def test_a_target_or_weight_of_text_is_refused(part, tmp_path, out):
    table = write(tmp_path / "t.csv", "a,x,y\nhigh,1,2\n")
    assert "a ('high' in row 2)" in message(table, out, **part)


@pytest.mark.parametrize("drop_missing", [False, True])
@pytest.mark.parametrize("text", ["inf", "-Infinity", "1e400"])
def test_infinite_values_are_named_by_column_and_row(text, drop_missing, tmp_path, out):
    table = write(tmp_path / "t.csv", f"x,z,y\n1,1,2\n3,{text},4\n5,6,{text}\n")
    said = message(table, out, drop_missing=drop_missing)
    assert "infinite, or beyond float64" in said
    assert f"z ({text!r} in row 3), y ({text!r} in row 4); row 1 is the header" in said
    table = write(tmp_path / "t.parquet", pd.DataFrame({"x": [1, np.nan, float(text)], "y": 0.5}))
    said = message(table, out, drop_missing=drop_missing)
    assert f"x ('{float(text)}' in row 2); the first row is 0" in said


@pytest.mark.parametrize(("ending", "row"), [(".csv", 3), (".parquet", 1)])
def test_negative_weights_are_named_by_row(ending, row, tmp_path, out):
    frame = pd.DataFrame({"x": [-1.0, -2, -3], "y": [-4.0, -5, -6], "w": [0.0, -2, -3]})
    said = message(write(tmp_path / f"t{ending}", frame), out, weight="w")
    assert f"sample weights below 0: w ('-2.0' in row {row})" in said


def test_a_column_without_a_name_must_be_ignored(tmp_path, out):
    table = write(tmp_path / "t.csv", "x,,y\n1,2,3\n")
    said = message(table, out)
    assert "column 2 of" in said
    assert "has no name" in said
    assert 'ignore=""' in said
    assert "--ignore ''" in said.for_command_line()
    assert ingest(table, out, target=["y"], ignore=[""]).feature_names == ("x",)


@pytest.mark.parametrize("text", ["", "NA", "NaN", "nan", "null", " NA ", "N/A", "-nan"])
def test_missing_values_have_many_spellings(text, tmp_path, out):
    table = write(tmp_path / "t.csv", f"x,y\n1,2\n{text},4\n")
    report = ingest(table, out, target=["y"], drop_missing=True)
    assert written(report)["X"].tolist() == [[1]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target": ["arr_dealy"]}, "no column 'arr_dealy'; closest: 'arr_delay'"),
        ({"target": ["zzz"]}, "no column 'zzz'; closest: 'arr_delay', 'x', 'y'"),
        ({"one_hot": ["Y"]}, "no column 'Y'"),
        ({"ignore": ["w"]}, "no column 'w'"),
        ({"weight": "w"}, "no column 'w'"),
        ({"target": []}, "target names no column"),
        ({"target": ["y", "y"]}, "target names column 'y' twice"),
        ({"ignore": ["y"]}, "'y' can be only one of"),
        ({"one_hot": ["x"], "weight": "x"}, "'x' can be only one of"),
        ({"ignore": ["x", "arr_delay"]}, "no column left for X"),
    ],
)
def test_a_column_must_exist_and_have_one_role(options, said, tmp_path, out):
    assert said in message(write(tmp_path / "t.csv", "arr_delay,x,y\n1,2,3\n"), out, **options)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("absent.csv", None, "there is no file"),
        ("t.xlsx", b"PK", "ends in none of .csv, .tsv, .csv.gz"),
        ("t.csv", b"", "is empty"),
        ("t.csv", b"\n\n", "is empty"),
        ("t.csv", b"x,y\n", "has no rows"),
        ("t.csv", b"x,y", "has no rows"),
        ("t.csv", b"x;y\n1;2\n", """no column 'y'; closest: 'x;y'. Its header separates"""),
        ("t.csv", b"x:y\n1:2\n", "no column 'y'; closest: 'x:y'; are values separated by"),
        ("t.csv", b"x,y,x\n1,2,3\n", "2 columns named 'x'"),
        ("t.csv", b"x,y\n1,2\n3\n", "Row #3: Expected 2 columns, got 1"),
        ("t.csv", b"x,y\n" + b"1,2\n" * 600_000 + b"1,2,3\n", "Row #600002: Expected 2 columns"),
        ("t.csv", b'x,y\n1,"2\n' + b"1,2\n" * 900_000, "is a quote left open?"),
        ("t.csv", b"x,y\n1,\xff\n", "is not UTF-8 text"),
        ("t.csv", "x,y\n1,2\n".encode("utf-16-le"), "is not UTF-8 text"),
        ("t.csv", b"c,y\n" + b"1,2\n" * 9999 + b"\xe9,2\n", "save it as UTF-8"),
        ("t.csv", b"x,y\n1,\n", "lacks values in 1 of 1 row and 1 column: y"),
        ("t.csv.gz", gzip.compress(b"x,y\n" + b"1,2\n" * 9999, mtime=0)[:-40], "cannot be read"),
        ("t.parquet", b"x,y\n1,2\n", "cannot be read"),
    ],
)
@pytest.mark.parametrize("drop_missing", [False, True])
def test_unreadable_tables_are_named_with_the_reason(
    name, content, said, drop_missing, tmp_path, out
):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    refusal = message(tmp_path / name, out, drop_missing=drop_missing)
    assert said in refusal
    assert name in refusal
