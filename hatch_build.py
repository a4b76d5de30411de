"""Compiles the loops of ``streamreg/kernels/native`` when the package is built."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("streamreg/kernels/native")
# for any processor of the kind, with the same bits for the same sums: see lanes.h
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fPIC", "-shared", "-g0", "-s")
X86 = {
    "baseline": (),
    "v3": ("-mavx2", "-mfma", "-mf16c"),
    "v4": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"),
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
        """Compile; where that fails, say so and install without: NumPy's loops serve."""
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
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{tag}"

    def _compile(self, sources: Path, built: Path) -> bool:
        """Return whether the loops of each level were compiled."""
        compiler = _system_compiler() or _zig()
        files = [str(file) for file in sorted(sources.glob("*.c"))]
        reason = "there is no C compiler, and none could be installed"
        try:
            for level, flags in _levels().items():
                library = str(built / f"loops_{level}.so")
                command = [*(compiler or ["cc"]), *FLAGS, *flags, "-o", library, *files]
                subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            if compiler is not None:
                reason = getattr(error, "stderr", "") or str(error)
            self.app.display_warning(
                "streamreg: the loops could not be compiled, so that NumPy's serve, at about half "
                f"the speed. {reason.strip()[-2000:]}"
            )
            return False
        return bool(_levels())


def _levels() -> dict[str, tuple[str, ...]]:
    """Return the flags of each level of instructions of this kind of processor."""
    return LEVELS.get(platform.machine().lower(), {})


def _system_compiler() -> list[str] | None:
    """Return the first C compiler that works."""
    candidates = [os.environ.get("CC", "").split(), ["cc"], ["gcc"], ["clang"]]
    return next((each for each in candidates if each and _works(each)), None)


def _zig() -> list[str] | None:
    """Return the compiler of the package ``ziglang``, for the oldest processor of the kind."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower())
    machine = machine or platform.machine().lower()
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
