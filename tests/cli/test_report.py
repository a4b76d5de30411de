"""``streamreg report``: its page, its exit codes and what it refuses before it reads rows."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from programs import run
from sklearn.metrics import r2_score, root_mean_squared_error

from streamreg import LinearRegression
from streamreg.model import Model


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((2000, 3)), np.array([[1.0, -2.0], [0.5, 3.0], [4.0, 1.0]])
    group = zarr.create_group(tmp_path / "data.zarr")
    group.create_array("X", data=X, chunks=(500, 3))
    group.create_array("y", data=X @ w + rng.standard_normal((2000, 2)), chunks=(500, 2))
    group.attrs.update(feature_names=["a", "b", "c"], target_names=["p", "q"])
    LinearRegression(n_threads=1).fit(tmp_path / "data.zarr").save(tmp_path / "model.json")
    return tmp_path


def report(folder, *arguments):
    return run("report", "model.json", *arguments, "--out", "report.html", cwd=folder)


def values(folder):
    """Return all exact values of the page."""
    text = (folder / "report.html").read_text("utf-8")
    return [float(value) for value in re.findall('<data value="([^"]*)"', text)]


def test_a_page_has_the_model_and_its_residuals(folder):
    done = report(folder, "data.zarr", "--target", "q", "--json")
    assert done.returncode == 0, done.stderr
    found = values(folder)
    model = Model.load(folder / "model.json")
    for value in [model.intercept[1], *model.coefficients[1]]:
        assert value in found
    group = zarr.open_group(folder / "data.zarr", mode="r")
    y, predicted = group["y"][:], group["X"][:] @ model.coefficients.T + model.intercept
    document = json.loads(done.stdout)
    for name, measure in (("r2", r2_score), ("rmse", root_mean_squared_error)):
        (of_target,) = document[name]
        # 2,000 squares are added in another order
        assert of_target == pytest.approx(measure(y[:, 1], predicted[:, 1]), rel=1e-12)
        assert of_target in found


def test_a_page_of_a_model_alone_reads_no_rows(folder):
    done = report(folder)
    assert (done.returncode, done.stdout) == (0, "report written to report.html\n")
    assert "Residuals need rows" in (folder / "report.html").read_text("utf-8")


def test_a_target_may_be_a_number(folder):
    report(folder, "--target", "1")
    assert "q, of 2 targets" in (folder / "report.html").read_text("utf-8")


def test_rows_may_be_given_as_two_arrays(folder):
    done = report(folder, "--x", "data.zarr/X", "--y", "data.zarr/y")
    assert done.returncode == 0, done.stderr
    assert "R² on DATA" in (folder / "report.html").read_text("utf-8")


def test_rows_with_nan_are_left_out_and_counted_on_the_page(folder):
    zarr.open_array(folder / "data.zarr" / "X")[7, 1] = np.nan
    assert report(folder, "data.zarr").returncode == 2
    done = report(folder, "data.zarr", "--nan-policy", "omit")
    assert done.returncode == 0
    assert "1 of 2,000 rows" in done.stderr
    assert "1 of 2,000 rows" in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "r"], 2, "--target r is not a target of the model; it has 'p', 'q'"),
        (["--target", "2"], 2, "--target 2 is not a target"),
        (["--y", "data.zarr/y"], 2, "name the data once"),
        (["absent.zarr"], 2, "absent.zarr"),
        (["data.zarr", "--memory-limit", "1 MiB"], 3, "no data was read"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_nothing_is_written(folder, arguments, code, message):
    done = report(folder, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert not (folder / "report.html").exists()


def test_a_page_is_replaced_only_if_asked(folder):
    page = folder / "report.html"
    page.write_text("mine")
    done = report(folder)
    assert (done.returncode, page.read_text()) == (2, "mine")
    assert "--overwrite to replace it" in done.stderr
    assert report(folder, "--overwrite").returncode == 0
    assert page.read_text("utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("out", "message"),
    [("report.pdf", "must end in .html"), ("absent/report.html", "create 'absent'")],
)
def test_a_file_that_cannot_be_written_is_refused(folder, out, message):
    done = run("report", "model.json", "--out", out, cwd=folder)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_without_the_extra_the_message_says_how_to_install_it(folder, monkeypatch, library):
    for module in [name for name in sys.modules if name.startswith("streamreg.report")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    done = report(folder)
    assert done.returncode == 2
    assert f'report needs {library}: pip install "streamreg[plot]"' in done.stderr
    assert not Path(folder / "report.html").exists()
