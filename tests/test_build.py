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

DESCRIBE = "from streamreg.kernels.library import describe_kernels; print(describe_kernels())"
# A program in place of ziglang. As compilers of these tests do, it writes a text where loops would
# be: no test but the first loads what it builds.
ZIG = """
import os, pathlib, sys
for name in ("GLOBAL", "LOCAL"):
    folder = pathlib.Path(os.environ.get(f"ZIG_{name}_CACHE_DIR", os.environ["HOME"]))
    folder.mkdir(exist_ok=True)
    (folder / "cached").touch()
pathlib.Path(sys.argv[sys.argv.index("-o") + 1]).write_text("compiled")
"""
# The system's compiler, but loops that were compiled from the same sources when streamreg was
# installed are copied: to compile them takes half a minute.
COPIER = """#!/bin/sh
PATH={path}
for each; do
  [ "$previous" = -o ] && output=$each
  previous=$each
done
installed={native}/$(basename "$output")
case "$*" in *-DSOURCES={checksum}u*) [ -f "$installed" ] && exec cp "$installed" "$output" ;; esac
exec cc "$@"
"""
# a compiler that does not know AVX-512
CC = """#!/bin/sh
case "$*" in *avx512*) echo this compiler knows no AVX-512 >&2; exit 1;; esac
while [ "$1" != -o ]; do shift; done
echo compiled > "$2"
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


def described(folder):
    """Return what the unpacked package tells of its kernels."""
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_wheel_has_compiled_kernels_in_less_than_a_mebibyte(sources, tmp_path):
    path = os.environ["PATH"]
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(
        COPIER.format(path=path, native=library._NATIVE, checksum=library._checksum())
    )
    compiler.chmod(0o755)
    wheel, _ = build(sources, tmp_path / "wheels", PATH=f"{compiler.parent}{os.pathsep}{path}")
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
    # pip hides what a build prints
    assert "no C compiler works cc was not found" in described(tmp_path / "unpacked")


@pytest.fixture
def hatch_build():
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_build_requires_ziglang_if_the_system_has_no_compiler(
    hatch_build, monkeypatch, tmp_path
):
    hook = hatch_build.CompileLoops(str(ROOT), {}, None, None, str(ROOT), "wheel")
    monkeypatch.delenv("CC", raising=False)
    compiler, _ = hatch_build._system_compiler(tmp_path)
    assert hook.dependencies() == ([] if compiler else [hatch_build.ZIG])
    monkeypatch.setenv("PATH", "")
    assert hook.dependencies() == [hatch_build.ZIG]


@pytest.fixture(scope="module")
def wheel_of_some_levels(sources, tmp_path_factory):
    """Return a wheel of sources with loops of an earlier build, and what the build printed."""
    folder = tmp_path_factory.mktemp("some_levels")
    compiler = folder / "cc"
    compiler.write_text(CC)
    compiler.chmod(0o755)
    # sources that were unpacked from an archive have no .gitignore
    old = [sources / "streamreg/kernels/native" / name for name in ("loops_v9.so", "loops_v3.so")]
    for file in old:
        file.write_text("old")
    try:
        return build(sources, folder / "wheels", CC=str(compiler))
    finally:
        for file in old:
            file.unlink()


def test_a_level_that_cannot_be_compiled_leaves_the_others(wheel_of_some_levels):
    wheel, printed = wheel_of_some_levels
    names = {Path(name).name for name in zipfile.ZipFile(wheel).namelist()}
    assert "loops_baseline.so" in names
    assert "loops_v4.so" not in names
    assert printed.count("some loops could not be compiled") == 1
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("streamreg/kernels/native/not_compiled.txt").decode()
    assert "v4:" in text
    assert "this compiler knows no AVX-512" in text


def test_ziglangs_caches_are_removed_with_the_build(sources, tmp_path):
    # behaves like Zig: it needs folders for its caches, by default in the home directory
    (tmp_path / "ziglang").mkdir()
    (tmp_path / "ziglang" / "__main__.py").write_text(ZIG)
    home = tmp_path / "home"
    home.mkdir()
    wheel, _ = build(
        sources,
        tmp_path / "wheels",
        PATH=str(home),
        PYTHONPATH=str(tmp_path),
        HOME=str(home),
        TMPDIR=str(tmp_path),
    )
    assert not wheel.name.endswith("-any.whl")
    assert not list(home.iterdir())
    assert not list(tmp_path.rglob("cached"))


def test_a_wheel_holds_no_loops_of_an_earlier_build(wheel_of_some_levels):
    wheel, _ = wheel_of_some_levels
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".so")]
        assert not [name for name in names if "v9" in name]
        assert all(archive.read(name) != b"old" for name in names)


@pytest.mark.parametrize(
    ("machine", "built_for", "version", "tag"),
    [
        ("arm64", "macosx-10.9-universal2", "11.0", "macosx_11_0_arm64"),
        ("arm64", "macosx-14-arm64", "14.0", "macosx_14_0_arm64"),
        ("x86_64", "macosx-10.13-universal2", "10.13", "macosx_10_13_x86_64"),
    ],
)
def test_loops_run_on_the_oldest_macos_that_the_tag_names(
    hatch_build, monkeypatch, tmp_path, machine, built_for, version, tag
):
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("sysconfig.get_platform", lambda: built_for)
    commands = []
    monkeypatch.setattr(hatch_build, "_failure", lambda command, _: commands.append(command) or "")
    compiler, _ = hatch_build._system_compiler(tmp_path)
    assert hatch_build._tag() == tag
    assert compiler[-1] == f"-mmacosx-version-min={version}"
    zig, _ = hatch_build._zig(tmp_path)
    assert zig[zig.index("-target") + 1].endswith(f"-macos.{version}")


@pytest.fixture
def native(tmp_path, monkeypatch):
    """A copy of the sources and the loops, which a test may change."""
    if library.load_library() is None:
        pytest.skip("nothing was compiled when streamreg was installed")
    folder = tmp_path / "native"
    folder.mkdir()
    for path in library._NATIVE.glob("*"):
        (folder / path.name).write_bytes(path.read_bytes())
    # loaded from elsewhere: the system returns a loaded library for its path
    (folder / "best").write_text(library.load_library().level)
    monkeypatch.setattr(library, "_NATIVE", folder)
    monkeypatch.delenv(library.VARIABLE, raising=False)
    forget()
    yield folder
    monkeypatch.undo()
    forget()


def forget():
    for cached in (library._checksum, library._find, library.load_library):
        cached.cache_clear()


def test_loops_of_other_sources_are_not_used(native):
    level = (native / "best").read_text()
    with (native / "rows.h").open("a") as header:
        header.write("/* a field was added */\n")
    library._checksum.cache_clear()
    with pytest.warns(UserWarning, match=r"is not used: it was compiled from other sources"):
        assert "was compiled from other sources" in library._load(level)


def test_loops_of_another_level_are_not_used(native):
    level, *_ = library._levels()
    (native / f"loops_{level}.so").unlink()
    (native / f"loops_{level}.so").write_bytes(
        compiled_for("v3" if level != "v3" else "v4", native)
    )
    with pytest.warns(UserWarning, match=r"or for another processor"):
        assert "or for another processor" in library._load(level)


def compiled_for(level, native):
    """Return loops that claim to be of a level."""
    command = ["gcc", "-shared", "-fPIC", "-DSOURCES=" + f"{library._checksum()}u"]
    output = native / "other"
    units = [str(native / "processor.c")]
    subprocess.run([*command, f'-DLEVEL="{level}"', "-o", output, *units], check=True)
    return output.read_bytes()


def test_loops_that_cannot_be_loaded_are_named_with_the_systems_reason(native):
    # not loaded before: the system would return the loaded library for its path
    level = (native / "best").read_text()
    (native / f"loops_{level}.so").unlink()
    (native / f"loops_{level}.so").write_text("no library")
    (native / "not_compiled.txt").write_text("v9: the compiler\nknows no v9")
    with pytest.warns(UserWarning, match=rf"loops_{level}\.so is not used: it cannot be loaded"):
        text = library.describe_kernels()
    assert f"loops_{level}.so cannot be loaded: " in text
    assert text.endswith("v9: the compiler knows no v9")
