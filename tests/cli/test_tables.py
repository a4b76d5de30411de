"""Tables on the command line: fitted, scored and predicted without a step between."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import programs
import pytest
from problems import flights_csv
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression as Sklearn
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

USED = ["dep_delay", "air_time", "distance", "carrier", "origin", "arr_delay"]


def run(*arguments, cwd, code=0, stdin=None):
    if stdin is None:
        done = programs.run(*arguments, cwd=cwd)
    else:
        command = [sys.executable, "-m", "streamreg", *arguments]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, input=stdin, check=False
        )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def flights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights")
    frame = pd.read_csv(flights_csv(folder), usecols=[*USED, "month"])[::10].dropna()
    early = frame.month <= 6
    frame[early][USED].to_csv(folder / "train.csv", index=False)
    later = frame[~early & frame.carrier.isin(frame[early].carrier)]
    shuffled = [*sorted(USED[:-1], reverse=True)]
    later[shuffled].to_csv(folder / "new.csv", index=False)
    later.to_parquet(folder / "scored.parquet")
    return folder, frame[early], later


def test_predictions_of_other_months_are_those_of_a_pipeline_of_sklearn(flights):
    folder, train, later = flights
    one_hot = ["--one-hot", "carrier", "--one-hot", "origin"]
    run("fit", "train.csv", "--target", "arr_delay", *one_hot,
        "--out", "m.json", "--no-progress", cwd=folder)  # fmt: skip
    run("predict", "new.csv", "--model", "m.json", "--out", "p.parquet",
        "--no-progress", cwd=folder)  # fmt: skip
    done = run("score", "scored.parquet", "--model", "m.json", "--json", "--no-progress",
               cwd=folder)  # fmt: skip
    encoder = OneHotEncoder(drop="first", sparse_output=False)
    columns = make_column_transformer((encoder, ["carrier", "origin"]), remainder="passthrough")
    expected = make_pipeline(columns, Sklearn()).fit(train[USED[:-1]], train.arr_delay)
    predicted = pd.read_parquet(folder / "p.parquet")["arr_delay"]
    np.testing.assert_allclose(predicted, expected.predict(later[USED[:-1]]), atol=1e-9)
    r2 = expected.score(later[USED[:-1]], later.arr_delay)
    assert json.loads(done.stdout)["r2"] == pytest.approx(r2, abs=1e-9)


def test_a_report_reads_raw_rows_by_the_schema_of_the_model(tmp_path):
    train = pd.DataFrame(
        {"x": [1.5, 2, 3, 4, 5, 6.5], "c": list("ABCABC"), "y": [1, 5, 9, 2, 8, 4.0]}
    )
    train.to_csv(tmp_path / "train.csv", index=False)
    run("fit", "train.csv", "--target", "y", "--one-hot", "c", "--out", "m.json", cwd=tmp_path)
    new = train[["y", "c", "x"]][::-1]
    new.to_csv(tmp_path / "new.csv", index=False)
    done = run("report", "m.json", "new.csv", "--out", "r.html", "--json", cwd=tmp_path)
    X = np.column_stack([train.x, train.c == "B", train.c == "C"])
    expected = Sklearn().fit(X, train.y).score(X, train.y)
    assert np.ravel(json.loads(done.stdout)["r2"]) == pytest.approx([expected], abs=1e-12)


def test_a_table_that_is_no_data_set_is_refused_in_words_of_the_command_line(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,2\n")
    for arguments in (["info", "t.csv"], ["fit", "--x", "t.csv", "--y", "t.csv"]):
        done = run(*arguments, cwd=tmp_path, code=2)
        assert "t.csv is a table: write it as a data set with `streamreg ingest`" in done.stderr


def test_ingest_like_a_data_set_or_a_model(tmp_path):
    train = pd.DataFrame({"x": [1.5, 2, 3, 4, 5, 6], "c": list("ABCABC")})
    train["y"] = 2 * train.x + train.c.map({"A": 0, "B": 10, "C": 20})
    train.to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame({"c": ["B", "C"], "x": [7.0, 8]}).to_csv(tmp_path / "new.csv", index=False)
    run("ingest", "train.csv", "d.zarr", "--target", "y", "--one-hot", "c", cwd=tmp_path)
    run("fit", "d.zarr", "--out", "m.json", cwd=tmp_path)
    for like in ("d.zarr", "m.json"):
        done = run("ingest", "new.csv", f"new-{like}", "--like", like, cwd=tmp_path)
        assert "target none" in done.stdout
        out = f"{like}.csv"
        run("predict", f"new-{like}", "--model", "m.json", "--out", out, cwd=tmp_path)
        assert pd.read_csv(tmp_path / out)["y"].tolist() == pytest.approx([24, 36])


def test_a_table_comes_from_standard_input(tmp_path):
    text = "a,y\n1,2\n2,4\n4,8\n"
    done = run("fit", "/dev/stdin", "--target", "y", "--json", "--no-progress",
               cwd=tmp_path, stdin=text)  # fmt: skip
    assert json.loads(done.stdout)["coef"] == pytest.approx([2])


def test_a_plan_of_many_passes_over_a_table_says_that_ingesting_pays(tmp_path):
    pd.DataFrame({"x": [1.5, 2, 4], "y": [2.0, 3, 5]}).to_parquet(tmp_path / "t.parquet")
    said = run("plan", "t.parquet", "--target", "y", "--solver", "cg", cwd=tmp_path).stderr
    assert "cg takes about" in said
    assert "`streamreg ingest` it first" in said


def test_options_of_tables_are_refused_for_data_sets_and_in_the_words_of_the_shell(tmp_path):
    (tmp_path / "t.csv").write_text("a;y\n1,5;2\n?;4\n4;8\n")
    said = run("fit", "t.csv", "--target", "y", cwd=tmp_path, code=2).stderr
    assert "pass --delimiter ';'" in said
    european = ["--delimiter", ";", "--decimal", ","]
    said = run("fit", "t.csv", "--target", "y", *european, cwd=tmp_path, code=2).stderr
    assert "Pass --missing '?'" in said
    command = ["ingest", "t.csv", "d.zarr", "--target", "y", "--missing", "?", *european]
    run(*command, "--drop-missing", cwd=tmp_path)
    said = run("fit", "d.zarr", "--one-hot", "a", cwd=tmp_path, code=2).stderr
    assert "--one-hot is of a table" in said
    fit = ["fit", "t.csv", "--target", "y", "--missing", "?", *european, "--json"]
    fitted = json.loads(run(*fit, "--nan-policy", "omit", cwd=tmp_path).stdout)
    assert fitted["rows_omitted"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["fit", "absent.csv", "--target", "y"], 2, "InputError"),
        (["fit", "t.csv", "--target", "y", "--memory-limit", "1 MiB"], 3, "MemoryLimitError"),
        (["fit", "t.csv", "--nonsense"], 2, "NoSuchOption"),
    ],
)
def test_a_failure_is_one_json_document_too(arguments, code, error, tmp_path):
    pd.DataFrame({"x": [1.5, 2, 4], "y": [2.0, 3, 5]}).to_csv(tmp_path / "t.csv", index=False)
    done = run(*arguments, "--json", "--no-progress", cwd=tmp_path, code=code)
    document = json.loads(done.stdout)
    assert (document["error"], document["exit_code"]) == (error, code)
    assert document["message"]


def test_a_failure_after_another_command_of_the_same_process_is_a_json_document(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,2\n2,3\n4,5\n")
    for data, code in (("t.csv", 0), ("absent.csv", 2)):
        done = run("plan", data, "--target", "y", "--json", cwd=tmp_path, code=code)
        assert isinstance(json.loads(done.stdout), dict)


def test_a_plan_that_does_not_fit_is_one_json_document(tmp_path):
    pd.DataFrame({"x": [1.5, 2, 4], "y": [2.0, 3, 5]}).to_csv(tmp_path / "t.csv", index=False)
    plan = ["plan", "t.csv", "--target", "y", "--memory-limit", "1 MiB", "--json"]
    assert "candidates" in json.loads(run(*plan, cwd=tmp_path, code=3).stdout)
