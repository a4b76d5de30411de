"""``fit --cv``: penalties as lists and ranges, the result, and its report."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from programs import run

from streamreg import LinearRegressionCV


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("penalties")
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    Y = X @ rng.standard_normal((3, 2)) + 4 * rng.standard_normal((200, 2))
    group = zarr.create_group(folder / "data.zarr")
    group.create_array("X", data=X)
    group.create_array("y", data=Y)
    group.create_array("g", data=np.arange(200) // 9)
    group.attrs["target_names"] = ["height", "width"]
    return folder


def fitted(folder, *options):
    done = run("fit", "data.zarr", "--json", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (["--cv", "5", "--l2", "1e-8:1e2:25"], {"cv": 5, "l2": np.geomspace(1e-8, 1e2, 25)}),
        (["--cv", "4", "--l2", "0,0.1,1,1000"], {"cv": 4, "l2": [0, 0.1, 1, 1000]}),
        (["--cv", "gcv"], {}),
        (["--cv", "3", "--l2-per-target"], {"cv": 3, "l2_per_target": True}),
        (["--cv", "3", "--one-standard-error"], {"cv": 3, "one_standard_error": True}),
    ],
)
def test_the_command_fits_as_python_does(options, parameters, folder):
    found = fitted(folder, *options)
    model = LinearRegressionCV(**parameters).fit(folder / "data.zarr")
    for name in ("l2", "l2s", "cv_scores", "best_score"):
        np.testing.assert_array_equal(found[name], getattr(model, f"{name}_"))
    np.testing.assert_array_equal(found["coef"], model.coef_)


def test_groups_make_folds(folder):
    path = str(folder / "data.zarr")
    found = fitted(folder, "--cv", "3", "--groups", f"{path}/g")
    model = LinearRegressionCV(cv=3).fit(path, groups=f"{path}/g")
    np.testing.assert_array_equal(found["cv_scores"], model.cv_scores_)


def test_the_table_and_the_report_say_which_penalty_is_best(folder):
    options = ["--cv", "5", "--l2", "0.001:100:6", "--l2-per-target", "--out", "model.json"]
    done = run("fit", "data.zarr", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    model = LinearRegressionCV(l2=np.geomspace(0.001, 100, 6), cv=5, l2_per_target=True)
    model.fit(folder / "data.zarr")
    assert "best of 6 penalties from 0.001 to 100, by 5 folds:" in done.stdout
    for name, l2 in zip(["height", "width"], model.l2_, strict=True):
        assert f"{name} {l2:>9.6g}".split() in [
            line.split()[:2] for line in done.stdout.split("\n")
        ]
    done = run("report", "model.json", "--out", "r.html", "--target", "width", cwd=folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "r.html").read_text("utf-8")
    assert f"Mean squared error of 6 penalties, in 5 folds: best at {model.l2_[1]:.6g}" in page
    assert f'<data value="{float(model.l2_[1])!r}">' in page


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--l2", "1:2:3"], "--l2 1:2:3 is a list of penalties"),
        (["--l2", "1,2"], "pass --cv"),
        (["--l2", "x"], "--l2 x must be a number"),
        (["--cv", "5", "--l2", "2:1:3"], "0 < FIRST < LAST"),
        (["--cv", "many"], "must be a whole number"),
        (["--l2-per-target"], "pass --cv 5 too"),
        (["--cv", "2", "--solver", "gd"], "pass --solver closed_form"),
        (["--cv", "2", "--cov-type", "HC0"], "leave it out"),
    ],
)
def test_what_chooses_no_penalty_is_refused(options, why, folder):
    done = run("fit", "data.zarr", *options, cwd=folder)
    assert done.returncode == 2
    assert why in done.stderr


def test_a_refusal_offers_options_of_the_command_line(folder):
    done = run("fit", "data.zarr", "--cv", "5", "--memory-limit", "100 KiB", cwd=folder)
    assert done.returncode == 3
    assert "Raise --memory-limit" in done.stderr
