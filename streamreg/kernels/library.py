"""The compiled loops of ``kernels/native``: one library for each level of instructions.

The libraries are built with the package (``hatch_build.py``). Those for AVX-512 (v4), AVX2 (v3) and
NEON are bitwise identical: they fuse products with sums, in the same order. The baseline does not.
"""

from __future__ import annotations

import ctypes
import os
import platform
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from streamreg.errors import InputError

# environment variable: a level, or numpy; to compare processors, and for tests
VARIABLE = "STREAMREG_KERNELS"
NUMPY = "numpy"
# levels of each kind of processor, the best first; the last runs on every processor of its kind
LEVELS = {
    "x86_64": ("v4", "v3", "baseline"),
    "amd64": ("v4", "v3", "baseline"),
    "aarch64": ("neon",),
    "arm64": ("neon",),
}
_NATIVE = Path(__file__).parent / "native"
# the level for each value that `best_level` of processor.c returns
_LEVEL_OF_PROCESSOR = {4: "v4", 3: "v3", 0: "baseline"}


class Library(NamedTuple):
    """The loops for one level of instructions."""

    level: str
    functions: ctypes.CDLL

    @property
    def is_fused(self) -> bool:
        """Whether products are fused with sums, so that bits agree with those of other levels."""
        return self.level != "baseline"


def _levels() -> tuple[str, ...]:
    return LEVELS.get(platform.machine().lower(), ())


def _load(level: str) -> Library | None:
    """Return the loops of a level; ``None`` if they were not compiled, or cannot be loaded."""
    path = _NATIVE / f"loops_{level}.so"
    try:
        functions = ctypes.CDLL(str(path))
    except OSError:
        return None
    if hasattr(functions, "sources"):
        functions.sources.restype = ctypes.c_uint32
        if functions.sources() == _checksum():
            return Library(level, functions)
    # arguments may differ: such loops could write anywhere
    warnings.warn(
        f"{path.name} was compiled from other sources and is not used; install streamreg again",
        stacklevel=2,
    )
    return None


@cache
def _checksum() -> int:
    """Return the checksum of the sources, as ``hatch_build.py`` compiles it in."""
    files = sorted([*_NATIVE.glob("*.c"), *_NATIVE.glob("*.h")])
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


@cache
def load_level(level: str) -> Library | None:
    """Return the loops of a level of this kind of processor; ``None`` if they cannot run here."""
    levels = _levels()
    if level not in levels:
        return None
    least = _load(levels[-1])
    if least is None or len(levels) == 1:
        return least
    best = _LEVEL_OF_PROCESSOR[least.functions.best_level()]
    return _load(level) if levels.index(level) >= levels.index(best) else None


@cache
def load_library() -> Library | None:
    """Return the best loops for this processor; ``None`` means NumPy's loops."""
    known = [library for level in _levels() if (library := load_level(level)) is not None]
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return known[0] if known else None
    named = {NUMPY: None, **{library.level: library for library in known}}
    if wanted not in named:
        raise InputError(f"{VARIABLE} is {wanted!r}; this processor runs {', '.join(named)}")
    return named[wanted]


def describe_kernels() -> str:
    """Return which loops run, for people: ``"compiled for x86-64-v4"``."""
    library = load_library()
    if library is None:
        is_wanted = os.environ.get(VARIABLE) == NUMPY
        why = f"{VARIABLE} asks for them" if is_wanted else "no compiled ones are installed"
        return f"NumPy's, which are slower; {why}"
    prefix = "x86-64-" if library.level in LEVELS["x86_64"] else ""
    return f"compiled for {prefix}{library.level}"
