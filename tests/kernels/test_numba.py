"""Numba that is interrupted, broken, switched off, or has a damaged cache: NumPy, or a sentence."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from streamreg.kernels import numba as numba_kernels

pytestmark = pytest.mark.skipif(not numba_kernels.is_installed(), reason="Numba is not installed")

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


def run(program, folder, **environment):
    program = textwrap.dedent(FIT) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60,
        check=False, env={"PATH": "", "NUMBA_CACHE_DIR": str(folder), **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_interrupt_while_numba_is_imported_breaks_no_later_fit(tmp_path):
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
    assert run(program, tmp_path) == ["interrupted", "[1.0, 2.0, 3.0]"]


@pytest.mark.parametrize("kind", [ImportError, OSError, AttributeError, SystemError])
def test_numba_that_cannot_be_imported_is_told_of_and_done_without(tmp_path, kind):
    (tmp_path / "numba").mkdir()
    broken = f"raise {kind.__name__}('Numba needs NumPy 1.0')"
    (tmp_path / "numba/__init__.py").write_text(broken)
    program = """
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit()
        print(*{str(warning.message) for warning in caught})
    """
    answer, said = run(program, tmp_path, PYTHONPATH=str(tmp_path))
    assert answer == "[1.0, 2.0, 3.0]"
    assert "Numba needs NumPy 1.0" in said
    assert "NumPy's loops serve" in said


def test_a_damaged_cache_is_done_without(tmp_path):
    run("fit()", tmp_path)
    kept = list(tmp_path.rglob("*.nb?"))
    assert kept
    for file in kept:
        file.write_bytes(file.read_bytes()[:10])
    assert run("fit()", tmp_path) == ["[1.0, 2.0, 3.0]"]


@pytest.mark.parametrize("value", ["1", "2"])
def test_numba_that_is_switched_off_is_not_used(tmp_path, value):
    assert run("print(numba_kernels.is_installed())", tmp_path, NUMBA_DISABLE_JIT=value) == [
        "False"
    ]
