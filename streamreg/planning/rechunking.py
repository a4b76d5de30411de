"""How to rewrite data in chunks of fewer rows, if their chunks are too large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.formatting import MIB

if TYPE_CHECKING:
    from streamreg.planning.terms import Candidate
    from streamreg.sources.dataset import Dataset


def rechunking_advice(dataset: Dataset, limit: int, candidates: list[Candidate]) -> str:
    """Return how to rewrite X, if its chunks alone make every fit too large; else an empty text."""
    least = min(candidates, key=lambda candidate: candidate.peak_nbytes)
    blocks = sum(term.nbytes for term in least.terms if term.what == "blocks")
    room = limit - (least.peak_nbytes - blocks)
    # encoded chunks, decoded chunks, chunks copied to their columns, and the block that joins them
    rows = min(room, 8 * MIB) // (4 * dataset.X.row_nbytes)
    grid = dataset.X.grid
    # a chunk may be declared larger than the array
    chunk_rows = min(grid.chunk_rows, grid.n_rows)
    if least.fits or not 1 <= rows < chunk_rows:
        return ""
    n_pieces = -(-chunk_rows // rows)
    return dataset.X.rechunk_advice(-(-chunk_rows // n_pieces))
