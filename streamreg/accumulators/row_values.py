"""The targets, weights and numbers of the rows that count, in O(N·K), without reading X."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.ordered import OrderedAccumulator
from streamreg.blocks import View
from streamreg.kernels.base import AS_STORED, Affine
from streamreg.kernels.tiles import column

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class RowValuesState(NamedTuple):
    """Rows so far."""

    n: Float64  #        ()      rows that count
    numbers: Float64  #  (N,)    the number of each in X
    targets: Float64  #  (N, K)  y
    weight: Float64  #   (N,)    sᵢ


@dataclass(frozen=True, eq=False)
class RowValues(OrderedAccumulator[RowValuesState, RowValuesState]):
    """The numbers, targets (N, K) and weights (N,) of the N rows that count.

    One state holds 8·(N·(K + 2) + 1) bytes.
    """

    n_rows: int  # N
    n_targets: int  # K
    y: Affine = AS_STORED

    @property
    def view(self) -> View:
        return View(without_x=True)

    @property
    def state_nbytes(self) -> int:
        return row_values_nbytes(self.n_rows, self.n_targets)

    @property
    def scratch_nbytes(self) -> int:
        return 0

    def zero(self) -> RowValuesState:
        n = self.n_rows
        return RowValuesState(np.zeros(()), np.zeros(n), np.zeros((n, self.n_targets)), np.ones(n))

    def update(self, state: RowValuesState, block: Block, kernels: Kernels) -> RowValuesState:
        del kernels
        rows = slice(int(state.n), int(state.n) + block.n_rows)
        state.numbers[rows] = block.X[:, 0]
        state.targets[rows] = column(block.y, self.y)
        if block.weight is not None:
            state.weight[rows] = block.weight
        state.n[...] += block.n_rows
        return state

    def finalize(self, state: RowValuesState) -> RowValuesState:
        return state

    def is_finite(self, state: RowValuesState) -> bool:
        # the moments, which an earlier pass computed, are finite
        del state
        return True


def row_values_nbytes(n_rows: int, n_targets: int) -> int:
    """Bytes of a state."""
    return 8 * (n_rows * (n_targets + 2) + 1)
