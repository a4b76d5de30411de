"""Ctrl-C and SIGTERM during a pass of each command."""

import json
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import zarr

# a pass takes longer than any test; the chunks are missing and read as zeros
ROWS = 10**9
DATA = ["data.zarr", "--missing-chunks", "fill", "--n-threads", "2"]
MODEL = ["--model", "model.json"]


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
    "first pass of ingest": ["ingest", "table.csv", "table.zarr", "--target", "c0"],
    "second pass of ingest": ["ingest", "table.csv", "table.zarr", "--target", "c0"],
}


def wait_until_busy(case, process, folder):
    """Wait for the first line of progress, for output being written, or for input being read."""
    partial = {"predict": "yhat.zarr.partial", "second pass of ingest": "table.zarr.partial"}
    if case in partial:
        wait_until(process, (folder / partial[case]).exists)
    elif case == "first pass of ingest":
        table = str(folder / "table.csv")
        files = psutil.Process(process.pid).open_files
        wait_until(process, lambda: table in {file.path for file in files()})
    else:
        assert b" rows  " in process.stderr.readline()


def wait_until(process, holds):
    """Poll, because another process sends no events."""
    while process.poll() is None and not holds():
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [
        (signal.SIGINT, 130, "streamreg: interrupted; "),
        (signal.SIGTERM, 143, "streamreg: terminated; "),
    ],
)
@pytest.mark.parametrize("case", COMMANDS)
def test_a_signal_ends_a_command_with_a_sentence_and_no_partial_output(
    case, number, code, says, folder
):
    before = sorted(folder.iterdir())
    assert len(before) == 3
    command = [sys.executable, "-m", "streamreg", *COMMANDS[case]]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_until_busy(case, process, folder)
        process.send_signal(number)
        # a block takes milliseconds, on a busy machine seconds
        output, messages = process.communicate(timeout=5)
    assert process.returncode == code, messages
    assert (output, b"Traceback" in messages) == (b"", False)
    last = messages.decode().strip().splitlines()[-1]
    if case == "predict":
        assert last.startswith(f"{says}what was written so far is kept in ")
        shutil.rmtree(folder / "yhat.zarr.partial")
    else:
        assert last == f"{says}nothing was left half written"
    assert sorted(folder.iterdir()) == before
