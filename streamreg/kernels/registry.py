"""The implementations of kernels by name.

Equal names give equal bits: all levels that fuse products with sums are ``"compiled"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.kernels.library import NUMPY, load_level, load_library

if TYPE_CHECKING:
    from streamreg.kernels.base import KernelSet

_COMPILED = "compiled"


def best_kernels() -> str:
    """Return the name of the fastest kernels of this process."""
    library = load_library()
    if library is None:
        return NUMPY
    return _COMPILED if library.is_fused else library.level


def load_kernels(name: str) -> KernelSet:
    """Return the kernels ``"numpy"``, ``"compiled"``, or of a level such as ``"v3"``.

    Raises
    ------
    LookupError
        There are no such kernels, or this process cannot run them.
    """
    if name == NUMPY:
        from streamreg.kernels.numpy import KERNELS  # noqa: PLC0415

        return KERNELS
    library = load_library() if name == _COMPILED else load_level(name)
    if library is None or (name == _COMPILED and not library.is_fused):
        raise LookupError(f"there are no kernels {name!r} that run on this processor")
    from streamreg.kernels.compiled import kernels_of  # noqa: PLC0415

    return kernels_of(library)
