"""Centred XᵀX and Xᵀy of each fold of the rows, in O(F·D²), for cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.gram import BatchGram, Gram
from streamreg.accumulators.panels import PanelAccumulator
from streamreg.blocks import Block
from streamreg.kernels.numpy import gram_tile_rows
from streamreg.kernels.states import FoldsState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Int64
    from streamreg.kernels.base import Kernels

# A fold's rows are copied together if the runs of rows of one fold are more than this many times
# the folds of a block. Else each run is reduced where it is.
_RUNS_A_FOLD = 2
# standard deviations of the rows that a window has of one fold, by which a tile is larger
_SPREADS = 3.0


@dataclass(frozen=True, eq=False)
class Folds(PanelAccumulator[FoldsState, FoldsState]):
    """The second moments of F folds; the groups of a block are the numbers of its folds.

    Each row is reduced once, so that a pass costs as much as one of :class:`Gram`. If the folds of
    rows alternate, rows of one fold are first copied together, a tile at a time. One state holds F
    times as many bytes as one of :class:`Gram`. Every fold has its own means.
    """

    square = "gram"
    by_target = Gram.by_target
    reads_tiles = True

    n_folds: int  # F
    n_features: int  # D
    n_targets: int  # K
    centred: bool = True

    @cached_property
    def gram(self) -> Gram:
        """What one fold computes."""
        return Gram(self.n_features, self.n_targets, self.centred)

    @property
    def n_columns(self) -> int:
        return self.gram.n_columns

    @property
    def target_ranges(self) -> list[slice]:
        return self.gram.target_ranges

    @property
    def state_nbytes(self) -> int:
        return self.n_folds * self.gram.state_nbytes

    @property
    def scratch_nbytes(self) -> int:
        return self.gram.scratch_nbytes

    @property
    def window_rows(self) -> int:
        """Rows that are read at once where folds alternate: at most a tile for most folds.

        Folds of a window differ in size by chance, and each product of a few rows costs D².
        """
        tile = gram_tile_rows(self.n_features)
        return self.n_folds * max(tile // 2, tile - int(_SPREADS * tile**0.5))

    @property
    def window_row_nbytes(self) -> int:
        """Bytes for each row of a window: the rows of a fold are copied, and sorted numbers."""
        copied = 8 * (self.n_features + self.n_targets + 2) * gram_tile_rows(self.n_features)
        return -(-copied // self.window_rows) + 32

    def zero(self) -> FoldsState:
        sizes = self.n_folds, self.n_features, self.n_targets
        return FoldsState.zero(*sizes, has_square=self.gram.has_square)

    def update(self, state: FoldsState, block: Block, kernels: Kernels) -> FoldsState:
        for fold, rows in self._by_fold(block):
            self.gram.update(state.fold(fold), rows, kernels)
        return state

    def merge(self, a: FoldsState, b: FoldsState) -> FoldsState:
        for fold in range(self.n_folds):
            self.gram.merge(a.fold(fold), b.fold(fold))
        return a

    def finalize(self, state: FoldsState) -> FoldsState:
        return state

    def is_finite(self, state: FoldsState) -> bool:
        diagonals = np.einsum("iif->if", state.gram)
        sums = (state.mean, state.y_mean) if self.centred else (diagonals, state.y_m2)
        return all(bool(np.isfinite(values).all()) for values in sums)

    def _by_fold(self, block: Block) -> Iterator[tuple[int, Block]]:
        """Yield the numbers of folds, and some of their rows."""
        folds = block.groups
        if self.n_folds == 1:
            yield 0, block
            return
        if folds is None:
            raise TypeError("these rows have no folds")
        if not block.n_rows:
            return
        starts = np.flatnonzero(np.append(True, folds[1:] != folds[:-1]))
        n_folds = np.count_nonzero(np.bincount(folds[starts]))
        if len(starts) <= _RUNS_A_FOLD * n_folds:
            for first, stop in pairwise([*starts.tolist(), block.n_rows]):
                yield int(folds[first]), block.rows(first, stop)
            return
        for start in range(0, block.n_rows, self.window_rows):
            rows = slice(start, min(start + self.window_rows, block.n_rows))
            weight = None if block.weight is None else block.weight[rows]
            window = Block(block.X[rows], block.y[rows], weight, block.start + start)
            yield from self._gathered(window, folds[rows])

    def _gathered(self, window: Block, folds: Int64) -> Iterator[tuple[int, Block]]:
        """Yield copies of the rows of each fold, a tile at a time."""
        # of 16 bits, because a stable sort of those is a radix sort
        order = np.argsort(folds.astype(np.uint16), kind="stable")
        ordered, tile = folds[order], gram_tile_rows(self.n_features)
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        bounds = [*starts.tolist(), len(order)]
        most = min(tile, max(stop - first for first, stop in pairwise(bounds)))
        room = np.empty((most, window.X.shape[1]), window.X.dtype)
        for first, stop in pairwise(bounds):
            for start in range(first, stop, tile):
                rows = order[start : min(start + tile, stop)]
                # numbers are right: "clip" writes to the room at once, "raise" by way of a copy
                X = np.take(window.X, rows, axis=0, out=room[: len(rows)], mode="clip")
                weight = None if window.weight is None else window.weight[rows]
                yield int(ordered[first]), Block(X, window.y[rows], weight, 0)


@dataclass(frozen=True, eq=False)
class BatchFolds(Folds):
    """The second moments of F folds for some of the targets: as :class:`BatchGram`."""

    in_order = True

    targets: tuple[int, int] | None = None
    computes_square: bool = True

    @cached_property
    def gram(self) -> Gram:
        return BatchGram(
            self.n_features,
            self.n_targets,
            self.centred,
            targets=self.targets,
            computes_square=self.computes_square,
        )
