"""One schema from a table to predictions: ``read_table`` with ``like``, and the model's file."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import zarr

import streamreg
from streamreg.errors import DataCorruptionError, InputError
from streamreg.ingest.convert import ingest

TRAIN = pd.DataFrame({"x": [1.5, 2, 3, 4, 5, 6], "c": list("ABCABC")})
TRAIN["y"] = 2 * TRAIN.x + TRAIN.c.map({"A": 0, "B": 10, "C": 20})


@pytest.fixture
def model(tmp_path):
    table = streamreg.read_table(TRAIN, target="y", one_hot="c")
    fitted = streamreg.LinearRegression().fit(table)
    fitted.save(tmp_path / "m.json")
    fitted.save(tmp_path / "m.npz")
    ingest(TRAIN, tmp_path / "train.zarr", target=["y"], one_hot=["c"])
    return fitted


@pytest.mark.parametrize("like", ["model", "m.json", "m.npz", "train.zarr", "table"])
def test_a_new_table_has_the_columns_and_levels_of_the_fit(like, model, tmp_path):
    new = pd.DataFrame({"c": ["B", "C"], "more": [0, 0], "x": [7.0, 8]})
    new.to_csv(tmp_path / "new.csv", index=False)
    known = {"model": model, "table": streamreg.read_table(TRAIN, target="y", one_hot="c")}
    schema = known.get(like, tmp_path / like)
    table = streamreg.read_table(tmp_path / "new.csv", like=schema)
    assert model.predict(table) == pytest.approx([24, 36])
    assert streamreg.load(tmp_path / "m.json").predict(table) == pytest.approx([24, 36])


def test_unknown_levels_are_named_or_become_zeros(model, tmp_path):
    new = pd.DataFrame({"c": ["B", "D"], "x": [7.0, 8]})
    with pytest.raises(InputError, match=r"column c .* level 'D' in row 1 .*'A', 'B', 'C'.*zeros"):
        model.predict(streamreg.read_table(new, like=model))
    table = streamreg.read_table(new, like=model, unknown_levels="zeros")
    assert model.predict(table) == pytest.approx([24, 16])


def test_a_table_that_lacks_a_column_is_refused_by_its_name(model):
    with pytest.raises(InputError, match="has no column 'c'"):
        streamreg.read_table(TRAIN[["x"]], like=model)
    with pytest.raises(InputError, match="one_hot is taken from like"):
        streamreg.read_table(TRAIN, like=model, one_hot="c")


@pytest.mark.parametrize(
    ("column", "value"), [("x", [1.0, 2.0]), ("c", [1.0, 2.0]), ("e", 1.0), ("e", None)]
)
def test_lists_where_the_fit_had_none_and_the_reverse_are_refused(column, value):
    frame = TRAIN.assign(e=[[1.0, k * k] for k in range(6)])
    table = streamreg.read_table(frame, target="y", one_hot="c")
    new = frame.assign(**{column: [value] * 6})
    with pytest.raises(InputError, match=f"column {column} of the frame holds .*, but the schema"):
        streamreg.read_table(new, like=table)


def test_a_table_without_the_target_becomes_a_data_set_to_predict(model, tmp_path):
    report = ingest(TRAIN.drop(columns="y")[:2], tmp_path / "new.zarr", like=tmp_path / "m.json")
    assert report.target_names == ()
    assert model.predict(str(tmp_path / "new.zarr")) == pytest.approx(TRAIN.y[:2])


def test_a_model_of_plain_columns_takes_them_by_name():
    model = streamreg.LinearRegression().fit(TRAIN[["x"]].assign(z=[1, 5, 2, 2, 4, 3]), TRAIN.y)
    new = pd.DataFrame({"z": [1.0, 2], "other": 0, "x": [3.0, 4]})
    expected = model.predict(new[["x", "z"]])
    assert model.predict(streamreg.read_table(new, like=model)) == pytest.approx(expected)
    unnamed = streamreg.LinearRegression().fit(TRAIN[["x"]].to_numpy(), TRAIN.y)
    with pytest.raises(InputError, match="does not know the names of its columns"):
        streamreg.read_table(new, like=unnamed)


def test_rows_that_lack_values_are_left_out_of_the_fit_and_predicted_as_nan():
    gaps = pd.concat([TRAIN, pd.DataFrame({"x": [np.nan, 9], "c": ["Z", None], "y": [1.0, 2]})])
    table = streamreg.read_table(gaps, target="y", one_hot="c", drop_missing=True)
    assert table.schema.feature_names == ("x", "c=B", "c=C")
    with pytest.warns(streamreg.DataWarning, match="2 of 8 rows"):
        model = streamreg.LinearRegression().fit(table)
    assert model.coef_ == pytest.approx([2, 10, 20])
    new = pd.DataFrame({"x": [np.nan, 7], "c": ["B", "B"]})
    predicted = model.predict(streamreg.read_table(new, like=model))
    np.testing.assert_allclose(predicted, [np.nan, 24])


def test_a_missing_value_names_its_row_unless_rows_are_left_out(tmp_path):
    TRAIN.assign(x=[1, 2, np.nan, 4, 5, 6]).to_csv(tmp_path / "t.csv", index=False)
    table = streamreg.read_table(tmp_path / "t.csv", target="y", one_hot="c")
    with pytest.raises(InputError, match=r"NaN in row 2, column 0 \('x'\): row 4 of .*header"):
        streamreg.LinearRegression().fit(table)


@pytest.mark.parametrize("write", ["to_csv", "to_parquet"])
def test_a_missing_level_names_a_column_of_its_feature(write, tmp_path):
    frame = TRAIN.assign(c=["A", "B", None, "A", "B", "C"], e=["q", None, "r", "q", "q", "r"])
    getattr(frame, write)(tmp_path / f"t.{write[3:]}", index=False)
    table = streamreg.read_table(tmp_path / f"t.{write[3:]}", target="y", one_hot=["c", "e"])
    with pytest.raises(InputError, match=r"NaN in row 1, column 3 \('e=r'\).* 2 such values"):
        streamreg.LinearRegression().fit(table)


@pytest.mark.parametrize(
    "given", [{"missing": ["-999"]}, {"delimiter": ";"}, {"decimal": ","}, {"encoding": "latin-1"}]
)
@pytest.mark.parametrize("how", ["frame", "parquet", "like"])
def test_a_text_format_is_refused_where_values_have_types(given, how, model, tmp_path):
    TRAIN.to_parquet(tmp_path / "t.parquet")
    table = TRAIN if how == "frame" else tmp_path / "t.parquet"
    columns = {"like": model} if how == "like" else {"target": "y", "one_hot": "c"}
    with pytest.raises(InputError, match=f"^{next(iter(given))} is of text files"):
        streamreg.read_table(table, **columns, **given)


@pytest.mark.parametrize("write", ["to_csv", "to_parquet"])
def test_a_target_that_is_text_does_not_hinder_predictions(write, model, tmp_path):
    path = tmp_path / f"t.{write[3:]}"
    getattr(TRAIN.assign(y="unknown"), write)(path, index=False)
    table = streamreg.read_table(path, like=model)
    assert model.predict(table) == pytest.approx(TRAIN.y)
    with pytest.raises(InputError, match="name its column with target"):
        model.score(table)
    with pytest.raises(InputError, match="not numbers: y"):
        streamreg.read_table(path, like=model, target="y")


def test_names_and_schema_belong_to_the_arrays_of_a_group(model, tmp_path):
    path = str(tmp_path / "train.zarr")
    apart = streamreg.LinearRegression().fit(f"{path}/X", f"{path}/y")
    assert list(apart.feature_names_in_) == ["x", "c=B", "c=C"]
    assert apart.schema_ == model.schema_


def test_columns_of_a_data_set_that_was_ingested_are_matched_by_name(model, tmp_path):
    ingest(TRAIN[["c", "x", "y"]], tmp_path / "other.zarr", target=["y"], one_hot=["c"])
    for path in (tmp_path / "other.zarr", tmp_path / "other.zarr" / "X"):
        assert model.predict(str(path)) == pytest.approx(TRAIN.y)
    assert model.score(str(tmp_path / "other.zarr")) == pytest.approx(1)
    other = TRAIN.replace({"c": {"A": "0"}})
    ingest(other, tmp_path / "baseline.zarr", target=["y"], one_hot=["c"])
    with pytest.raises(InputError, match=r"column c of .* has the baseline '0', but .* with 'A'"):
        model.predict(str(tmp_path / "baseline.zarr"))


def test_predictions_are_written_as_a_table(model, tmp_path):
    table = streamreg.read_table(TRAIN, like=model)
    for name, read in (("p.parquet", pd.read_parquet), ("p.csv", pd.read_csv)):
        model.predict(table, out=tmp_path / name)
        assert read(tmp_path / name)["y"].tolist() == pytest.approx(TRAIN.y.tolist())
        with pytest.raises(InputError, match="exists; pass overwrite=True"):
            model.predict(table, out=tmp_path / name)
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def damaged_schemas():
    good = {"version": 1, "columns": [{"name": "x"}, {"name": "c", "levels": ["A", "B", "C"]}]}
    good |= {"targets": ["y"], "weight": None, "drop_missing": False, "missing": None}
    for change in (
        {"version": 2},
        {"version": True},
        {"columns": []},
        {"columns": [{"name": 1}]},
        {"columns": [{"name": "x"}]},
        {"columns": [{"name": "x"}, {"name": "x", "width": 2}]},
        {"columns": [{"name": "x", "width": -1}, {"name": "z", "width": 2}]},
        {"columns": [{"name": "c", "levels": ["A", "A", "B", "C"]}]},
        {"columns": [{"name": "c", "levels": [str(k) for k in range(2000)]}]},
        {"targets": "y"},
        {"weight": 3},
        {"drop_missing": "no"},
        {"missing": [1]},
    ):
        yield good | change


@pytest.mark.parametrize("schema", [*damaged_schemas(), [], 3, "x"])
def test_a_damaged_schema_is_refused_in_a_sentence(schema, model, tmp_path):
    saved = json.loads((tmp_path / "m.json").read_text()) | {"schema": schema}
    (tmp_path / "m.json").write_text(json.dumps(saved))
    with pytest.raises(InputError, match="is not a model of streamreg"):
        streamreg.load(tmp_path / "m.json")
    group = zarr.open_group(tmp_path / "train.zarr")
    group.attrs["schema"] = schema
    if isinstance(schema, dict):
        with pytest.raises((DataCorruptionError, InputError), match="attribute schema"):
            streamreg.LinearRegression().fit(str(tmp_path / "train.zarr"))


def test_a_model_that_was_saved_without_a_schema_still_loads(model, tmp_path):
    saved = json.loads((tmp_path / "m.json").read_text())
    del saved["schema"]
    (tmp_path / "m.json").write_text(json.dumps(saved))
    loaded = streamreg.load(tmp_path / "m.json")
    assert loaded.schema_ is None
    np.testing.assert_array_equal(loaded.coef_, model.coef_)


def test_groups_of_a_table_are_an_array_beside_it(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=60), "g": np.repeat(list("uvwxyz"), 10)})
    frame["y"] = frame.x + rng.normal(size=60)
    frame.loc[5, "x"] = np.nan
    codes = pd.factorize(frame.g)[0]
    zarr.save_array(tmp_path / "g.zarr", codes)
    text = pa.array(frame.g.tolist())
    table = streamreg.read_table(frame, target="y", ignore="g", drop_missing=True)
    errors = []
    for groups in (
        codes,
        tmp_path / "g.zarr",
        frame.g,
        list(frame.g),
        text,
        pa.chunked_array([text]),
    ):
        model = streamreg.LinearRegression(cov_type="cluster")
        with pytest.warns(UserWarning, match="1 of 60 rows"):
            errors.append(model.fit(table, groups=groups).bse_)
    np.testing.assert_array_equal(errors, [errors[0]] * len(errors))
    with pytest.raises(InputError, match="groups cannot be a table; pass an array"):
        streamreg.LinearRegression(cov_type="cluster").fit(table, groups="groups.csv")
