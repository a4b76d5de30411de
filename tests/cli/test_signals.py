"""Ctrl-C and SIGTERM during a pass of each command."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pytest
import zarr

# a pass takes longer than any test; the chunks are missing and read as zeros
ROWS = 10**9
DATA = ["data.zarr", "--missing-chunks", "fill", "--n-threads", "2"]
MODEL = ["--model", "model.json"]

# the command line, which prints a line after every block
PROGRAM = """
from functools import partial
from streamreg import cli, progress
progress.Lines = partial(progress.Lines, seconds_between=0)
cli.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    group = zarr.create_group(folder / "data.zarr")
    group.create_array("X", shape=(ROWS, 8), chunks=(10**5, 8), dtype="f8")
    group.create_array("y", shape=(ROWS,), chunks=(10**5,), dtype="f8")
    model = {
        "format": "streamreg-model",
        "version": 1,
        "one_target": True,
        "feature_names": None,
        "target_names": None,
        "details": {},
        "coefficients": [[1.0] * 8],
        "intercept": [0.0],
    }
    (folder / "model.json").write_text(json.dumps(model))
    row = ",".join(["0.123456789"] * 20)
    table = ",".join(f"c{j}" for j in range(20)) + f"\n{row}" * 1_000_000
    (folder / "table.csv").write_text(table)
    return folder


COMMANDS = {
    "closed form": ["fit", *DATA, "--out", "fitted.json"],
    "one thread": ["fit", *DATA, "--n-threads", "1", "--out", "fitted.json"],
    "cg": ["fit", *DATA, "--solver", "cg", "--out", "fitted.json"],
    "predict": ["predict", *DATA, *MODEL, "--out", "yhat.zarr"],
    "score": ["score", *DATA, *MODEL],
    "report": ["report", "model.json", *DATA, "--out", "report.html"],
    "first pass of ingest": ["ingest", "table.csv", "table.zarr", "--target", "c0"],
    "second pass of ingest": ["ingest", "table.csv", "table.zarr", "--target", "c0"],
}


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "streamreg: interrupted. "),
        (signal.SIGTERM, 143, "streamreg: terminated. "),
    ],
)
@pytest.mark.parametrize("case", COMMANDS)
def test_a_signal_ends_a_command_with_a_sentence_and_no_partial_output(
    case, number, code, says, folder
):
    before = sorted(folder.iterdir())
    assert len(before) == 3
    command = [sys.executable, "-c", PROGRAM, *COMMANDS[case]]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        # only the first pass of ingest does not know the number of rows
        line = r"ingest [\d,]+ rows" if case == "first pass of ingest" else r" of [\d,]+ rows"
        assert any(re.search(line, printed) for printed in process.stderr)
        process.send_signal(number)
        output, messages = process.communicate()
    assert process.returncode == code, messages
    assert (output, "Traceback" in messages) == ("", False)
    last = messages.strip().splitlines()[-1]
    if case == "predict":
        assert last.startswith(f"{says}What was written so far is kept in ")
        shutil.rmtree(folder / "yhat.zarr.partial")
    else:
        assert last == f"{says}Nothing was left half written"
    assert sorted(folder.iterdir()) == before
