"""CuPy arrays: rows in the memory of a GPU, which are folded where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.blocks import is_on_device, namespace
from streamreg.sources.array import ArraySource

if TYPE_CHECKING:
    from streamreg.blocks import Array
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import DataSet


def open_rows(data: object, name: str, *, missing_chunks: str) -> RowSource | None:
    """Return the rows of a CuPy array; ``None`` for anything else."""
    del missing_chunks  # there are none
    return DeviceArraySource(data, name) if is_on_device(data) else None  # type: ignore[arg-type]


class DeviceArraySource(ArraySource):
    """A CuPy array: its blocks are views."""

    @property
    def on_device(self) -> bool:
        return True


def whole_there(dataset: DataSet) -> tuple[Array | None, Array | None]:
    """Return X (N, D) and y (N, K) as far as they lie on a GPU just as their rows are folded.

    Not where rows may be left out, and not in another order than C.
    """
    leaves_out = dataset.weight is not None or dataset.nan_policy == "omit"

    def whole(source: RowSource | None) -> Array | None:
        if leaves_out or not isinstance(source, DeviceArraySource):
            return None
        rows = source.array
        return rows.reshape(len(rows), -1) if rows.flags.c_contiguous else None

    return whole(dataset.X), whole(dataset.y)


def joined_there(parts: list[Array]) -> Array:
    """Return rows of one array after those of another, as new rows where there are several."""
    if len(parts) == 1:
        return parts[0]
    joined: Array = namespace(parts[0]).concatenate(parts)
    return joined
