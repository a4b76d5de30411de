"""The demo, as a user meets it: what it prints and what it writes."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import zarr

from streamreg.cli import demo_fit
from streamreg.cli.demo_fit import fit_in_process
from streamreg.config import FitConfig
from streamreg.errors import InputError, StreamregError
from streamreg.validate import parse_nbytes

COMMAND = [sys.executable, "-m", "streamreg", "demo", "--memory-limit", "128 MiB"]


def demo(*arguments, cwd):
    command = [*COMMAND, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Run the demo once and return its output and the folder that it keeps."""
    folder = tmp_path_factory.mktemp("demo")
    done = demo("--rows", "20000", "--features", "16", "--keep", "kept", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done, folder / "kept"


@pytest.fixture(scope="module")
def table(kept):
    """Return the cells of the table that compares the solvers, by solver."""
    lines = [re.split(r"  +", line.strip()) for line in kept[0].stdout.splitlines()]
    headings = next(line for line in lines if line[:2] == ["solver", "epochs"])
    rows = [line for line in lines if len(line) == len(headings) and line != headings]
    return {row[0]: dict(zip(headings, row, strict=True)) for row in rows if row[2].endswith(" s")}


# the demo says that gd agrees to four digits and cg to nine
@pytest.mark.parametrize(("solver", "most"), [("closed_form", 0), ("gd", 1e-4), ("cg", 1e-9)])
def test_the_solvers_agree(solver, most, table):
    assert float(table[solver]["from first"]) <= most


# with 20,000 rows and noise of deviation 1 the weights are known to two digits
@pytest.mark.parametrize("solver", ["closed_form", "gd", "cg"])
def test_the_weights_are_close_to_those_that_generated_the_data(solver, table):
    assert float(table[solver]["from truth"]) < 0.05


@pytest.mark.parametrize("solver", ["closed_form", "gd", "cg"])
def test_no_solver_takes_more_memory_than_planned_and_allowed(solver, table):
    peak, planned, limit = (
        parse_nbytes(table[solver][heading]) for heading in ("peak", "planned", "limit")
    )
    assert peak <= planned <= limit == parse_nbytes("128 MiB")


def test_predictions_are_those_of_least_squares(kept):
    done, folder = kept
    data = zarr.open_group(folder / "data.zarr", mode="r")
    X, y = data["X"][:], data["y"][:]
    predictions = zarr.open_array(folder / "predictions.zarr", mode="r")[:]
    with_ones = np.column_stack([X, np.ones(len(X))])
    expected = with_ones @ np.linalg.lstsq(with_ones, y, rcond=None)[0]
    np.testing.assert_allclose(predictions, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    r2 = 1 - np.sum((y - expected) ** 2) / np.sum((y - y.mean()) ** 2)
    assert f"R² {r2:.6f}\n" in done.stdout


def test_the_closed_form_of_wide_data_is_refused(kept):
    # XᵀX alone has 100,000² values of 8 bytes, 74.5 GiB
    assert re.search(
        r"closed_form needs 74\.\d GiB but --memory-limit is 128\.0 MiB", kept[0].stdout
    )


def test_progress_is_on_standard_error(kept):
    assert "predict 20,000 of 20,000 rows" in kept[0].stderr


def test_without_keep_no_file_is_left(tmp_path):
    done = demo("--rows", "1000", "--features", "4", "--no-progress", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(tmp_path.iterdir())


def test_fewer_than_ten_rows_for_each_feature_are_refused(tmp_path):
    done = demo("--rows", "100", "--features", "16", cwd=tmp_path)
    assert (done.returncode, "--rows 100 are too few" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_fit_is_reported_in_a_sentence(monkeypatch):
    monkeypatch.setattr(demo_fit, "_fit", killed)
    with pytest.raises(StreamregError, match="the process that fits by cg was killed") as caught:
        fit_in_process(None, FitConfig.parse(solver="cg"), progress=False)
    assert "pass a lower --memory-limit" in caught.value.args[0].for_command_line()


def test_an_error_of_the_fit_is_raised_in_the_calling_process(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        fit_in_process(tmp_path / "nowhere.zarr", FitConfig.parse(solver="cg"), progress=False)


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_the_demo_and_its_fit(number, code, says, tmp_path):
    with subprocess.Popen(
        [*COMMAND, "--rows", "1000000", "--features", "32"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        children = []
        # the fits follow the plan, each in a child beside the tracker of multiprocessing
        while not children and process.poll() is None:
            children = [
                child
                for child in psutil.Process(process.pid).children()
                if "spawn_main" in " ".join(child.cmdline())
            ]
            time.sleep(0.01)
        process.send_signal(number)
        _, messages = process.communicate(timeout=20)
    assert process.returncode == code, messages
    assert messages.splitlines()[-1] == f"streamreg: {says}; nothing was left half written"
    assert "Traceback" not in messages
    assert not any(child.is_running() for child in children)
    assert not list(tmp_path.iterdir())
