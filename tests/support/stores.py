"""Zarr stores that tests write, and rows read back from any source."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr


def write_zarr(path: Any, values: np.ndarray, **layout: Any) -> str:
    """Write an array with every chunk in place, those that are all zeros too."""
    dtype = values.dtype
    if layout.get("zarr_format", 3) == 3:
        dtype = dtype.newbyteorder("=")
    array = zarr.create_array(
        store=path,
        shape=values.shape,
        dtype=dtype,
        config={"write_empty_chunks": True},
        overwrite=True,
        **layout,
    )
    array[...] = values
    return str(path)


def read_all(source: Any, rows: int | None = None) -> np.ndarray:
    """Return all rows of a source, read ``rows`` at a time."""
    n_rows = source.shape[0]
    step = rows or source.grid.chunk_rows
    reader = source.open()
    try:
        parts = [
            np.array(reader.read(start, min(start + step, n_rows)))
            for start in range(0, n_rows, step)
        ]
    finally:
        reader.close()
    return np.concatenate(parts)
