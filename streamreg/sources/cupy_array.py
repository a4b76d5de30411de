"""CuPy arrays: rows in the memory of a GPU, which are folded where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.blocks import is_on_device, on_host
from streamreg.sources.in_memory import ArraySource

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of a CuPy array; ``None`` for anything else."""
    del missing_chunks  # there are none
    if not is_on_device(data):
        return None
    if name == "sample_weight":
        # which rows are left out is decided on the host
        return ArraySource(on_host(data), name)
    return DeviceArraySource(data, name)  # type: ignore[arg-type]


class DeviceArraySource(ArraySource):
    """A CuPy array: its blocks are views."""

    @property
    def on_device(self) -> bool:
        return True

    @property
    def whole(self) -> Array | None:
        rows = self.array
        return rows.reshape(len(rows), -1) if rows.flags.c_contiguous else None
