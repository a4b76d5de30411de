"""The number of the fold of each row, as rows that are read beside X."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.blocks import on_host
from streamreg.sources.base import Reader, RowGrid, RowSource
from streamreg.sources.checks import group_numbers, narrow
from streamreg.sources.chunk_reader import ViewReader

if TYPE_CHECKING:
    from streamreg.blocks import Array, Int64

FOLD_DTYPE = np.dtype(np.uint16)
MOST_FOLDS = 1 << 16
# bytes a row, while the groups of rows are looked up
_LOOKED_UP_NBYTES = 32


class FoldNumbers(RowSource):
    """Numbers of folds, (N,); nothing is stored for them but what made them."""

    name = "folds"
    dtype = FOLD_DTYPE
    why_unreachable_from_workers = ""

    def __init__(self, grid: RowGrid) -> None:
        self.grid = grid
        self.shape = (grid.n_rows,)

    @property
    def pass_nbytes(self) -> int:
        return 0

    def reader_nbytes(self, block_rows: int) -> int:
        return block_rows * FOLD_DTYPE.itemsize


class ConsecutiveFolds(FoldNumbers):
    """F blocks of consecutive rows, of the sizes of scikit-learn's ``KFold``.

    The first N mod F folds have one row more than the others.
    """

    def __init__(self, grid: RowGrid, n_folds: int) -> None:
        super().__init__(grid)
        sizes = np.full(n_folds, grid.n_rows // n_folds)
        sizes[: grid.n_rows % n_folds] += 1
        self.bounds = np.concatenate([[0], np.cumsum(sizes)])

    def open(self) -> Reader:
        return _ConsecutiveReader(self.bounds)


class _ConsecutiveReader(Reader):
    def __init__(self, bounds: Int64) -> None:
        self._bounds = bounds

    def read(self, start: int, stop: int) -> Array:
        bounds: Int64 = np.clip(self._bounds, start, stop)
        heights = bounds[1:] - bounds[:-1]
        return np.repeat(np.arange(len(heights), dtype=FOLD_DTYPE), heights)


class GivenFolds(FoldNumbers):
    """Numbers of folds in memory, (N,): 2 bytes a row."""

    def __init__(self, grid: RowGrid, numbers: Array) -> None:
        super().__init__(grid)
        self.numbers = numbers

    def open(self) -> Reader:
        return ViewReader(self.numbers)


class GroupFolds(FoldNumbers):
    """The folds of groups: the groups of rows are read with them, and looked up."""

    def __init__(self, groups: RowSource, numbers: Int64, folds: Array) -> None:
        super().__init__(groups.grid)
        self.groups = groups
        self.numbers, self.folds = numbers, folds
        self.stamps = groups.stamps
        self.why_unreachable_from_workers = groups.why_unreachable_from_workers

    @property
    def pass_nbytes(self) -> int:
        return self.groups.pass_nbytes

    @property
    def shared_nbytes(self) -> int:
        return self.groups.shared_nbytes + self.numbers.nbytes + self.folds.nbytes

    def open(self) -> Reader:
        return _GroupReader(self.groups.open(), self.numbers, self.folds)

    def reader_nbytes(self, block_rows: int) -> int:
        return self.groups.reader_nbytes(block_rows) + _LOOKED_UP_NBYTES * block_rows

    def require_exists(self) -> None:
        self.groups.require_exists()

    def require_unchanged(self) -> None:
        self.groups.require_unchanged()


class _GroupReader(Reader):
    def __init__(self, groups: Reader, numbers: Int64, folds: Array) -> None:
        self._groups, self._numbers, self._folds = groups, numbers, folds

    def read(self, start: int, stop: int) -> Array:
        groups = group_numbers(on_host(narrow(self._groups.read(start, stop))))
        found: Array = self._folds[np.searchsorted(self._numbers, groups)]
        return found

    def close(self) -> None:
        self._groups.close()
