"""The implementations of kernels by name; each is imported only if it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamreg.kernels.base import KernelSet


def load_kernels(name: str) -> KernelSet:
    """Return the kernels ``"numpy"`` or ``"numba"``.

    Raises
    ------
    LookupError
        There is no implementation of that name.
    """
    if name == "numpy":
        from streamreg.kernels.numpy import KERNELS  # noqa: PLC0415

        return KERNELS
    if name == "numba":
        from streamreg.kernels import numba  # noqa: PLC0415

        numba.load()
        return numba.KERNELS
    raise LookupError(f"no kernels are named {name!r}; known: 'numpy', 'numba'")
