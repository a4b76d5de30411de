"""The implementations of kernels by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamreg.kernels.base import KernelSet


def load_kernels(name: str) -> KernelSet:
    """Import and return the kernels ``"numpy"`` or ``"numba"``; LookupError for other names."""
    if name == "numba":
        from streamreg.kernels import numba  # noqa: PLC0415

        numba.load()
        return numba.KERNELS
    if name == "numpy":
        from streamreg.kernels.numpy import KERNELS  # noqa: PLC0415

        return KERNELS
    raise LookupError(f"there are no kernels {name!r}; there are 'numpy' and 'numba'")
