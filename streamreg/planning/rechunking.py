"""How to write data anew in chunks of fewer rows, where those that they have are too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.formatting import MIB, count
from streamreg.sources.zarr.source import ZarrSource

if TYPE_CHECKING:
    from streamreg.planning.terms import Candidate
    from streamreg.sources.base import RowSource
    from streamreg.sources.dataset import Dataset


def rechunking_advice(dataset: Dataset, limit: int, candidates: list[Candidate]) -> str:
    """Return how to write X anew, where its chunks are what makes every fit too large."""
    least = min(candidates, key=lambda candidate: candidate.peak_nbytes)
    blocks = sum(term.nbytes for term in least.terms if term.what == "blocks")
    room = limit - (least.peak_nbytes - blocks)
    # chunks as they are stored, decoded, moved beside each other, and joined to blocks
    rows = min(room, 8 * MIB) // (4 * dataset.X.row_nbytes)
    grid = dataset.X.grid
    if least.fits or not 1 <= rows < min(grid.chunk_rows, grid.n_rows):
        return ""
    return _rechunking(dataset.X, rows)


def _rechunking(X: RowSource, rows: int) -> str:
    """Return how to cut X into chunks of so many rows, a chunk of the old at a time."""
    # chunks may be declared larger than the array
    chunk_rows = min(X.grid.chunk_rows, X.grid.n_rows)
    pieces = -(-chunk_rows // rows)
    rows = -(-chunk_rows // pieces)
    if not isinstance(X, ZarrSource):
        return f"write {X.name} anew in chunks of at most {count(rows, 'row')}"
    n_rows, n_columns = X.shape
    height, width = chunk_rows, min(X.chunks[1], n_columns)
    path = str(X.files.root) if X.files else X.name
    return f"""write {X.name} anew in chunks of {count(rows, "row")}:
    import zarr
    old = zarr.open_array({path!r}, mode="r")
    new = zarr.create_array(
        {f"{path}-rows"!r}, shape=old.shape, dtype=old.dtype, chunks=({rows}, {width})
    )
    for i in range(0, {n_rows}, {height}):
        for j in range(0, {n_columns}, {width}):
            here = slice(i, i + {height}), slice(j, j + {width})
            new[here] = old[here]"""
