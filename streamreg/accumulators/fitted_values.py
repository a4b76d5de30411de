"""The fitted value of each row, in O(N·K), for the residuals of the dual solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.ordered import OrderedAccumulator
from streamreg.kernels import blas
from streamreg.kernels.row_tiles import Columns, column_parts, new_room

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels

# rows that a thread takes at a time: blocks of wide rows have few
VALUE_ROWS = 16


class FittedValuesState(NamedTuple):
    """Values so far."""

    n: Float64  #       ()      rows that count
    values: Float64  #  (N, K)  zᵢW


@dataclass(frozen=True, eq=False)
class FittedValues(OrderedAccumulator[FittedValuesState, "Float64"]):
    """ZW, (N, K), of the N rows that count; z is that of RowProducts.

    Threads share the rows of a block. One state holds 8·(N·K + 1) bytes.
    """

    n_rows: int  # N
    weights: Float64  # (D, K) W
    columns: Columns

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.n_rows * int(self.weights.shape[1]) + 1)

    @property
    def scratch_nbytes(self) -> int:
        return new_room(VALUE_ROWS).nbytes

    def zero(self) -> FittedValuesState:
        return FittedValuesState(np.zeros(()), np.zeros((self.n_rows, self.weights.shape[1])))

    def update(self, state: FittedValuesState, block: Block, kernels: Kernels) -> FittedValuesState:
        n = int(state.n)
        values = state.values[n : n + block.n_rows]

        def add(at: int) -> None:
            rows, room = slice(at * VALUE_ROWS, (at + 1) * VALUE_ROWS), new_room(VALUE_ROWS)
            for part in column_parts(len(self.weights)):
                z = self.columns.widened(block.X[rows], part, room)
                blas.add_product(z, self.weights[part], values[rows])

        kernels.parallel.run(add, -(-block.n_rows // VALUE_ROWS), lambda: None)
        state.n[...] = n + block.n_rows
        return state

    def finalize(self, state: FittedValuesState) -> Float64:
        return state.values

    def is_finite(self, state: FittedValuesState) -> bool:
        # the moments, which an earlier pass computed, are finite
        del state
        return True
