"""The implementations of kernels by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamreg.kernels.base import KernelSet


def load_kernels(name: str) -> KernelSet:
    """Import and return the kernels ``"numpy"`` or ``"numba"``."""
    if name == "numba":
        from streamreg.kernels import numba  # noqa: PLC0415

        numba.load()
        return numba.KERNELS
    from streamreg.kernels.numpy import KERNELS  # noqa: PLC0415

    return KERNELS
