"""Compiles the loops of ``streamreg/kernels/native`` when the package is built."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("streamreg/kernels/native")
# beside the loops: why some, or all, were not compiled; streamreg/kernels/library.py shows it
REASONS = "not_compiled.txt"
# No -march: each level runs on every processor that has its instructions. The same sums give the
# same bits: see lanes.h.
FLAGS = (
    "-std=c11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
    "-g0",
    "-s",
)
X86 = {
    # for processors of before 2013: half the size
    "baseline": ("-O2",),
    "v3": ("-mavx2", "-mfma"),
    "v4": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
}
ARM = {"neon": ()}
LEVELS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}
# a C compiler as a Python package, for a machine without one
ZIG = "ziglang>=0.13"
# the first macOS for ARM64
FIRST_ARM64_MACOS = (11, 0)
# characters of a compiler's messages that are shown
SHOWN = 2000


class CompileLoops(BuildHookInterface[Any]):
    """Adds the compiled loops to the wheel, or to the source tree of an editable install."""

    def dependencies(self) -> list[str]:
        """Ask for a C compiler from the package index, if this machine has none."""
        if self.target_name != "wheel" or not _levels():
            return []
        with tempfile.TemporaryDirectory() as folder:
            compiler, _ = _system_compiler(Path(folder))
        return [] if compiler else [ZIG]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the loops. If that fails, warn and build without them; NumPy's are then used."""
        if self.target_name != "wheel":
            return
        sources = Path(self.root) / NATIVE
        if version == "editable":
            self._compile(sources, sources)
            return
        self._temporary = tempfile.TemporaryDirectory()
        built = Path(self._temporary.name)
        if self._compile(sources, built):
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_tag()}"
        for file in (*built.glob("*.so"), *built.glob(REASONS)):
            build_data["force_include"][str(file)] = str(NATIVE / file.name)

    def _compile(self, sources: Path, built: Path) -> bool:
        """Compile the loops of each level; return whether at least one level was compiled."""
        for old in (*built.glob("*.so"), *built.glob(REASONS)):
            old.unlink()
        with tempfile.TemporaryDirectory() as folder:
            reasons = _compile_levels(sources, built, Path(folder))
        is_any = any(built.glob("*.so"))
        if reasons:
            text = "\n".join(reasons)
            (built / REASONS).write_text(text, encoding="utf-8")
        if reasons and _levels():
            what = "some loops could not be compiled, so slower ones are used"
            if not is_any:
                what = "the loops could not be compiled, so NumPy's are used, at half the speed"
            self.app.display_warning(f"streamreg: {what}. {text}")
        return is_any


def compile_command(compiler: list[str], level: str, sources: Path, built: Path) -> list[str]:
    """Return the command that compiles the loops of a level."""
    files = sorted([*sources.glob("*.c"), *sources.glob("*.h")])
    # streamreg/kernels/library.py loads loops only if this is the checksum of the installed sources
    checksum = zlib.crc32(b"".join(file.read_bytes() for file in files))
    units = [str(file) for file in files if file.suffix == ".c"]
    library = str(built / f"loops_{level}.so")
    defined = [f"-DSOURCES={checksum}u", f'-DLEVEL="{level}"']
    return [*compiler, *FLAGS, *defined, *_levels()[level], "-o", library, *units]


def _compile_levels(sources: Path, built: Path, folder: Path) -> list[str]:
    """Compile the loops of each level that this processor may have; return what failed, and why."""
    if not _levels():
        return [f"no loops are written for {platform.machine()} with {sys.platform}"]
    compiler, reasons = _system_compiler(folder)
    if compiler is None:
        compiler, of_zig = _zig(folder)
        reasons = [*reasons, of_zig]
    if compiler is None:
        return ["no C compiler works", *reasons]
    failures = {
        level: _failure(compile_command(compiler, level, sources, built), folder)
        for level in _levels()
    }
    return [f"{level}: {failure}" for level, failure in failures.items() if failure]


def _failure(command: list[str], folder: Path) -> str:
    """Run a compiler; return why it failed, or an empty text. ``folder`` is for its caches."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} was not found"
    # Zig would write to the home directory, which may be read-only, and leave 60 MB
    caches = dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), str(folder / "zig"))
    try:
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=600,
            env={**os.environ, **caches},
        )
    except (OSError, subprocess.SubprocessError) as error:
        # the command, which names every file, is left out
        return (getattr(error, "stderr", None) or str(error)).strip()[-SHOWN:]
    return ""


def _machine() -> str:
    """Return the kind of processor to build for; empty if it is not that of this machine."""
    present = platform.machine().lower()
    wanted = sysconfig.get_platform().lower()
    return present if wanted.endswith((present, "-universal2")) else ""


def _tag() -> str:
    """Return the platform tag of a wheel with loops for this kind of processor."""
    tag = sysconfig.get_platform()
    if sys.platform == "darwin":
        tag = f"macosx-{_macos_version()}-{platform.machine()}"
    return tag.replace("-", "_").replace(".", "_")


def _macos_version() -> str:
    """Return the oldest macOS that the loops run on: that of this Python, if it had ARM64 then."""
    _, version, _ = sysconfig.get_platform().split("-", 2)
    numbers = [int(number) for number in f"{version}.0".split(".")[:2]]
    if _machine() == "arm64":
        numbers = max(numbers, list(FIRST_ARM64_MACOS))
    return ".".join(map(str, numbers))


def _levels() -> dict[str, tuple[str, ...]]:
    """Return the flags of each level of instructions of the processor to build for."""
    # pieces.c is for POSIX
    return {} if sys.platform == "win32" else LEVELS.get(_machine(), {})


def _system_compiler(folder: Path) -> tuple[list[str] | None, list[str]]:
    """Return the first C compiler that works, and why the others do not."""
    target = [f"-mmacosx-version-min={_macos_version()}"] if sys.platform == "darwin" else []
    reasons = []
    for candidate in (os.environ.get("CC", "").split(), ["cc"], ["gcc"], ["clang"]):
        if not candidate:
            continue
        compiler = [*candidate, *target]
        reason = _why_unusable(compiler, folder)
        if not reason:
            return compiler, []
        reasons.append(reason)
    return None, reasons


def _zig(folder: Path) -> tuple[list[str] | None, str]:
    """Return the compiler of the package ``ziglang``, or why it cannot be used.

    It compiles for the oldest processor of its architecture.
    """
    if sys.platform != "darwin" and platform.libc_ver()[0] != "glibc":
        return None, "ziglang is used with glibc and on macOS only"
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(_machine(), _machine())
    system = f"macos.{_macos_version()}" if sys.platform == "darwin" else "linux-gnu.2.17"
    baseline = "x86_64" if machine == "x86_64" else "baseline"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-{system}"]
    compiler = [*zig, f"-mcpu={baseline}"]
    reason = _why_unusable(compiler, folder)
    return (None, reason) if reason else (compiler, "")


def _why_unusable(compiler: list[str], folder: Path) -> str:
    """Return why a compiler makes no library of an empty program; an empty text if it does."""
    source, library = folder / "empty.c", folder / "empty.so"
    source.write_text("int nothing(void) { return 0; }\n")
    return _failure([*compiler, "-shared", "-fPIC", "-o", str(library), str(source)], folder)
