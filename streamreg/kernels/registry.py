"""The implementations of kernels by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.kernels.library import NUMPY, load_level

if TYPE_CHECKING:
    from streamreg.kernels.base import KernelSet


def load_kernels(name: str) -> KernelSet:
    """Return the kernels ``"numpy"``, or those compiled for a level such as ``"v4"``.

    Raises
    ------
    LookupError
        There are no such kernels, or this processor cannot run them.
    """
    if name == NUMPY:
        from streamreg.kernels.numpy import KERNELS  # noqa: PLC0415

        return KERNELS
    library = load_level(name)
    if library is None:
        raise LookupError(f"there are no kernels {name!r} that run on this processor")
    from streamreg.kernels.compiled import kernels_of  # noqa: PLC0415

    return kernels_of(library)
