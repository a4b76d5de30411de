"""Products of rows with rows as a sum over columns, XXᵀ in one read, for the dual solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.ordered import OrderedAccumulator
from streamreg.blocks import View
from streamreg.kernels import blas
from streamreg.kernels.strips import STRIP_COLUMNS

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels
    from streamreg.kernels.row_tiles import Columns
    from streamreg.kernels.strips import Strips

# Columns of the products that a thread computes at a time. Measured: 128 to 512 are equally fast.
PANEL_ROWS = 256


class ColumnProductsState(NamedTuple):
    """Products so far."""

    n: Float64  #         ()      columns
    products: Float64  #  (N, N)  Σ zᵢⱼzₖⱼ over columns j, i ≥ k: Fortran order, lower triangle


@dataclass(frozen=True, eq=False)
class ColumnProducts(OrderedAccumulator[ColumnProductsState, "Float64"]):
    """The lower triangle of ZZᵀ, (N, N), z = (x·scale - centre)·factor; blocks are columns.

    Of each 1,024 columns the products of all rows are added; threads share the columns of ZZᵀ.
    One state holds 8·(N² + 1) bytes.
    """

    n_rows: int  # N, of rows that count
    columns: Columns
    strips: Strips

    @property
    def view(self) -> View:
        return View(self.strips.width)

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.n_rows**2 + 1)

    @property
    def scratch_nbytes(self) -> int:
        return 8 * self.n_rows * STRIP_COLUMNS

    @property
    def n_parts(self) -> int:
        return -(-self.n_rows // PANEL_ROWS)

    def zero(self) -> ColumnProductsState:
        return ColumnProductsState(np.zeros(()), np.zeros((self.n_rows, self.n_rows), order="F"))

    def update(
        self, state: ColumnProductsState, block: Block, kernels: Kernels
    ) -> ColumnProductsState:
        strip, parallel = block.X.T, kernels.parallel
        columns = self.columns.at(block.start, block.start + block.n_rows)
        pieces = list(self.strips.pieces(block.n_rows, STRIP_COLUMNS))
        most = max(piece.stop - piece.start for piece in pieces)
        rooms = [np.empty(self.n_rows * most) for _ in range(min(parallel.n_tiles, len(pieces)))]
        ready = [self.strips.widened(strip, pieces[0], columns, rooms[0])]
        for number in range(1, len(pieces) + 1):
            z = ready.pop()

            def prepare(number: int = number) -> None:
                if number < len(pieces):
                    room = rooms[number % len(rooms)]
                    ready.append(self.strips.widened(strip, pieces[number], columns, room))

            def add(at: int, z: Float64 = z) -> None:
                start = at * PANEL_ROWS
                stop = min(start + PANEL_ROWS, self.n_rows)
                blas.add_row_products(z, state.products, start, stop)

            parallel.run(add, self.n_parts, prepare)
        state.n[...] += block.n_rows
        return state

    def finalize(self, state: ColumnProductsState) -> Float64:
        return state.products

    def is_finite(self, state: ColumnProductsState) -> bool:
        # the moments, which an earlier pass computed, are finite
        del state
        return True
