"""The loops give the same bits on every processor that fuses products with sums.

A C program calls them, compiled for this processor's levels and for ARM64, which QEMU emulates.
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


def bits(folder, level, compiler, flags, *run_with):
    """Return what the program prints, compiled with the flags of a level."""
    program = folder / f"bits-{level}"
    native = [str(file) for file in sorted(library._NATIVE.glob("*.c"))]
    defined = ["-DSOURCES=0u", f'-DLEVEL="{level}"']
    command = [compiler, *flags, *defined, "-static", "-o", program, PROGRAM, *native]
    subprocess.run(command, check=True)
    done = subprocess.run([*run_with, program], check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def flags():
    """Return the flags of each level, but those of a shared library."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    hatch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hatch_build)
    common = [flag for flag in hatch_build.FLAGS if flag not in {"-shared", "-fPIC"}]
    return {level: [*common, *own] for level, own in {**hatch_build.X86, **hatch_build.ARM}.items()}


@pytest.mark.skipif(
    not (FUSED and EMULATOR and shutil.which(ARM64) and shutil.which("gcc")),
    reason="needs gcc for this processor and for ARM64, and QEMU's emulator",
)
def test_arm64_gives_the_bits_of_this_processor(tmp_path, flags):
    emulated = bits(tmp_path, "neon", ARM64, flags["neon"], EMULATOR)
    assert [bits(tmp_path, level, "gcc", flags[level]) for level in FUSED] == [
        emulated for _ in FUSED
    ]
