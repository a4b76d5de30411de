"""The demo, as a user meets it: what it prints and what it writes."""

import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import zarr

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
    cells = table[solver]
    # a fit adds nothing if all it needs was freed by the one before it
    peak = 0 if cells["peak"] == "0 bytes" else parse_nbytes(cells["peak"])
    planned, limit = parse_nbytes(cells["planned"]), parse_nbytes(cells["limit"])
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
    assert float(re.search(r"R² (\S+)\n", done.stdout)[1]) == pytest.approx(r2, abs=1e-8)


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


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "kept").mkdir()
    done = demo("--keep", "kept", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        "streamreg: the system refused 'kept': File exists\n",
    )


def test_a_limit_that_no_solver_fits_is_refused(tmp_path):
    done = demo("--rows", "1000", "--features", "4", "--memory-limit", "1 MiB", cwd=tmp_path)
    assert done.returncode == 3
    assert "MemoryLimitError: " in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_the_demo_and_removes_its_files(number, code, says, tmp_path):
    with subprocess.Popen(
        [*COMMAND, "--rows", "1000000", "--features", "32"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert any(line.startswith("3. Fit") for line in process.stdout)
        process.send_signal(number)
        _, messages = process.communicate()
    assert process.returncode == code, messages
    assert messages.splitlines()[-1] == f"streamreg: {says}. Nothing was left half written"
    assert "Traceback" not in messages
    assert not list(tmp_path.iterdir())
