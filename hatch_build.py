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
    "baseline": (),
    "v3": ("-mavx2", "-mfma"),
    "v4": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"),
}
ARM = {"neon": ()}
LEVELS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}
# a C compiler as a Python package, for a machine without one
ZIG = "ziglang>=0.13"


class CompileLoops(BuildHookInterface[Any]):
    """Adds the compiled loops to the wheel, or to the source tree of an editable install."""

    def dependencies(self) -> list[str]:
        """Ask for a C compiler from the package index, if this machine has none."""
        is_needed = self.target_name == "wheel" and _levels() and _system_compiler() is None
        return [ZIG] if is_needed else []

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
            for library in built.glob("*.so"):
                build_data["force_include"][str(library)] = str(NATIVE / library.name)
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{_tag()}"

    def _compile(self, sources: Path, built: Path) -> bool:
        """Compile the loops of each level; return whether at least one level was compiled."""
        for old in built.glob("*.so"):
            old.unlink()
        compiler, reasons = _system_compiler() or _zig(), []
        if compiler is None:
            reasons = ["there is no C compiler, and none could be installed"]
        for level in _levels() if compiler else {}:
            try:
                subprocess.run(
                    compile_command(compiler, level, sources, built),
                    check=True,
                    capture_output=True,
                    text=True,
                )
            except (OSError, subprocess.CalledProcessError) as error:
                reasons.append(f"{level}: {getattr(error, 'stderr', '') or error}".strip())
        is_any = any(built.glob("*.so"))
        if reasons and _levels():
            what = "some loops could not be compiled, so slower ones are used"
            if not is_any:
                what = "the loops could not be compiled, so NumPy's are used, at half the speed"
            self.app.display_warning(f"streamreg: {what}. {' '.join(reasons)[-2000:]}")
        return is_any


def compile_command(compiler: list[str], level: str, sources: Path, built: Path) -> list[str]:
    """Return the command that compiles the loops of a level."""
    files = sorted([*sources.glob("*.c"), *sources.glob("*.h")])
    # streamreg/kernels/library.py loads loops only if this is the checksum of the installed sources
    checksum = zlib.crc32(b"".join(file.read_bytes() for file in files))
    units = [str(file) for file in files if file.suffix == ".c"]
    library = str(built / f"loops_{level}.so")
    flags = [*FLAGS, f"-DSOURCES={checksum}u", *_levels()[level]]
    return [*compiler, *flags, "-o", library, *units]


def _machine() -> str:
    """Return the kind of processor to build for; empty if it is not that of this machine."""
    here = platform.machine().lower()
    asked = sysconfig.get_platform().lower()
    return here if asked.endswith((here, "-universal2")) else ""


def _tag() -> str:
    """Return the platform tag of a wheel with loops for this kind of processor."""
    here = sysconfig.get_platform().replace("universal2", platform.machine())
    return here.replace("-", "_").replace(".", "_")


def _levels() -> dict[str, tuple[str, ...]]:
    """Return the flags of each level of instructions of the processor to build for."""
    # pieces.c is for POSIX
    return {} if sys.platform == "win32" else LEVELS.get(_machine(), {})


def _system_compiler() -> list[str] | None:
    """Return the first C compiler that works."""
    candidates = [os.environ.get("CC", "").split(), ["cc"], ["gcc"], ["clang"]]
    return next((each for each in candidates if each and _works(each)), None)


def _zig() -> list[str] | None:
    """Return the compiler of the package ``ziglang``, for the oldest processor of its architecture.

    ``None`` if it does not run on this machine, or cannot build libraries for this system.
    """
    if sys.platform != "darwin" and platform.libc_ver()[0] != "glibc":
        return None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(_machine(), _machine())
    system = "macos" if sys.platform == "darwin" else "linux-gnu.2.17"
    baseline = "x86_64" if machine == "x86_64" else "baseline"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-{system}"]
    compiler = [*zig, f"-mcpu={baseline}"]
    return compiler if _works(compiler) else None


def _works(compiler: list[str]) -> bool:
    """Whether a compiler makes a library of an empty program."""
    if shutil.which(compiler[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "empty.c", Path(folder) / "empty.so"
        source.write_text("int nothing(void) { return 0; }\n")
        command = [*compiler, "-shared", "-fPIC", "-o", str(library), str(source)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (OSError, subprocess.SubprocessError):
            return False
    return True
