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
    """Return the rows of a CuPy array; weights are copied to the host, which omits rows."""
    if name == "sample_weight":
        return ArraySource(on_host(data), name)
    source = ArraySource(data, name)
    source.is_cupy = True
    if data.ndim and data.size and data.flags.c_contiguous:
        source.device_rows = data.reshape(len(data), -1)
    return source


KIND = Kind(is_cupy, open_rows)
