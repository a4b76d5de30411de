"""The compiled loops of ``kernels/native``: one library for each level of instructions.

The libraries are built with the package (``hatch_build.py``). All but the baseline fuse products
with sums, in the same order, and give the same bits: AVX-512 (v4), AVX2 (v3) and NEON.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from pathlib import Path
from typing import NamedTuple

from streamreg.errors import InputError

# of the environment: a level, or numpy; to compare processors, and for tests
VARIABLE = "STREAMREG_KERNELS"
NUMPY = "numpy"
# levels of each kind of processor, the best first; the last runs on all of the kind
LEVELS = {
    "x86_64": ("v4", "v3", "baseline"),
    "amd64": ("v4", "v3", "baseline"),
    "aarch64": ("neon",),
    "arm64": ("neon",),
}
# of which a processor says whether it has them
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
    path = Path(__file__).parent / "native" / f"loops_{level}.so"
    try:
        return Library(level, ctypes.CDLL(str(path)))
    except OSError:
        return None


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
    """Return the best loops for this processor; ``None`` if NumPy's serve."""
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
        return "NumPy's, which are slower; no compiled ones are installed"
    prefix = "x86-64-" if library.level in LEVELS["x86_64"] else ""
    return f"compiled for {prefix}{library.level}"
