"""CuPy arrays: rows in the memory of a GPU, which are reduced on that device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.blocks import is_cupy, on_host
from streamreg.sources.base import Kind
from streamreg.sources.in_memory import ArraySource

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource


def open_rows(data: Array, name: str, _missing_chunks: str) -> RowSource:
    """Return the rows of a CuPy array; weights are copied to the host, which leaves rows out."""
    if name == "sample_weight":
        return ArraySource(on_host(data), name)
    return DeviceArraySource(data, name)


KIND = Kind(is_cupy, open_rows)


class DeviceArraySource(ArraySource):
    """A CuPy array: its blocks are views."""

    is_cupy = True

    def __init__(self, array: Array, name: str) -> None:
        super().__init__(array, name)
        if array.ndim and array.size and array.flags.c_contiguous:
            self.device_rows = array.reshape(len(array), -1)
