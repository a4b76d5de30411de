import gzip
import io
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr
from problems import flights_csv
from pyarrow import csv, parquet
from table_files import message, write, written

from streamreg.errors import DataCorruptionError, DataWarning, InputError
from streamreg.formatting import MIB
from streamreg.ingest.convert import ingest
from streamreg.progress import Progress

FLIGHTS = {
    "target": ["arr_delay"],
    "one_hot": ["carrier", "origin"],
    "ignore": ["tailnum", "dest", "time_hour"],
    "drop_missing": True,
}


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights")
    return flights_csv(folder)


class Recorder(Progress):
    """Records passes and rows, and calls a function after each batch of rows."""

    def __init__(self, then=len):
        self.passes = []
        self.then = then

    def begin_pass(self, n_rows):
        self.passes.append((n_rows, []))

    def rows(self, n_rows):
        self.passes[-1][1].append(n_rows)
        self.then(self.passes)


def test_flights_are_ingested_as_pandas_reads_them(flights, out):
    frame = pd.read_csv(flights).drop(columns=FLIGHTS["ignore"])
    complete = frame.dropna()
    expected = pd.get_dummies(
        complete, columns=FLIGHTS["one_hot"], prefix_sep="=", drop_first=True, dtype=float
    ).drop(columns="arr_delay")
    recorder = Recorder()
    report = ingest(flights, out, progress=recorder, **FLIGHTS)
    names = list(report.feature_names)
    assert sorted(names) == sorted(expected.columns)
    assert (report.rows_read, report.rows_dropped) == (336_776, len(frame) - len(complete))
    data = written(report)
    np.testing.assert_array_equal(data["X"], expected[names].to_numpy(float))
    np.testing.assert_array_equal(data["y"], complete["arr_delay"])
    attributes = dict(zarr.open_group(out, mode="r").attrs)
    schema = attributes.pop("schema")
    assert attributes == {"feature_names": names, "target_names": ["arr_delay"]}
    carriers = next(each for each in schema["columns"] if each["name"] == "carrier")
    assert carriers["levels"] == sorted(complete["carrier"].unique())
    # the first pass counts the rows, so only the second knows how many there are
    assert [total for total, _ in recorder.passes] == [None, 336_776]
    for _, blocks in recorder.passes:
        assert (len(blocks) > 25, sum(blocks)) == (True, 336_776)


def test_csv_gzip_and_parquet_are_ingested_bitwise_identical(flights, tmp_path):
    missing = csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
    table = csv.read_csv(flights, convert_options=missing)
    parquet.write_table(table, tmp_path / "flights.parquet", row_group_size=100_000)
    packed = tmp_path / "flights.csv.gz"
    packed.write_bytes(gzip.compress(Path(flights).read_bytes(), 1))
    options = FLIGHTS | {"target": ["arr_delay", "dep_delay"], "weight": "distance"}
    names, bits = [], []
    for number, path in enumerate([flights, packed, tmp_path / "flights.parquet"]):
        report = ingest(path, tmp_path / f"{number}.zarr", **options)
        data = written(report)
        assert (data["y"].shape, data["sample_weight"].shape) == ((327_346, 2), (327_346,))
        names.append(report.feature_names)
        bits.append({name: array.tobytes() for name, array in data.items()})
    assert names[0] == names[1] == names[2]
    assert bits[0] == bits[1] == bits[2]


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_missing_values_are_counted_or_left_out(ending, tmp_path, out):
    rows = [[1, "a", 0], [np.nan, "b", 1], [3, None, 2], [np.nan, "a", 3], [5, "c", 4]]
    frame = pd.DataFrame(rows, columns=["x", "z", "y"]).assign(unused=np.nan)
    table = write(tmp_path / f"t{ending}", frame)
    options = {"one_hot": ["z"], "ignore": ["unused"]}
    first = 2 if ending == ".csv" else 0
    said = message(table, out, **options)
    assert "lacks values in 3 of 5 rows and 2 columns" in said
    assert f"x (2, first in row {1 + first}), z (1, first in row {2 + first})" in said
    assert "with drop_missing=True, or such columns with ignore=COLUMN" in said
    assert "with --drop-missing, or" in said.for_command_line()
    report = ingest(table, out, target=["y"], drop_missing=True, **options)
    assert (report.rows_read, report.rows_dropped) == (5, 3)
    # b is only in a row that is left out: its column would be all zeros
    assert report.feature_names == ("x", "z=c")
    data = written(report)
    assert (data["X"].tolist(), data["y"].tolist()) == ([[1, 0], [5, 1]], [0, 4])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("levels", "names"),
    [
        (["b", "a", "c", "a"], ("g=b", "g=c")),
        ([10, 9, 100, 9], ("g=10", "g=100")),
        (["é", "Z", "a", "Z"], ("g=a", "g=é")),
        (["same"] * 4, ()),
    ],
)
def test_levels_are_sorted_and_the_first_is_the_reference(levels, names, ending, tmp_path, out):
    frame = pd.DataFrame({"g": levels, "x": [1.0, 2, 3, 4], "y": [1.0, 2, 3, 5]})
    one_level = pytest.warns(DataWarning, match="column g of .* has one level only, 'same'")
    with nullcontext() if names else one_level:
        report = ingest(write(tmp_path / f"t{ending}", frame), out, target=["y"], one_hot=["g"])
    assert report.feature_names == (*names, "x")
    expected = pd.get_dummies(frame, columns=["g"], prefix_sep="=", drop_first=True, dtype=float)
    np.testing.assert_array_equal(written(report)["X"], expected[[*names, "x"]])


def test_more_than_a_hundred_thousand_levels_are_refused(tmp_path, out):
    frame = pd.DataFrame({"g": np.arange(10_000) % 1000, "y": 0.5})
    report = ingest(write(tmp_path / "t.parquet", frame), out, target=["y"], one_hot=["g"])
    expected = pd.get_dummies(frame["g"], drop_first=True, dtype=float)
    np.testing.assert_array_equal(written(report)["X"], expected)
    table = write(tmp_path / "t.csv", pd.DataFrame({"g": range(100_001), "y": 0.5}))
    (tmp_path / "other").mkdir()
    said = message(table, tmp_path / "other" / "out.zarr", one_hot=["g"])
    assert "column g" in said
    assert "more than 100,000 levels" in said
    assert 'leave it out with ignore="g"' in said
    assert "--ignore g" in said.for_command_line()


def test_if_all_rows_have_missing_values_columns_are_named(tmp_path, out):
    table = write(tmp_path / "t.csv", "x,z,y\n1,,2\n3,,4\n,,6\n")
    said = message(table, out, drop_missing=True)
    assert "lacks values in 3 of 3 rows and 2 columns: z (3, first in row 2), x (1," in said
    assert "leave out the columns that lack most values with ignore=COLUMN" in said
    assert "lack most values with --ignore COLUMN" in said.for_command_line()
    assert "drop" not in said


@pytest.mark.parametrize(
    ("table", "options", "said"),
    [
        ("g,y\na,1\na,2\n", {}, "no column left for X: each of g has one level only"),
        ("g,g=b,y\na,1,2\nb,2,3\n", {}, "X would have 2 columns named 'g=b'"),
        ("g,y\na,1\n", {"ignore": ["g"], "one_hot": []}, "each of its 2 is a target, the weight"),
    ],
)
def test_tables_without_a_column_for_x_or_with_equal_names_are_refused(
    table, options, said, tmp_path, out
):
    table = write(tmp_path / "t.csv", table)
    assert said in message(table, out, **({"one_hot": ["g"]} | options))


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_integers_that_lose_digits_are_named_in_a_warning(ending, tmp_path, out):
    frame = pd.DataFrame({"big": [2**53 + 1, 1], "low": [-(2**60), 1], "edge": [2**53, 1]})
    frame = frame.assign(real=[1e300, 1], level=[2**60, 2**60 + 1], y=[1.0, 2.0])
    table = write(tmp_path / f"t{ending}", frame)
    with pytest.warns(DataWarning, match=r"beyond 2\*\*53 in big, low;") as warned:
        report = ingest(table, out, target=["y"], one_hot=["level"])
    assert len(warned) == 1
    assert warned[0].filename == __file__
    assert f"level={2**60 + 1}" in report.feature_names


@pytest.mark.parametrize(
    "rows", ["a,1,2\nb,3,4\na,5,6\n", "a,1,2\n", "a,1,2\nb,oops,4\n", "a,1,2\nc,3,4\n"]
)
def test_a_table_that_changes_between_the_passes_leaves_no_output(rows, tmp_path, out):
    before, after = (
        pd.read_csv(io.StringIO(f"g,x,y\n{each}")) for each in ("a,1,2\nb,3,4\n", rows)
    )
    table = write(tmp_path / "t.parquet", before)
    recorder = Recorder(then=lambda _: after.to_parquet(table))
    with pytest.raises((InputError, DataCorruptionError)):
        ingest(table, out, target=["y"], one_hot=["g"], progress=recorder)
    assert not list(tmp_path.glob("out.zarr*"))


def test_a_text_file_is_read_once_so_that_a_change_has_no_effect(tmp_path, out):
    table = write(tmp_path / "t.csv", "g,x,y\na,1,2\nb,3,4\n")
    recorder = Recorder(then=lambda _: table.write_text("g,x,y\nc,5,6\n"))
    report = ingest(table, out, target=["y"], one_hot=["g"], progress=recorder)
    assert written(report)["X"].tolist() == [[0, 1], [1, 3]]


def test_an_interrupted_ingest_leaves_the_older_output(tmp_path, out):
    table = write(tmp_path / "t.csv", "x,y\n1,2\n3,4\n")
    ingest(table, out, target=["y"])
    with pytest.raises(InputError, match="exists; pass overwrite=True"):
        ingest(table, out, target=["x"])

    def interrupt(passes):
        if len(passes) > 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(table, out, target=["x"], overwrite=True, progress=Recorder(interrupt))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["out.zarr", "t.csv"]
    assert zarr.open_group(out, mode="r")["y"][:].tolist() == [2, 4]
    report = ingest(table, out, target=["x"], overwrite=True)
    assert written(report)["y"].tolist() == [1, 3]


GENERATE = """
import numpy as np, pyarrow as pa, sys
from pyarrow import csv, parquet
path = sys.argv[1]
piece = pa.record_batch({f"x{i}": np.random.default_rng(i).normal(size=50_000) for i in range(10)})
if path.endswith(".csv"):
    with csv.CSVWriter(path, piece.schema) as file:
        for _ in range(32):
            file.write(piece)
else:  # one row group
    with parquet.ParquetWriter(path, piece.schema, use_dictionary=False) as file:
        for _ in range(80):
            file.write_batch(piece, row_group_size=10**8)
"""
MEASURE = """
import pathlib, sys
import zarr.codecs
from streamreg.ingest.convert import ingest
def highest():  # ru_maxrss would begin with that of the process that started this one
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
start = highest()
ingest(*sys.argv[1:], target=["x0"])
sys.stdout.write(str(1024 * (highest() - start)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_memory_does_not_grow_with_the_table(name, tmp_path, out):
    table = tmp_path / name
    subprocess.run([sys.executable, "-c", GENERATE, table], check=True)
    assert table.stat().st_size > 290e6
    measure = [sys.executable, "-c", MEASURE, table, out]
    measured = subprocess.run(measure, check=True, capture_output=True, text=True)
    # the limit that the docstring of ``ingest`` states
    assert int(measured.stdout) < 250 * MIB
