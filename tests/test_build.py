"""Wheels: with compiled kernels where a C compiler is found, and pure Python where none works."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from streamreg.formatting import MIB
from streamreg.kernels import library

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    not (ROOT / "hatch_build.py").exists(), reason="the tests run without the source tree"
)
SOURCES = ("streamreg", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE")
FIT = """
import json
import numpy as np
import streamreg
from streamreg.kernels.registry import best_kernels
X = np.random.default_rng(0).standard_normal((1000, 3))
model = streamreg.LinearRegression(solver="cg").fit(X, X @ [1.0, 2.0, 3.0])
print(json.dumps([streamreg.__file__, best_kernels(), model.coef_.round(6).tolist()]))
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return a copy of a wheel's sources, without the loops that an editable install compiled."""
    copy = tmp_path_factory.mktemp("sources")
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", *SOURCES], capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


def build(sources, folder, **environment):
    """Return the wheel, and what the build printed."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    variables = {key: value for key, value in os.environ.items() if key != "CC"}
    done = subprocess.run(
        command,
        cwd=sources,
        env={**variables, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = Path(folder).glob("*.whl")
    return wheel, done.stdout + done.stderr


def fit(wheel, folder):
    """Fit with the package of a wheel; return the name of the kernels."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    done = subprocess.run(
        [sys.executable, "-c", FIT],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file, kernels, weights = json.loads(done.stdout)
    assert Path(file).is_relative_to(folder)
    assert weights == [1.0, 2.0, 3.0]
    return kernels


@pytest.mark.slow
def test_a_wheel_has_compiled_kernels_in_less_than_a_mebibyte(sources, tmp_path):
    wheel, _ = build(sources, tmp_path / "wheels")
    assert "py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    assert wheel.stat().st_size < MIB
    has_fma = not (cpuinfo := Path("/proc/cpuinfo")).exists() or " fma" in cpuinfo.read_text()
    is_x86 = platform.machine().lower() in {"x86_64", "amd64"}
    expected = "compiled" if has_fma or not is_x86 else "baseline"
    assert fit(wheel, tmp_path / "unpacked") == expected


def test_without_a_compiler_the_build_warns_once_and_numpys_kernels_are_used(sources, tmp_path):
    # a ziglang that does not work hides the one that the interpreter may have
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__main__.py").write_text("raise SystemExit(1)")
    wheel, printed = build(
        sources, tmp_path / "wheels", PATH=str(tmp_path), PYTHONPATH=str(tmp_path)
    )
    assert wheel.name.endswith("py3-none-any.whl")
    assert printed.count("the loops could not be compiled") == 1
    assert fit(wheel, tmp_path / "unpacked") == "numpy"


def test_the_build_requires_ziglang_if_the_system_has_no_compiler(monkeypatch):
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hatch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hatch_build)
    hook = hatch_build.CompileLoops(str(ROOT), {}, None, None, str(ROOT), "wheel")
    monkeypatch.delenv("CC", raising=False)
    assert hook.dependencies() == ([] if hatch_build._system_compiler() else [hatch_build.ZIG])
    monkeypatch.setenv("PATH", "")
    assert hook.dependencies() == [hatch_build.ZIG]


def test_a_level_that_cannot_be_compiled_leaves_the_others(sources, tmp_path):
    # behaves like a compiler that does not know AVX-512
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\ncase "$*" in *avx512*) exit 1;; esac\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    wheel, printed = build(sources, tmp_path / "wheels", CC=str(compiler))
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist()}
    assert "loops_baseline.so" in names
    assert "loops_v4.so" not in names
    # of streamreg report
    assert "page.html" in names
    assert printed.count("some loops could not be compiled") == 1


def test_loops_of_other_sources_are_not_used(tmp_path, monkeypatch):
    for path in library._NATIVE.glob("*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (level,) = {library.load_library().level} if library.load_library() else {"baseline"}
    monkeypatch.setattr(library, "_NATIVE", tmp_path)
    library._checksum.cache_clear()
    try:
        assert library._load(level) is not None
        with (tmp_path / "rows.h").open("a") as header:
            header.write("/* a field was added */\n")
        library._checksum.cache_clear()
        with pytest.warns(UserWarning, match=r"was compiled from other sources and is not used"):
            assert library._load(level) is None
    finally:
        library._checksum.cache_clear()
