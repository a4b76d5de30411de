"""Weighted sums of rows, ZᵀA, in O(D·M), for the weights of the dual solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.ordered import OrderedAccumulator
from streamreg.kernels import blas
from streamreg.kernels.row_tiles import Columns, column_parts, new_room, row_tile_rows

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class RowSumsState(NamedTuple):
    """Sums so far."""

    n: Float64  #     ()      rows that count
    sums: Float64  #  (D, M)  Σ zᵢaᵢᵀ


@dataclass(frozen=True, eq=False)
class RowSums(OrderedAccumulator[RowSumsState, "Float64"]):
    """Σ zᵢaᵢᵀ, (D, M), of numbers a for each row that counts, (N, M); z is that of RowProducts.

    Threads share the columns of X. One state holds 8·(D·M + 1) bytes.
    """

    numbers: Float64  # (N, M) a, in C order
    n_features: int  # D
    columns: Columns

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.n_features * int(self.numbers.shape[1]) + 1)

    @property
    def scratch_nbytes(self) -> int:
        return new_room(row_tile_rows(self.n_features)).nbytes

    @property
    def n_parts(self) -> int:
        return sum(1 for _ in column_parts(self.n_features))

    def zero(self) -> RowSumsState:
        return RowSumsState(np.zeros(()), np.zeros((self.n_features, self.numbers.shape[1])))

    def update(self, state: RowSumsState, block: Block, kernels: Kernels) -> RowSumsState:
        n, height = int(state.n), row_tile_rows(self.n_features)
        numbers = self.numbers[n : n + block.n_rows]
        parts = list(column_parts(self.n_features))

        def add(at: int) -> None:
            room = new_room(min(height, block.n_rows))
            for first in range(0, block.n_rows, height):
                rows = slice(first, first + height)
                z = self.columns.widened(block.X[rows], parts[at], room)
                blas.add_product(z.T, numbers[rows], state.sums[parts[at]])

        kernels.parallel.run(add, len(parts), lambda: None)
        state.n[...] = n + block.n_rows
        return state

    def finalize(self, state: RowSumsState) -> Float64:
        return state.sums

    def is_finite(self, state: RowSumsState) -> bool:
        # the moments, which an earlier pass computed, are finite
        del state
        return True
