"""How to rewrite data in chunks of fewer rows, if their chunks are too large."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from streamreg.formatting import MIB
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.chunk_reader import joined_nbytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.planning.terms import Candidate
    from streamreg.sources.dataset import Dataset


def rechunking_advice(
    dataset: Dataset, limit: int, plan: Callable[[Dataset], list[Candidate]]
) -> str:
    """Return how to rewrite X, if one of the candidates that ``plan`` returns then fits."""
    least = min(plan(dataset), key=lambda candidate: candidate.peak_nbytes)
    blocks = sum(term.nbytes for term in least.terms if term.what == "blocks")
    room = limit - (least.peak_nbytes - blocks)
    # these rows are in memory 4 times: encoded, decoded, copied to their columns, and in a block
    rows = min(room, 8 * MIB) // (4 * dataset.X.row_nbytes)
    grid = dataset.X.grid
    # a chunk may be declared larger than the array
    chunk_rows = min(grid.chunk_rows, grid.n_rows)
    if least.fits or grid.divisible or grid.has_blocks or not 1 <= rows < chunk_rows:
        return ""
    n_pieces = -(-chunk_rows // rows)
    height = -(-chunk_rows // n_pieces)
    rewritten = replace(dataset, X=_Rewritten(dataset.X, height))
    fits = any(candidate.fits for candidate in plan(rewritten))
    return dataset.X.rechunk_advice(height) if fits else ""


class _Rewritten(RowSource):
    """X as a local Zarr array of the default codec in chunks of another height, for a plan."""

    def __init__(self, X: RowSource, height: int) -> None:
        self.name, self.shape, self.dtype = X.name, X.shape, X.dtype
        self.grid = RowGrid(X.grid.n_rows, height)

    def open(self) -> Reader:
        raise NotImplementedError

    def reader_nbytes(self, block_rows: int) -> int:
        # as ZarrSource: encoded chunks, decoded chunks, and chunks moved beside each other
        chunks = self.grid.chunk_rows * self.row_nbytes
        return 2 * chunks + chunks * 9 // 8 + 1024 + joined_nbytes(self, block_rows)
