"""``gather``, ``merge``, and ``fit``, ``plan`` and ``info`` of what they write."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import zarr
from programs import run

from streamreg import LinearRegression, Statistics, load


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    y = X @ [1.0, -2.0, 0.5] + 4 + 0.1 * rng.standard_normal(300)
    frame = pd.DataFrame(np.column_stack([X, y]), columns=["a", "b", "c", "t"])
    frame.to_csv(tmp_path / "whole.csv", index=False)
    for month in range(3):
        rows = frame[month * 100 : (month + 1) * 100]
        rows.to_csv(tmp_path / f"{month}.csv", index=False)
    return tmp_path


@pytest.fixture
def gathered(folder):
    for month in range(3):
        done = run("gather", f"{month}.csv", "--target", "t", "--out", f"{month}.npz", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


def weights(folder, *arguments):
    done = run("fit", *arguments, "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return [document["intercept"], *document["coef"]]


def test_merged_months_are_the_fit_of_the_whole(gathered):
    done = run("merge", "0.npz", "1.npz", "2.npz", "--out", "year.npz", cwd=gathered)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "year.npz: statistics of 300 rows, 3 features, 1 target\n"
    for options in ([], ["--l2", "0.1"], ["--no-fit-intercept"]):
        found = weights(gathered, "year.npz", *options)
        expected = weights(gathered, "whole.csv", "--target", "t", *options)
        np.testing.assert_allclose(found, expected, rtol=1e-11)
    # the pieces stay
    assert Statistics.load(gathered / "0.npz").n_rows == 100


def test_a_model_of_statistics_predicts_raw_rows(gathered):
    done = run("fit", "0.npz", "--cov-type", "nonrobust", "--out", "model.json", cwd=gathered)
    assert done.returncode == 0, done.stderr
    assert "qr" not in done.stdout
    assert "std err" in done.stdout
    assert list(load(gathered / "model.json").feature_names_in_) == ["a", "b", "c"]
    scored = run("score", "2.csv", "--model", "model.json", cwd=gathered)
    assert scored.stdout.startswith("R² 0.99")


def test_penalties_are_chosen_without_rows(gathered):
    options = ["--cv", "gcv", "--l2", "1e-6:1:5", "--json"]
    done = run("fit", "0.npz", *options, cwd=gathered)
    assert done.returncode == 0, done.stderr
    rows = run("fit", "0.csv", "--target", "t", *options, cwd=gathered)
    found, expected = json.loads(done.stdout), json.loads(rows.stdout)
    np.testing.assert_allclose(found["cv_scores"], expected["cv_scores"], rtol=1e-9)
    assert found["l2"] == expected["l2"]
    for command in ("fit", "plan"):
        refused = run(command, "0.npz", "--cv", "5", cwd=gathered)
        assert refused.returncode == 2
        assert "--cv divides rows into folds" in refused.stderr


def test_data_sets_are_gathered_with_weights(folder):
    rng = np.random.default_rng(0)
    group = zarr.create_group(folder / "d.zarr")
    for name, values in {"X": rng.standard_normal((50, 2)), "y": np.arange(50.0)}.items():
        group.create_array(name, data=values)
    group.create_array("sample_weight", data=np.arange(50.0))
    options = ["--kind", "qr", "--out", "s.npz", "--json", "--memory-limit", "1 GiB"]
    done = run("gather", "d.zarr", *options, cwd=folder)
    document = json.loads(done.stdout)
    assert document["path"] == "s.npz"
    assert (document["kind"], document["n_counted"], document["weight_sum"]) == ("qr", 49, 1225.0)
    assert Statistics.load(folder / "s.npz").pieces[0].n_rows == 50


def test_info_and_plan_read_no_sums(gathered):
    shown = run("info", "1.npz", cwd=gathered)
    assert shown.returncode == 0
    assert "statistics of kind gram: 100 rows, 3 features, 1 target" in shown.stdout
    assert "features: a, b, c" in shown.stdout
    assert "made of 1.csv: 100 rows" in shown.stdout
    document = json.loads(run("info", "1.npz", "--json", cwd=gathered).stdout)
    assert document["pieces"] == [["1.csv", 100]]
    planned = run("plan", "1.npz", cwd=gathered)
    assert planned.returncode == 0
    assert "closed_form ←" in planned.stdout
    assert "no rows are read" in planned.stdout


@pytest.mark.parametrize("command", ["gather", "merge"])
def test_an_existing_file_is_never_replaced_silently(gathered, command):
    arguments = {"gather": ["0.csv", "--target", "t"], "merge": ["1.npz", "2.npz"]}[command]
    before = (gathered / "0.npz").read_bytes()
    done = run(command, *arguments, "--out", "0.npz", cwd=gathered)
    assert done.returncode == 2
    assert "--out 0.npz exists; pass --overwrite to replace it" in done.stderr
    assert (gathered / "0.npz").read_bytes() == before
    assert run(command, *arguments, "--out", "0.npz", "--overwrite", cwd=gathered).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit", "0.npz", "--solver", "cg"], 2, "--solver closed_form, or fit the data"),
        (["fit", "0.npz", "--cov-type", "HC1"], 2, "pass --cov-type nonrobust"),
        (["fit", "0.npz", "--y", "y.zarr"], 2, "--y is of rows, and 0.npz holds statistics"),
        (["fit", "0.npz", "--target", "t"], 2, "--target is of a table"),
        (["fit", "0.npz", "--memory-limit", "1 MiB"], 3, "Raise --memory-limit to 3."),
        (["fit", "absent.npz"], 2, "there is no file of statistics at 'absent.npz'"),
        (["fit", "damaged.npz"], 2, "'damaged.npz' holds no statistics of streamreg"),
        (["info", "damaged.npz"], 2, "'damaged.npz' holds no statistics of streamreg"),
        (["gather", "0.csv", "--target", "t", "--out", "s.json"], 2, "must end in .npz"),
        (["gather", "0.csv", "--target", "t", "--out", "no/s.npz"], 2, "has no folder"),
        (["merge", "0.npz", "qr.npz", "--out", "s.npz"], 2, "the second is qr.npz"),
        (["merge", "0.npz", "other.npz", "--out", "s.npz"], 2, "column 0 is 'a'"),
        (["merge", "0.npz", "damaged.npz", "--out", "s.npz"], 2, "'damaged.npz' holds no"),
        (["merge", "0.npz", "1.npz", "--out", "s.npz", "--memory-limit", "99"], 3, "two states"),
        (["predict", "0.npz", "--model", "m.npz", "--out", "p.zarr"], 2, "statistics, not rows"),
        (["predict", "--x", "0.npz", "--model", "m.npz", "--out", "p.zarr"], 2, "not rows"),
        (["score", "0.npz", "--model", "m.npz"], 2, "`streamreg fit 0.npz` fits them"),
        (["score", "0.csv", "--model", "0.npz"], 2, "'0.npz' holds statistics, not a model"),
        (["score", "m.npz", "--model", "m.npz"], 2, "holds a model, not rows: pass it as --model"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(gathered, arguments, code, message):
    (gathered / "damaged.npz").write_bytes((gathered / "0.npz").read_bytes()[:-100])
    statistics = Statistics.load(gathered / "0.npz")
    statistics.select(["b", "a", "c"]).save(gathered / "other.npz")
    root = Statistics.of(np.eye(9, 3), np.arange(9.0), kind="qr")
    root.save(gathered / "qr.npz")
    LinearRegression().fit(statistics).save(gathered / "m.npz")
    done = run(*arguments, cwd=gathered)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (gathered / "s.npz").exists()
