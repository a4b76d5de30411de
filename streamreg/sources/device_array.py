"""CuPy arrays: rows in the memory of a GPU, which are folded where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.blocks import is_on_device
from streamreg.sources.array import ArraySource

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of a CuPy array; ``None`` for anything else."""
    del missing_chunks  # there are none
    return DeviceArraySource(data, name) if is_on_device(data) else None  # type: ignore[arg-type]


class DeviceArraySource(ArraySource):
    """A CuPy array: its blocks are views."""

    @property
    def on_device(self) -> bool:
        return True

    @property
    def whole(self) -> Array | None:
        """All rows, (N, D) or (N, K), if they lie there in C order, as they are folded."""
        rows = self.array
        return rows.reshape(len(rows), -1) if rows.flags.c_contiguous else None
