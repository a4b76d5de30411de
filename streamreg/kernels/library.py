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
# written by hatch_build.py if some loops could not be compiled
_REASONS = "not_compiled.txt"
# the level for each value that `best_level` of processor.c returns
_LEVEL_OF_PROCESSOR = {4: "v4", 3: "v3", 0: "baseline"}


class Library(NamedTuple):
    """The loops for one level of instructions."""

    level: str
    functions: ctypes.CDLL
    # whether products are fused with sums, so that bits agree with those of other levels
    is_fused: bool


def _levels() -> tuple[str, ...]:
    return LEVELS.get(platform.machine().lower(), ())


def _load(level: str) -> Library | str:
    """Return the loops of a level, or why they are not used; warn if they are installed."""
    path = _NATIVE / f"loops_{level}.so"
    if not path.exists():
        return f"{path.name} is not installed"
    try:
        functions = ctypes.CDLL(str(path))
    except OSError as error:
        why = f"cannot be loaded: {error}"
    else:
        if _is_as_expected(level, functions):
            return Library(level, functions, is_fused=bool(functions.is_fused()))
        # arguments may differ: such loops could write anywhere
        why = "was compiled from other sources, or for another processor; install streamreg again"
    warnings.warn(f"{path.name} is not used: it {why}", stacklevel=2)
    return f"{path.name} {why}"


def _is_as_expected(level: str, functions: ctypes.CDLL) -> bool:
    """Whether loops were compiled from the installed sources for a level, with its flags."""
    if not all(hasattr(functions, name) for name in ("sources", "level", "is_fused")):
        return False
    functions.sources.restype, functions.level.restype = ctypes.c_uint32, ctypes.c_char_p
    return (
        functions.sources() == _checksum()
        and functions.level() == level.encode()
        and bool(functions.is_fused()) == (level != "baseline")
    )


@cache
def _checksum() -> int:
    """Return the checksum of the sources, as ``hatch_build.py`` compiles it in."""
    files = sorted([*_NATIVE.glob("*.c"), *_NATIVE.glob("*.h")])
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


@cache
def _find(level: str) -> Library | str:
    """Return the loops of a level of this kind of processor, or why they are not used.

    An empty text if this processor does not run them.
    """
    levels = _levels()
    least = _load(level) if level == levels[-1] else _find(levels[-1])
    if isinstance(least, str) or level == levels[-1]:
        return least
    best = _LEVEL_OF_PROCESSOR[least.functions.best_level()]
    if levels.index(level) < levels.index(best):
        return ""
    return _load(level)


def load_level(level: str) -> Library | None:
    """Return the loops of a level of this kind of processor; ``None`` if they cannot run."""
    found = _find(level) if level in _levels() else None
    return found if isinstance(found, Library) else None


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
    """Return which loops run, and why not better ones: ``"compiled for x86-64-v4"``."""
    library, wanted = load_library(), os.environ.get(VARIABLE)
    if library is not None:
        prefix = "x86-64-" if library.level in LEVELS["x86_64"] else ""
        text = f"compiled for {prefix}{library.level}"
    else:
        text = "NumPy's, which are slower"
    why = f"{VARIABLE} asks for them" if wanted else _why_not_better(library)
    return f"{text}; {why}" if why else text


def _why_not_better(library: Library | None) -> str:
    """Return why no loops for a better level run; an empty text if there is none."""
    levels = _levels()
    better = levels if library is None else levels[: levels.index(library.level)]
    if not levels:
        return f"none are compiled for {platform.machine()}"
    # several levels may have one reason
    reasons = dict.fromkeys(why for level in better if isinstance(why := _find(level), str) and why)
    if reasons and (path := _NATIVE / _REASONS).exists():
        reasons[" ".join(path.read_text(encoding="utf-8").split())] = None
    return ". ".join(reasons)
