"""The demo, as a user meets it and with fits and predictions that are wrong."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import zarr

from streamreg.cli import demo_fit
from streamreg.cli.demo_checks import Run, Truth, fit_doubts, prediction_doubts, r2_on_disk
from streamreg.cli.demo_fit import fit_apart
from streamreg.config import FitConfig
from streamreg.errors import InputError, StreamregError
from streamreg.formatting import MIB
from streamreg.model import Model

TRUTH = Truth(np.array([1.0, -200.0]), np.array([1.0, 0.01]), 0.95)


def demo(*arguments, cwd):
    command = [sys.executable, "-m", "streamreg", "demo", "--memory-limit", "128 MiB", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_it_runs_small_and_cleans_up(tmp_path):
    done = demo("--rows", "20000", "--features", "16", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for solver in ("closed_form", "gd", "cg"):
        assert solver in done.stdout
    assert "74.5 GiB" in done.stdout
    assert "predict 20,000 of 20,000 rows" in done.stderr
    assert not list(tmp_path.iterdir())


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_fit_whose_process_is_killed_is_told_of(monkeypatch):
    monkeypatch.setattr(demo_fit, "_fit", killed)
    with pytest.raises(StreamregError, match="fits by cg ended with code -9"):
        fit_apart(None, FitConfig.parse(solver="cg"), progress=False)


def test_what_a_fit_raises_in_its_process_is_raised_here(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        fit_apart(tmp_path / "nowhere.zarr", FitConfig.parse(solver="cg"), progress=False)


def test_it_keeps_what_it_is_told_to(tmp_path):
    done = demo(
        "--rows", "1000", "--features", "4", "--keep", "kept", "--no-progress", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert {"data.zarr", "predictions.zarr"} <= names


def test_too_few_rows_to_agree_on_are_refused(tmp_path):
    done = demo("--rows", "100", "--features", "16", cwd=tmp_path)
    assert (done.returncode, "--rows 100 are too few" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())


SPOILED = """
import sys
from streamreg.cli import demo, main
demo.r2_on_disk = lambda *_: 0.5
main(["demo", "--rows", "1000", "--features", "4", "--memory-limit", "128 MiB", "--no-progress"])
"""


def test_what_is_wrong_is_said_and_the_exit_code_is_1(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SPOILED], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "the demo went wrong: the predictions on disk have R² 0.500000, but" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def run(*weights, peak=MIB, planned=2 * MIB):
    return Run(Model(np.array([weights], float), np.zeros(1)), 1, 0.1, peak, planned)


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({"closed_form": run(1, -200), "gd": run(1.00015, -200), "cg": run(1, -200.0000001)}, []),
        ({"closed_form": run(1, -200), "gd": run(1, -200.05)}, ["gd are 2.5e-04 from those of"]),
        ({"closed_form": run(1, -200), "cg": run(1 + 4e-9, -200)}, ["cg are 2.0e-09 from"]),
        ({"closed_form": run(1, -200), "cg": run(np.nan, -200)}, ["cg are nan from"]),
        # without a closed form: as exact as gd is
        ({"gd": run(1, -200), "cg": run(1.0001, -200)}, []),
        ({"gd": run(1, -200), "cg": run(1.001, -200)}, ["cg are 5.0e-04 from those of gd"]),
        (
            {"closed_form": run(1, -200, peak=3 * MIB), "gd": run(1, 0, peak=3 * MIB)},
            [
                "closed_form added 3.0 MiB of memory, more than the 2.0",
                "gd are 1.0e+00",
                "gd added",
            ],
        ),
    ],
)
def test_solvers_must_agree_and_keep_to_their_plans(runs, said):
    doubts = list(fit_doubts(runs, TRUTH))
    assert len(doubts) == len(said)
    for doubt, part in zip(doubts, said, strict=True):
        assert part in doubt


@pytest.mark.parametrize(
    ("on_disk", "scored", "said"),
    [
        (0.9501, 0.9501, []),
        (0.9499, 0.9499, ["less than the 0.950000"]),
        (0.96, 0.9600001, ["score says"]),
        (np.nan, 0.96, ["score says", "less than"]),
    ],
)
def test_predictions_must_explain_what_the_noise_leaves(on_disk, scored, said):
    doubts = list(prediction_doubts(on_disk, scored, TRUTH))
    assert len(doubts) == len(said)
    for doubt, part in zip(doubts, said, strict=True):
        assert part in doubt


@pytest.mark.parametrize("damage", [0.0, np.nan])
def test_r2_is_that_of_the_values_on_disk(damage, tmp_path):
    rng = np.random.default_rng(0)
    y = 10 + rng.standard_normal(1000)
    made = y + 0.3 * rng.standard_normal(1000)
    made[777] += damage
    for name, values in (("y", y), ("made", made)):
        zarr.create_array(tmp_path / name, data=values, chunks=(300,))
    expected = 1 - np.sum((y - made) ** 2) / np.sum((y - y.mean()) ** 2)
    r2 = r2_on_disk(tmp_path / "made", tmp_path / "y", level=10.0)
    assert r2 == pytest.approx(expected, abs=1e-12, nan_ok=True)
