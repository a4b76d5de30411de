"""Weights of columns and the values that they fit, in one read, for the dual solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.ordered import OrderedAccumulator
from streamreg.blocks import View
from streamreg.kernels import blas

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels
    from streamreg.kernels.row_tiles import Columns
    from streamreg.kernels.strips import Strips

# rows, and columns, that a thread takes at a time
TILE_ROWS = TILE_COLUMNS = 256


class ColumnWeightsState(NamedTuple):
    """Columns so far."""

    n: Float64  #       ()      columns
    v: Float64  #       (D, M)
    values: Float64  #  (N, K)


class ColumnWeightsResult(NamedTuple):
    """Weights, and what they fit."""

    v: Float64  #       (D, M)  g·Zᵀα; of the first K columns v₀ + g·Zᵀα
    values: Float64  #  (N, K)  Z(g·v)


@dataclass(frozen=True, eq=False)
class ColumnWeights(OrderedAccumulator[ColumnWeightsState, ColumnWeightsResult]):
    """v = v₀ + g·Zᵀα, and the fitted values Z(g·v), with z = x·scale - centre; blocks are columns.

    α has M ≥ K columns, of which the first K are fitted. A block holds all rows of its columns, so
    that their weights are known before they are multiplied. Threads share first the columns and
    then the rows. One state holds 8·(D·M + N·K + 1) bytes.
    """

    numbers: Float64  # (N, M) α, in C order
    factor: Float64  # (D,) g
    before: Float64 | None  # (D, K) v₀; zeros if ``None``
    n_targets: int  # K
    columns: Columns
    strips: Strips

    @property
    def view(self) -> View:
        return View(self.strips.width)

    @property
    def state_nbytes(self) -> int:
        n, m = self.numbers.shape
        return column_weights_nbytes(n, len(self.factor), m, self.n_targets)

    @property
    def scratch_nbytes(self) -> int:
        return 8 * TILE_ROWS * TILE_COLUMNS

    def zero(self) -> ColumnWeightsState:
        n, m = self.numbers.shape
        v, values = np.zeros((len(self.factor), m)), np.zeros((n, self.n_targets))
        return ColumnWeightsState(np.zeros(()), v, values)

    def update(
        self, state: ColumnWeightsState, block: Block, kernels: Kernels
    ) -> ColumnWeightsState:
        strip, own = block.X.T, slice(block.start, block.start + block.n_rows)
        n, k = len(self.numbers), self.n_targets
        columns, factor = self.columns.at(own.start, own.stop), self.factor[own, None]
        pieces = list(self.strips.pieces(block.n_rows, TILE_COLUMNS))
        tiles = [slice(first, first + TILE_ROWS) for first in range(0, n, TILE_ROWS)]
        v = state.v[own]

        def sum_rows(at: int) -> None:
            room = np.empty(TILE_ROWS * TILE_COLUMNS)
            for tile in tiles:
                z = self.strips.widened(strip, pieces[at], columns, room, tile)
                blas.add_product(z.T, self.numbers[tile], v[pieces[at]])

        kernels.parallel.run(sum_rows, len(pieces), _nothing)
        v *= factor
        if self.before is not None:
            v[:, :k] += self.before[own]
        weights = factor * v[:, :k]

        def add_columns(at: int) -> None:
            room = np.empty(TILE_ROWS * TILE_COLUMNS)
            for piece in pieces:
                z = self.strips.widened(strip, piece, columns, room, tiles[at])
                blas.add_product(z, weights[piece], state.values[tiles[at]])

        kernels.parallel.run(add_columns, len(tiles), _nothing)
        state.n[...] += block.n_rows
        return state

    def finalize(self, state: ColumnWeightsState) -> ColumnWeightsResult:
        return ColumnWeightsResult(state.v, state.values)

    def is_finite(self, state: ColumnWeightsState) -> bool:
        # the moments, which an earlier pass computed, are finite
        del state
        return True


def column_weights_nbytes(n_rows: int, n_features: int, n_sums: int, n_targets: int) -> int:
    """Bytes of a state."""
    return 8 * (n_features * n_sums + n_rows * n_targets + 1)


def _nothing() -> None:
    """Prepare nothing beside the tasks."""
