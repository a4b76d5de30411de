"""Products of rows with rows, a panel of columns of XXᵀ in each pass, for the dual solver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.accumulators.ordered import OrderedAccumulator
from streamreg.kernels import blas
from streamreg.kernels.base import AS_STORED, Affine
from streamreg.kernels.row_tiles import (
    PIECE_ROWS,
    Columns,
    column_parts,
    new_room,
    row_tile_rows,
)
from streamreg.kernels.tiles import column

if TYPE_CHECKING:
    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Kernels, Parallel


class RowProductsState(NamedTuple):
    """Products so far, and the rows that the next rows are multiplied with."""

    n: Float64  #         ()               rows that count
    products: Float64  #  (N - first, P)   zᵢ·zⱼ, i ≥ j: Fortran order, lower triangle
    targets: Float64  #   (N, K)           y
    weight: Float64  #    (N,)             sᵢ
    panel: Array  #       (P, D)           rows of the panel, as stored
    tile: Array  #        (T, D)           rows after it that are not yet multiplied, as stored


class RowProductsResult(NamedTuple):
    """A panel of products, and what else is known of the rows."""

    products: Float64  # (N - first, P) zᵢ·zⱼ, i ≥ j: Fortran order, lower triangle
    targets: Float64  #  (N, K)
    weight: Float64  #   (N,)


@dataclass(frozen=True, eq=False)
class RowProducts(OrderedAccumulator[RowProductsState, RowProductsResult]):
    """Columns ``first`` to ``stop`` of the lower triangle of ZZᵀ, z = (x·scale - centre)·factor.

    A pass keeps the P = stop - first rows of the panel, as stored, and multiplies each tile of T
    rows from the panel on with them, 2,048 columns at a time. Every zᵢ·zⱼ is a sum of products of
    tiles that are the same in any panel: passes with panels of any height give the same bits. One
    state holds 8·((N - first)·P + N·(K + 1)) bytes, and P + T rows as stored.
    """

    n_rows: int  # N, of rows that count
    n_features: int  # D
    n_targets: int  # K
    first: int  # a multiple of T
    stop: int  # a multiple of T, or N
    dtype: np.dtype[Any]  # of X
    columns: Columns
    y: Affine = AS_STORED

    @property
    def tile_rows(self) -> int:
        """T."""
        return row_tile_rows(self.n_features)

    @property
    def state_nbytes(self) -> int:
        return row_products_nbytes(
            self.n_rows - self.first,
            self.stop - self.first,
            self.n_features,
            self.n_targets,
            self.dtype.itemsize,
        )

    @property
    def scratch_nbytes(self) -> int:
        return 3 * new_room(self.tile_rows).nbytes

    @property
    def n_parts(self) -> int:
        return -(-(self.stop - self.first) // PIECE_ROWS)

    def zero(self) -> RowProductsState:
        width, d = self.stop - self.first, self.n_features
        after = self.tile_rows if self.stop < self.n_rows else 0
        return RowProductsState(
            n=np.zeros(()),
            products=np.zeros((self.n_rows - self.first, width), order="F"),
            targets=np.zeros((self.n_rows, self.n_targets)),
            weight=np.ones(self.n_rows),
            panel=np.zeros((width, d), self.dtype),
            tile=np.zeros((after, d), self.dtype),
        )

    def update(self, state: RowProductsState, block: Block, kernels: Kernels) -> RowProductsState:
        done, rows = int(state.n), slice(int(state.n), int(state.n) + block.n_rows)
        state.targets[rows] = column(block.y, self.y)
        if block.weight is not None:
            state.weight[rows] = block.weight
        start = 0
        while start < block.n_rows:
            # up to the end of the tile that row ``done`` is in
            tile_first = done - done % self.tile_rows
            tile_stop = min(tile_first + self.tile_rows, self.n_rows)
            height = min(block.n_rows - start, tile_stop - done)
            if done >= self.first:
                tile = self._rows(state, tile_first, tile_stop)
                at = done - tile_first
                tile[at : at + height] = block.X[start : start + height]
                if done + height == tile_stop:
                    self._multiply(state, tile, tile_first, kernels.parallel)
            start, done = start + height, done + height
        state.n[...] = done
        return state

    def _rows(self, state: RowProductsState, first: int, stop: int) -> Array:
        """Return the memory for rows of a tile: in the panel, or after it."""
        if first < self.stop:
            return state.panel[first - self.first : stop - self.first]
        return state.tile[: stop - first]

    def _multiply(
        self, state: RowProductsState, tile: Array, first: int, parallel: Parallel
    ) -> None:
        """Multiply a complete tile with the rows of the panel up to itself."""
        base, parts = self.first, list(column_parts(self.n_features))
        firsts = range(base, min(self.stop, first + len(tile)), PIECE_ROWS)
        rooms = [new_room(self.tile_rows) for _ in range(parallel.n_tiles)]
        ready = [self.columns.widened(tile, parts[0], rooms[0])]
        for number, part in enumerate(parts, start=1):
            z = ready.pop()

            def prepare(number: int = number) -> None:
                if number < len(parts):
                    room = rooms[number % len(rooms)]
                    ready.append(self.columns.widened(tile, parts[number], room))

            def add(at: int, z: Float64 = z, part: slice = part) -> None:
                piece_first = firsts[at]
                piece = slice(piece_first - base, min(piece_first + PIECE_ROWS, self.stop) - base)
                if piece_first < first:
                    left, panel = z, state.panel[piece]
                    right = self.columns.widened(panel, part, new_room(len(panel)))
                else:
                    # of the products of the tile with itself, the lower triangle
                    left = z[piece_first - first :]
                    right = left[:PIECE_ROWS]
                bottom = first - base + len(tile)
                rows = slice(bottom - len(left), bottom)
                blas.add_product(left, right.T, state.products[rows, piece])

            parallel.run(add, len(firsts), prepare)

    def finalize(self, state: RowProductsState) -> RowProductsResult:
        return RowProductsResult(state.products, state.targets, state.weight)

    def is_finite(self, state: RowProductsState) -> bool:
        # the moments, which an earlier pass computed, are finite
        del state
        return True


def row_products_nbytes(
    n_rows: int, panel_rows: int, n_features: int, n_targets: int, itemsize: int
) -> int:
    """Bytes of a state with products of N rows and P rows of the panel."""
    sums = n_rows * (panel_rows + n_targets + 1) + 1
    tile_rows = row_tile_rows(n_features) if panel_rows < n_rows else 0
    return 8 * sums + (panel_rows + tile_rows) * n_features * itemsize
