"""CuPy arrays: rows in the memory of a GPU, which are reduced on that device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.blocks import is_on_device, on_host
from streamreg.sources.base import Kind
from streamreg.sources.in_memory import ArraySource

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource


def open_rows(data: Array, name: str, *, missing_chunks: str) -> RowSource:
    """Return the rows of a CuPy array."""
    del missing_chunks  # an array has no chunks
    if name == "sample_weight":
        # the host decides which rows are left out
        return ArraySource(on_host(data), name)
    return DeviceArraySource(data, name)


KIND = Kind(is_on_device, open_rows)


class DeviceArraySource(ArraySource):
    """A CuPy array: its blocks are views."""

    @property
    def on_device(self) -> bool:
        return True

    @property
    def whole(self) -> Array | None:
        rows = self.array
        return rows.reshape(len(rows), -1) if rows.flags.c_contiguous else None
