"""The loops give the same bits on every processor that fuses products with sums.

A C program calls the compiled loops of this processor's levels, and loops that are compiled for
ARM64, which QEMU emulates.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from streamreg.kernels import library

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).parents[1] / "support" / "bits_of_loops.c"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
ARM64 = "aarch64-linux-gnu-gcc"
FUSED = [level for level in ("v3", "v4") if (known := library.load_level(level)) and known.is_fused]


def bits(program, compiler, loops, *run_with):
    """Return what the program prints, given the arguments that compile or link the loops."""
    subprocess.run([compiler, "-o", program, PROGRAM, *loops], check=True)
    done = subprocess.run([*run_with, program], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def for_arm64():
    """Return the arguments that compile the loops for ARM64, into a program without libraries."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hatch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hatch_build)
    flags = [flag for flag in hatch_build.FLAGS if flag not in {"-shared", "-fPIC"}]
    native = [str(file) for file in sorted(library._NATIVE.glob("*.c"))]
    defined = ["-DSOURCES=0u", '-DLEVEL="neon"']
    return [*flags, *hatch_build.ARM["neon"], *defined, "-static", *native]


@pytest.mark.skipif(
    not (FUSED and EMULATOR and shutil.which(ARM64) and shutil.which("gcc")),
    reason="needs gcc for this processor and for ARM64, and QEMU's emulator",
)
def test_arm64_gives_the_bits_of_this_processor(tmp_path, for_arm64):
    emulated = bits(tmp_path / "neon", ARM64, for_arm64, EMULATOR)
    for level in FUSED:
        installed = library._NATIVE / f"loops_{level}.so"
        assert bits(tmp_path / level, "gcc", [installed]) == emulated
