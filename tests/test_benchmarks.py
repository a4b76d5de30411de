"""Every benchmark runs with ``--quick``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if path.stem not in {"harness", "gpu"}]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_benchmark_runs_quickly(script, tmp_path):
    done = subprocess.run(
        [sys.executable, script, "--quick"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert script.stem in done.stdout


def test_the_gpu_benchmark_runs_quickly_on_a_fake_gpu(tmp_path):
    script, tests = FOLDER / "gpu.py", Path(__file__).parent / "support"
    program = f"""
import runpy, sys
sys.path[:0] = [{str(FOLDER)!r}, {str(tests)!r}]
import pytest
from fake_cupy import FakeCuPy, install
from streamreg.gpu import fused_gram, fused_products
install(pytest.MonkeyPatch(), FakeCuPy())
fused_products.launches_for, fused_gram.TYPES = lambda _: [], ()  # it compiles nothing
sys.argv = [{str(script)!r}, "--quick"]
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(f"gpu_{name}" in done.stdout for name in ("answers", "passes", "gram", "peers"))


def test_the_gpu_benchmark_says_what_it_needs(tmp_path):
    done = subprocess.run(
        [sys.executable, FOLDER / "gpu.py"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert 'device="cuda"' in done.stderr
