"""Numba that is interrupted, broken, switched off, or has a damaged cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import streamreg
from streamreg.kernels import numba as numba_kernels

pytestmark = pytest.mark.skipif(not numba_kernels.is_installed(), reason="Numba is not installed")

PACKAGES = Path(streamreg.__file__).parents[1]
FIT = """
    import warnings
    import numpy as np
    from streamreg import LinearRegression
    from streamreg.kernels import numba as numba_kernels
    numba_kernels._WORTH_NBYTES = 0
    X = np.arange(600.0).reshape(200, 3) ** 2 % 7
    def fit():
        model = LinearRegression(solver="cg", memory_limit="1 GiB").fit(X, X @ [1, 2, 3])
        print(model.coef_.round(6).tolist())
"""
FITTED = "[1.0, 2.0, 3.0]"


def run(program, cache, *paths, **environment):
    """Run a program with its own cache of compiled kernels; return the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FIT) + textwrap.dedent(program)],
        env={
            "PATH": "",
            "NUMBA_CACHE_DIR": str(cache),
            "PYTHONPATH": os.pathsep.join(map(str, [*paths, PACKAGES])),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Return a folder with the compiled kernels; no test writes to it."""
    folder = tmp_path_factory.mktemp("compiled")
    assert run("fit()", folder) == [FITTED]
    return folder


def test_an_interrupt_while_numba_is_imported_breaks_no_later_fit(cache):
    program = """
        import os, signal, sys
        class Interrupt:
            def find_spec(self, name, path=None, target=None):
                if name == "numba.core.types":
                    sys.meta_path.remove(self)
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Interrupt())
        try:
            fit()
        except KeyboardInterrupt:
            print("interrupted")
        fit()
    """
    assert run(program, cache) == ["interrupted", FITTED]


@pytest.mark.parametrize("kind", [ImportError, OSError, AttributeError, SystemError])
def test_a_fit_warns_of_a_numba_that_cannot_be_imported_and_uses_numpy(tmp_path, kind):
    (tmp_path / "numba").mkdir()
    broken = f"raise {kind.__name__}('Numba needs NumPy 1.0')"
    (tmp_path / "numba/__init__.py").write_text(broken)
    program = """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit()
        print(*{str(warning.message) for warning in caught})
    """
    fitted, message = run(program, tmp_path, tmp_path)
    assert fitted == FITTED
    assert "Numba needs NumPy 1.0" in message
    assert "using the slower NumPy kernels" in message


def test_a_damaged_cache_is_ignored(cache, tmp_path):
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    # an index names the files of compiled code: one is damaged, and the code of another
    index = min(tmp_path.rglob("*.nbi"))
    code = max(tmp_path.rglob("*.nbc"))
    assert index.name.partition("-")[0] != code.name.partition("-")[0]
    for file in (index, code):
        file.write_bytes(file.read_bytes()[:10])
    assert run("fit()", tmp_path) == [FITTED]


@pytest.mark.parametrize("value", ["1", "2"])
def test_numba_that_is_switched_off_is_not_used(tmp_path, value):
    program = "print(numba_kernels.is_installed())"
    assert run(program, tmp_path, NUMBA_DISABLE_JIT=value) == ["False"]


def test_numba_is_turned_off_by_the_environment_of_the_running_process(monkeypatch):
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    assert numba_kernels.is_installed()
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert not numba_kernels.is_installed()
