"""Hashed columns and texts of a table become sparse rows, as scikit-learn makes them."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import zarr
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import HashingVectorizer
from table_files import message, write
from typer.testing import CliRunner

from streamreg import LinearRegression, load, read_table
from streamreg.cli.app import app
from streamreg.errors import InputError
from streamreg.ingest.convert import ingest
from streamreg.schema import Schema
from streamreg.sources.open import open_dataset

N, BITS = 400, 10
# of few rows most hashed columns have no value
pytestmark = pytest.mark.filterwarnings("ignore:.*(constant|multiples|left out)")
WORDS = [f"word{i}" for i in range(50)] + ["Été", "über"]


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.standard_normal(N).round(6),
            "city": rng.choice([f"city {i}" for i in range(60)], N),
            "zip": rng.integers(0, 90_000, N),
            "title": [" ".join(rng.choice(WORDS, rng.integers(0, 12))) or None for _ in range(N)],
            "level": rng.choice(list("abc"), N),
            "y": rng.standard_normal(N).round(6),
        }
    )


OPTIONS = {
    "target": ["y"],
    "hash": [f"city:{BITS}", f"zip:{BITS}"],
    "text": [f"title:{BITS + 1}"],
    "one_hot": ["level"],
}


def expected(frame, ngrams=(1, 1)):
    """Return x, the shared columns of city and zip, the words of title, and two levels."""
    rows = frame[["city", "zip"]].astype(str).to_dict("records")
    words = HashingVectorizer(n_features=2 << BITS, norm=None, ngram_range=ngrams)
    return scipy.sparse.hstack(
        [
            scipy.sparse.csr_array(frame[["x"]].to_numpy()),
            FeatureHasher(1 << BITS).transform(rows),
            words.transform(frame["title"].fillna("")),
            scipy.sparse.csr_array(pd.get_dummies(frame["level"]).to_numpy(float)[:, 1:]),
        ],
        format="csr",
    )


def stored(path):
    group = zarr.open_group(path, mode="r")["X"]
    parts = (group["data"][:], group["indices"][:], group["indptr"][:])
    return scipy.sparse.csr_array(parts, shape=group.attrs["shape"])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_data_set_has_the_columns_of_scikit_learn(frame, ending, tmp_path, out):
    path = write(tmp_path / f"t{ending}", frame)
    report = ingest(path, out, **OPTIONS)
    X = expected(frame)
    assert (report.rows_read, report.n_features) == (N, X.shape[1])
    assert (stored(out) != X).nnz == 0
    # numbers are stored also where they are 0, and words whose signs cancel
    assert stored(out).nnz >= X.nnz
    attributes = dict(zarr.open_group(out, mode="r").attrs)
    assert "feature_names" not in attributes
    schema = Schema.from_json(json.loads(json.dumps(attributes["schema"])))
    assert (schema.n_columns, schema.is_sparse) == (X.shape[1], True)
    model = LinearRegression(solver="cg", l2=1e-3).fit(out)
    direct = LinearRegression(solver="cg", l2=1e-3).fit(X, frame["y"])
    np.testing.assert_allclose(model.coef_, direct.coef_, atol=1e-7)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_tables_are_fitted_and_predicted_as_they_are(frame, ending, tmp_path):
    train = write(tmp_path / f"train{ending}", frame[:300])
    # the columns of another table may have another order
    test = write(tmp_path / f"test{ending}", frame[300:][list(reversed(frame.columns))])
    model = LinearRegression(solver="cg", l2=1e-3).fit(read_table(train, **OPTIONS))
    model.save(tmp_path / "m.json")
    found = load(tmp_path / "m.json").predict(read_table(test, like=tmp_path / "m.json"))
    X = expected(frame)
    oracle = LinearRegression(solver="cg", l2=1e-3).fit(X[:300], frame["y"][:300])
    np.testing.assert_allclose(found, oracle.predict(X[300:]), atol=1e-7)


def test_the_command_line_predicts_raw_rows_by_the_model(frame, tmp_path):
    write(tmp_path / "t.csv", frame)
    run = CliRunner().invoke
    model, out = str(tmp_path / "m.json"), str(tmp_path / "p.parquet")
    columns = ["--target", "y", "--hash", f"city:{BITS}", "--ignore", "zip", "--text", "title:8"]
    columns += ["--ngrams", "1:2", "--one-hot", "level"]
    fit = ["fit", str(tmp_path / "t.csv"), *columns, "--l2", "0.1", "--out", model]
    assert run(app, fit, catch_exceptions=False).exit_code == 0
    raw = write(tmp_path / "raw.csv", frame.drop(columns=["y", "zip"]))
    predict = ["predict", str(raw), "--model", model, "--out", out]
    assert run(app, predict, catch_exceptions=False).exit_code == 0
    words = HashingVectorizer(n_features=256, norm=None, ngram_range=(1, 2))
    X = scipy.sparse.hstack(
        [
            scipy.sparse.csr_array(frame[["x"]].to_numpy()),
            FeatureHasher(1 << BITS).transform(frame[["city"]].to_dict("records")),
            words.transform(frame["title"].fillna("")),
            scipy.sparse.csr_array(pd.get_dummies(frame["level"]).to_numpy(float)[:, 1:]),
        ],
        format="csr",
    )
    predicted = pd.read_parquet(out)["y"]
    np.testing.assert_allclose(predicted, load(model).predict(X), atol=1e-9)


def test_rows_without_a_value_to_hash_are_refused_or_left_out(frame, tmp_path, out):
    frame.loc[[3, 7], "city"] = None
    path = write(tmp_path / "t.parquet", frame)
    said = message(path, out, **OPTIONS)
    assert "lacks values in 2 of 400 rows and 1 column: city (2, first in row 3)" in said
    report = ingest(path, out, drop_missing=True, **OPTIONS)
    assert (report.rows_read, report.rows_dropped) == (N, 2)
    complete = frame.drop(index=[3, 7])
    assert (stored(out) != expected(complete)).nnz == 0
    np.testing.assert_array_equal(zarr.open_array(out / "y", mode="r")[:], complete["y"])
    table = read_table(path, drop_missing=True, **OPTIONS)
    model = LinearRegression(solver="cg", l2=1e-3).fit(table)
    assert np.flatnonzero(np.isnan(model.predict(table))).tolist() == [3, 7]


def test_a_value_has_one_column_however_it_is_written(tmp_path):
    texts = ["1", "1.0", "true", "True", "2013-01-01", "2013-01-01 00:00:00", "x", "y"]
    (tmp_path / "t.csv").write_text("c,y\n" + "".join(f"{t},{i}\n" for i, t in enumerate(texts)))
    ingest(tmp_path / "t.csv", tmp_path / "a.zarr", target=["y"], hash=["c"])
    columns = stored(tmp_path / "a.zarr").indices
    assert (columns[0], columns[2], columns[4]) == (columns[1], columns[3], columns[5])
    oracle = FeatureHasher().transform([{"c": texts[at]} for at in (0, 2, 4, 6, 7)])
    np.testing.assert_array_equal(columns[[0, 2, 4, 6, 7]], oracle.indices)


def test_pandas_categories_are_hashed_as_texts(frame):
    model = LinearRegression(solver="cg", l2=0.1)
    options = {"target": "y", "hash": "city:8", "ignore": ["zip", "title", "level"]}
    texts = model.fit(read_table(frame, **options)).coef_
    categories = frame.assign(city=frame["city"].astype("category"))
    np.testing.assert_array_equal(model.fit(read_table(categories, **options)).coef_, texts)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_column_of_more_than_a_thousand_levels_makes_rows_sparse(ending, tmp_path, out):
    rng = np.random.default_rng(0)
    levels = np.arange(3000) % 1500
    frame = pd.DataFrame({"x": rng.standard_normal(3000), "g": levels, "y": levels % 7})
    path = write(tmp_path / f"t{ending}", frame)
    ingest(path, out, target=["y"], one_hot=["g"])
    dummies = pd.get_dummies(frame["g"], dtype=float).to_numpy()[:, 1:]
    np.testing.assert_array_equal(stored(out).toarray(), np.column_stack([frame["x"], dummies]))
    names = dict(zarr.open_group(out, mode="r").attrs)["feature_names"]
    assert names == ["x", *(f"g={level}" for level in range(1, 1500))]
    model = LinearRegression(solver="cg").fit(read_table(path, target="y", one_hot="g"))
    assert list(model.feature_names_in_) == names
    assert model.score(out) == pytest.approx(1)
    # the last row has a level that the model does not know
    other = write(tmp_path / f"u{ending}", frame.assign(g=[*levels[:-1], 5000]))
    with pytest.raises(InputError, match="has the level '5000'"):
        model.predict(read_table(other, like=model))
    found = model.predict(read_table(other, like=model, unknown_levels="zeros"))
    X = np.column_stack([frame["x"], dummies])
    X[-1, 1:] = 0
    np.testing.assert_allclose(found, X @ model.coef_ + model.intercept_, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hash": "city:40"}, 'hash="city:40" must have 1 to 28 bits'),
        ({"hash": ["city", "city:8"]}, "names column 'city', which is hashed already"),
        (
            {"text": "zip", "ignore": ["city", "title", "level"]},
            "a column whose values are not numbers: zip (int64)",
        ),
        ({"hash": "town"}, "has no column 'town'"),
        ({"hash": "y"}, "column 'y' can be only one of"),
        ({"text": "title", "ngrams": "2:1"}, 'ngrams="2:1" must be a length from 1 to 20'),
        ({"hash": "city", "ngrams": "2"}, "ngrams is of columns of text"),
        ({"text": "title", "analyzer": "line"}, "analyzer='line'"),
    ],
)
def test_what_cannot_be_hashed_is_refused(frame, options, said):
    with pytest.raises(InputError) as error:
        read_table(frame, target="y", **options)
    assert said in error.value.args[0]


def test_a_damaged_hashing_is_no_schema():
    column = {"name": "c", "hashing": {"bits": 40}}
    with pytest.raises(ValueError, match="has hashing"):
        Schema.from_json({"version": 1, "columns": [column], "targets": []})


def test_memory_of_sparse_tables_does_not_grow_with_their_rows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("y,site\n" + "".join(f"{n % 7},site {n}\n" for n in range(3000)))
    dataset = open_dataset(read_table(path, target="y", hash="site"))
    # y is read in pieces, though a row of 2^20 columns would fill one
    assert len(dataset.y.grid) == 1
    # mapped pages would count as memory of the process
    for array in dataset.X.arrays:
        reader = array.open()
        assert not np.shares_memory(reader.read(0, 3000), array.array)
        reader.close()
