"""Every example runs, in a new process and an empty folder."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("[0-9]*.py"))
SAYS = {
    "01_flights": "336,776 flights",
    "02_hundred_thousand_features": "XᵀX        74.5 GiB",
    "03_custom_accumulator": "[0.   0.25 0.5  0.75 1.  ]",
    "07_encoding_model": "D = 8,192, K = 94,251, memory limit 12.0 GiB",
    "04_cluster_job": "bitwise identical to the undisturbed fit: True",
    "05_hashed_text": "1,048,576 features",
    "06_single_cells": "R² 0.84",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example, tmp_path):
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[example.stem] in done.stdout
    assert not list(tmp_path.iterdir())
