"""A table's own columns, its files and folders, and columns that become several."""

import os
import threading
import tracemalloc
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather, parquet
from sklearn.linear_model import LinearRegression as Sklearn

import streamreg
from streamreg.errors import DataCorruptionError, DataWarning, InputError
from streamreg.sources.tables.frame_store import FrameStore
from streamreg.sources.tables.survey import BATCH_NBYTES, batches, width_of

N = 60
RNG = np.random.default_rng(0)
FRAME = pd.DataFrame({"a": RNG.normal(size=N), "b": RNG.integers(0, 9, N)})
FRAME["y"] = 3 * FRAME.a - FRAME.b + np.linspace(0, 50, N)


def null_index(folder):
    """Write what Dask writes for a frame without an index."""
    table = pa.Table.from_pandas(FRAME, preserve_index=False)
    table = table.append_column("__null_dask_index__", pa.array(range(N)))
    parquet.write_table(table.replace_schema_metadata(), folder / "t.parquet")
    return folder / "t.parquet"


def of_pandas(change):
    def write(folder):
        change(FRAME).to_parquet(folder / "t.parquet")
        return folder / "t.parquet"

    return write


def csv_with_index(folder):
    FRAME.to_csv(folder / "t.csv")
    return folder / "t.csv"


def csv_written_twice(folder):
    pd.read_csv(csv_with_index(folder)).to_csv(folder / "twice.csv", index=False)
    return folder / "twice.csv"


def counter(folder):
    path = folder / "t.parquet"
    FRAME.assign(id=range(1, N + 1)).to_parquet(path, index=False)
    return path


TABLES = {
    "filtered": of_pandas(lambda frame: frame[frame.a > 0]),
    "several levels": of_pandas(lambda f: f.set_index(pd.MultiIndex.from_arrays([f.b, f.index]))),
    "named": of_pandas(lambda frame: frame.assign(key=frame.index**2).set_index("key")),
    "dask": null_index,
    "csv": csv_with_index,
    "Unnamed: 0": csv_written_twice,
    "counter": counter,
    "reset index": of_pandas(lambda frame: frame.reset_index()),
}


@pytest.mark.parametrize("kind", TABLES)
def test_an_index_is_no_feature_and_a_warning_names_it(kind, tmp_path):
    with pytest.warns(DataWarning, match="left out .*To use such a column, pass keep=COLUMN"):
        table = streamreg.read_table(TABLES[kind](tmp_path), target="y")
    assert table.schema.feature_names == ("a", "b")
    model = streamreg.LinearRegression().fit(table)
    frame = FRAME[FRAME.a > 0] if kind == "filtered" else FRAME
    expected = Sklearn().fit(frame[["a", "b"]], frame.y)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-10)


def test_an_index_is_a_feature_if_it_is_asked_for(tmp_path):
    table = streamreg.read_table(TABLES["counter"](tmp_path), target="y", keep="id")
    assert table.schema.feature_names == ("a", "b", "id")
    path = TABLES["named"](tmp_path)
    assert streamreg.read_table(path, target="key").schema.feature_names == ("a", "b", "y")


def test_whole_numbers_that_count_a_few_rows_by_chance_stay(tmp_path):
    pd.DataFrame({"a": range(5), "y": [1.0, 3, 2, 5, 4]}).to_parquet(tmp_path / "t.parquet")
    assert streamreg.read_table(tmp_path / "t.parquet", target="y").schema.feature_names == ("a",)


def test_folders_of_files_are_read_in_natural_order(tmp_path):
    folder = tmp_path / "spark"
    folder.mkdir()
    (folder / "_SUCCESS").touch()
    for part in range(12):
        FRAME[part * 5 : part * 5 + 5].to_parquet(folder / f"part.{part}.parquet", index=False)
    for path in (folder, folder / "*.parquet"):
        table = streamreg.read_table(path, target="y")
        model = streamreg.LinearRegression().fit(FRAME[["a", "b"]].to_numpy(), FRAME.y)
        np.testing.assert_array_equal(model.predict(table), model.predict(FRAME[["a", "b"]].values))


def test_hive_partitions_are_columns(tmp_path):
    frame = FRAME.assign(g=["u", "v"] * 30, year=[2020, 2021, 2023] * 20)
    frame.to_parquet(tmp_path / "t.parquet", partition_cols=["g", "year"])
    table = streamreg.read_table(tmp_path / "t.parquet", target="y", one_hot="g")
    model = streamreg.LinearRegression().fit(table)
    expected = Sklearn().fit(
        pd.get_dummies(frame, columns=["g"], drop_first=True).drop(columns="y"), frame.y
    )
    known = dict(zip(["a", "b", "year", "g=v"], expected.coef_, strict=True))
    for name, value in zip(model.feature_names_in_, model.coef_, strict=True):
        assert value == pytest.approx(known[name], rel=1e-9)


def test_files_with_other_columns_are_refused_by_name(tmp_path):
    (tmp_path / "t").mkdir()
    FRAME.to_parquet(tmp_path / "t" / "0.parquet")
    FRAME.rename(columns={"b": "c"}).to_parquet(tmp_path / "t" / "1.parquet")
    with pytest.raises(InputError, match=r"1\.parquet has other columns .* 'b', 'c'"):
        streamreg.read_table(tmp_path / "t", target="y")


@pytest.mark.parametrize("kind", ["text", "parquet"])
def test_a_pipe_is_read(kind, tmp_path):
    path, pipe = tmp_path / "data", tmp_path / "pipe"
    FRAME.to_csv(path, index=False) if kind == "text" else FRAME.to_parquet(path)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    table = streamreg.read_table(pipe, target="y")
    writer.join()
    expected = Sklearn().fit(FRAME[["a", "b"]], FRAME.y)
    model = streamreg.LinearRegression().fit(table)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=1e-10)


def test_a_pipe_to_which_nobody_writes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("streamreg.sources.tables.pipe._PIPE_SECONDS", 0.1)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match=r"nobody wrote to the pipe .*pipe\.csv"):
        streamreg.read_table(tmp_path / "pipe.csv", target="y")


def test_the_path_of_a_table_alone_says_how_to_open_it(tmp_path):
    FRAME.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match=r"pass streamreg\.read_table\('.*t\.csv', target="):
        streamreg.LinearRegression().fit(str(tmp_path / "t.csv"))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 3), pa.list_(pa.float64())])
def test_a_list_of_numbers_becomes_columns(kind, tmp_path):
    vectors = RNG.normal(size=(N, 3)).astype("f4")
    column = pa.array(vectors.tolist(), kind)
    parquet.write_table(pa.table({"e": column, "y": FRAME.y}), tmp_path / "t.parquet")
    table = streamreg.read_table(tmp_path / "t.parquet", target="y")
    assert table.schema.feature_names == ("e[0]", "e[1]", "e[2]")
    model = streamreg.LinearRegression().fit(table)
    np.testing.assert_allclose(model.coef_, Sklearn().fit(vectors.astype(float), FRAME.y).coef_)


def test_lists_of_unequal_length_are_named_by_row(tmp_path):
    parquet.write_table(pa.table({"e": [[1.0, 2], [3.0]], "y": [1, 2]}), tmp_path / "t.parquet")
    table = streamreg.read_table(tmp_path / "t.parquet", target="y")
    with pytest.raises(InputError, match=r"column e .* lists of 2 numbers, but one of 1 in row 1"):
        streamreg.LinearRegression().fit(table)


@pytest.mark.parametrize("ending", [".parquet", ".feather", ".csv", ""])
def test_all_columns_of_text_and_categories_are_encoded_if_asked(ending, tmp_path):
    frame = FRAME.assign(c=pd.Categorical(["p", "q", "r"] * 20), t=["u", "v"] * 30)
    path = tmp_path / f"t{ending}"
    if ending == ".csv":
        frame.to_csv(path, index=False)
    elif ending == ".feather":
        feather.write_feather(frame, path, compression="zstd")
    elif ending:
        frame.to_parquet(path)
    table = streamreg.read_table(path if ending else frame, target="y", one_hot="auto")
    assert table.schema.feature_names == ("a", "b", "c=q", "c=r", "t=v")


def test_categories_with_views_of_texts_are_encoded():
    # polars gives such categories to Arrow
    texts = pa.array(["p", "q", None], pa.string_view())
    codes = pa.array([0, 1, 2, 1] * 15, pa.uint8())
    column = pa.DictionaryArray.from_arrays(codes, texts)
    table = pa.table({"c": column, "a": FRAME.a, "y": FRAME.y})
    opened = streamreg.read_table(table, target="y", one_hot="auto", drop_missing=True)
    assert opened.schema.feature_names == ("c=q", "a")
    with pytest.warns(DataWarning, match="15 of 60 rows"):
        model = streamreg.LinearRegression().fit(opened)
    kept = np.tile([True, True, False, True], 15)
    X = np.column_stack([np.tile([0, 1, 0, 1], 15), FRAME.a])[kept]
    np.testing.assert_allclose(model.coef_, Sklearn().fit(X, FRAME.y[kept]).coef_)


SPELLINGS = {
    "a gap in a column of integers": (["1", "2"], ["1.0", "2.00"], [1.0, 2.0]),
    "truths of Arrow and pandas": (["false", "true"], ["False", "TRUE"], [False, True]),
    "dates": (["2020-01-01", "2020-01-02"], ["2020-01-01T00:00:00.000", "2020-01-02 00:00:00"],
              pd.to_datetime(["2020-01-01", "2020-01-02"])),
    "times": (["2020-01-01 10:30:00", "2020-01-02"],
              ["2020-01-01T10:30:00.000", "2020-01-02T00:00:00"],
              pd.to_datetime(["2020-01-01 10:30", "2020-01-02 00:00"])),
    "no number": (["01", "1.10"], ["01", "1.10"], ["01", "1.10"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_level_is_one_level_in_all_its_spellings(kind, tmp_path):
    levels, otherwise, values = SPELLINGS[kind]
    for name, texts in (("t/1.csv", levels), ("t/2.csv", otherwise)):
        (tmp_path / "t").mkdir(exist_ok=True)
        rows = [f"{texts[k % 2]},{k},{k % 4}\n" for k in range(8)]
        (tmp_path / name).write_text("".join(["c,x,y\n", *rows]))
    table = streamreg.read_table(tmp_path / "t", target="y", one_hot="c")
    known = tuple(dict.fromkeys(levels))
    assert table.schema.features[0].levels == known
    frame = pd.DataFrame({"c": values, "x": [0, 1], "y": [0, 1]})
    assert streamreg.read_table(frame, target="y", one_hot="c").schema.features[0].levels == known
    model = streamreg.LinearRegression().fit(table)
    for new in (tmp_path / "t" / "2.csv", frame):
        predicted = model.predict(streamreg.read_table(new, like=model))[:2]
        np.testing.assert_array_equal(predicted, model.predict(table)[:2])


@pytest.mark.parametrize("ending", [".parquet", ".feather"])
@pytest.mark.parametrize("rows", [N, N // 2])
def test_a_file_that_changes_after_it_was_opened_is_noticed(ending, rows, tmp_path):
    path = tmp_path / f"t{ending}"
    write = pd.DataFrame.to_parquet if ending == ".parquet" else pd.DataFrame.to_feather
    write(FRAME, path)
    table = streamreg.read_table(path, target="y")
    model = streamreg.LinearRegression().fit(table)
    write(FRAME.assign(a=1.5, z=2)[:rows], path)
    for use in (streamreg.LinearRegression().fit, model.predict, model.score):
        with pytest.raises(DataCorruptionError, match="changed since it was first read"):
            use(table)


class Recorded(FrameStore):
    """A frame that keeps how many rows are asked for at once."""

    def __init__(self, frame):
        super().__init__(frame)
        self.piece_rows = []

    def select(self, columns, piece_rows):
        self.piece_rows.append(piece_rows)
        return super().select(columns, piece_rows)


def test_long_lists_are_surveyed_a_few_at_a_time():
    n, width = 20_000, 100
    lists = pa.FixedSizeListArray.from_arrays(pa.array(RNG.normal(size=n * width)), width)
    store = Recorded(pa.table({"e": lists.cast(pa.list_(pa.float64())), "y": np.arange(n)}))
    assert width_of(store, "e") == width
    assert sum(map(len, batches(store, ["e", "y"]))) == n
    assert max(store.piece_rows) * 8 * width <= BATCH_NBYTES


def test_a_block_of_a_frame_is_made_without_a_copy_of_the_frame():
    frame = pd.DataFrame(RNG.normal(size=(100_000, 20)), columns=[f"x{k}" for k in range(20)])
    store = streamreg.read_table(frame, target="x0").store
    tracemalloc.start()
    block = list(store.select(store.schema.names, 1000).read(500, 1500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(part.num_rows for part in block) == 1000
    # a block takes 160 kB, the frame 16 MB
    assert peak < 1e6


# pieces of a frame's objects are converted apart, each with the values that it has
LATE = {
    "texts": ([None] * 70_000 + ["p", "q"] * 100, ("c=q",)),
    "floats": ([1] * 70_000 + [2.5, None] * 100, ("c",)),
    "lists": ([None] * 70_000 + [[1.0, 2.0], [3.0, 5.0], [2.0, 9.0]] * 100, ("c[0]", "c[1]")),
    "decimals": ([Decimal(1)] * 70_000 + [Decimal("1.25"), None] * 100, ("c",)),
}


@pytest.mark.parametrize("kind", LATE)
def test_the_type_of_a_column_of_objects_is_that_of_all_its_rows(kind):
    objects, names = LATE[kind]
    column = pd.Series(objects, dtype=object)
    frame = pd.DataFrame({"c": column, "y": np.arange(len(column)) % 7.0})
    one_hot = ["c"] if kind == "texts" else []
    table = streamreg.read_table(frame, target="y", one_hot=one_hot, drop_missing=True)
    assert table.schema.feature_names == names
    with pytest.warns(DataWarning, match="hold NaN or inf"):
        model = streamreg.LinearRegression().fit(table)
    kept = frame.dropna()
    X = {"texts": kept.c == "q", "lists": kept.c.map(np.array)}.get(kind, kept.c)
    X = np.vstack(X.to_numpy()).astype(float)
    expected = np.linalg.lstsq(np.column_stack([np.ones(len(X)), X]), kept.y, rcond=None)[0]
    np.testing.assert_allclose(model.predict(table)[frame.c.notna()][:9],
                               expected[0] + X[:9] @ expected[1:], rtol=1e-9)  # fmt: skip


NO_TABLES = {
    "array": (FRAME.to_numpy(), "the table is a numpy.ndarray; pass a path, or a data frame"),
    "dictionary": ({"a": [1.0], "y": [2.0]}, "the table is a builtins.dict"),
    "series": (FRAME.a, "the table is a pandas.Series"),
    "reader": (pa.table(FRAME).to_reader(), "the table is a pyarrow.RecordBatchReader"),
    "long text": ("x" * 5000, "xxx cannot be read: .*name too long"),
    "sparse": (FRAME.astype({"a": "Sparse[float]"}), "has column 'a' that Arrow cannot represent"),
    "complex": (FRAME.assign(a=FRAME.a * 1j), "has column 'a' that Arrow cannot represent"),
    "huge": (FRAME.assign(a=[10**30] * N), "has column 'a' that Arrow cannot represent"),
    "mixed late": (
        pd.DataFrame({"a": [1] * 70_000 + ["p"], "y": 0.0}),
        "has column 'a' that Arrow cannot represent",
    ),
    "mixed": (FRAME.assign(a=["p", 1] * 30), "has column 'a' that Arrow cannot represent"),
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table_is_refused_in_a_sentence(kind):
    data, message = NO_TABLES[kind]
    with pytest.raises(InputError, match=message):
        streamreg.read_table(data, target="y")


@pytest.mark.parametrize("names", [3, ["a", 3], [None]])
def test_names_of_columns_must_be_texts(names):
    with pytest.raises(InputError, match="target must be the name of a column, or a list"):
        streamreg.read_table(FRAME, target=names)


def test_large_row_groups_are_decoded_in_pieces_that_threads_share(tmp_path):
    n, d = 300_000, 16
    X = RNG.normal(size=(n, d))
    columns = {f"x{j}": X[:, j] for j in range(d)} | {"y": X @ np.arange(d)}
    parquet.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=n)
    table = streamreg.read_table(tmp_path / "t.parquet", target="y")
    bits = []
    for n_threads in (1, 3):
        model = streamreg.LinearRegression(n_threads=n_threads, solver="closed_form").fit(table)
        bits.append(model.coef_.tobytes())
        planned = model.plan_.candidates["closed_form"].peak_nbytes
        assert model.peak_memory_ <= planned
    assert bits[0] == bits[1]
    np.testing.assert_allclose(model.coef_, np.arange(d), atol=1e-10)
