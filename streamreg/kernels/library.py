"""The compiled loops of ``kernels/native``: one library for each level of instructions.

The libraries are built with the package (``hatch_build.py``). All but the baseline fuse products
with sums, in the same order, and give the same bits: AVX-512 (v4), AVX2 (v3) and NEON.
"""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

# of the environment: the name of a level, or numpy; for tests, and to compare processors
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


def _folder() -> Path:
    return files("streamreg.kernels") / "native"  # type: ignore[return-value]


def _load(level: str) -> Library | None:
    """Return the loops of a level; ``None`` if they were not compiled, or cannot be loaded."""
    path = _folder() / f"loops_{level}.so"
    try:
        return Library(level, ctypes.CDLL(str(path)))
    except OSError:
        return None


@cache
def load_level(level: str) -> Library | None:
    """Return the loops of a level of this kind of processor; ``None`` if they cannot run here."""
    levels = LEVELS.get(platform.machine().lower(), ())
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
    wanted = os.environ.get(VARIABLE, "")
    if wanted == NUMPY:
        return None
    levels = LEVELS.get(platform.machine().lower(), ())
    for level in [wanted] if wanted else levels:
        library = load_level(level)
        if library is not None:
            return library
    return None


def describe() -> str:
    """Return which loops run, for people: ``"compiled for x86-64-v4"``."""
    library = load_library()
    if library is None:
        return "NumPy's, which are slower: nothing was compiled when streamreg was installed"
    prefix = "x86-64-" if library.level in LEVELS["x86_64"] else ""
    return f"compiled for {prefix}{library.level}"
