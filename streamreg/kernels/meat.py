"""Sums of squared residuals with columns, a tile at a time: the meat of robust covariances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels.base import Affine
from streamreg.kernels.tiles import column, tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.blocks import Array, Block, Float64, Int64
    from streamreg.kernels.base import Parallel, Scale
    from streamreg.kernels.states import MeatState
    from streamreg.kernels.triangle import Triangle

    # (tile, columns, None, None, marks, out): writes x·scale - shift to out, (n, D)
    WriteTile = Callable[[Array, Affine, None, None, Float64, Float64], Float64]

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class FittedRows:
    """How rows are read after a fit: z = x·scale - origin - offset, r = zv - (y - its mean)."""

    scale: Float64  # (D,) 0 for constant columns
    origin: Float64  # (D,)
    offset: Float64  # (D,)
    weights: Float64  # (D,) v
    y_scale: Scale  # (1,)
    y_origin: Float64  # (1,)
    y_offset: float

    def read(self, tile: Array, tile_y: Array, write: WriteTile, out: Float64) -> Float64:
        """Write z to ``out``, (n, D), and return r, (n,)."""
        write(tile, Affine(self.scale, self.origin), None, None, np.ones(len(self.scale)), out)
        # after the origin, because the difference of similar numbers is exact
        out -= self.offset
        y = column(tile_y[:, :1], Affine(self.y_scale, self.y_origin))[:, 0]
        return np.asarray(out @ self.weights - (y - self.y_offset))


@dataclass(frozen=True, eq=False)
class Leverage:
    """h = s·(share + ‖q‖²·factor), and the weights ω = s² r²/(1 - h)ᵖ."""

    power: int  # p
    share: float  # 1/Σs; 0 without an intercept
    factor: float  # 1/Σs
    least: float  # a smaller 1 - h is rounding, and so is the residual: such rows are counted


def meat(
    block: Block,
    state: MeatState,
    parallel: Parallel,
    *,
    fitted: FittedRows,
    triangle: Triangle | None,
    leverage: Leverage | None,
    rows: int,
    write: WriteTile,
    add: Callable[[Iterator[Float64], Float64, Parallel], None],
) -> None:
    """Add Σ ω [1, q][1, q]ᵀ of a block; q = Wz, or z itself without a triangle."""
    ready = _weighted_tiles(
        block, state, parallel.n_tiles, fitted, triangle, leverage, min(rows, block.n_rows), write
    )
    add(ready, state.meat, parallel)


def _weighted_tiles(
    block: Block,
    state: MeatState,
    n_rooms: int,
    fitted: FittedRows,
    triangle: Triangle | None,
    leverage: Leverage | None,
    rows: int,
    write: WriteTile,
) -> Iterator[Float64]:
    """Yield √ω·q of each tile, once all of it but the meat is added to the state."""
    d = block.X.shape[1]
    plain = np.empty((rows, d) if triangle else (0, d))
    rooms = np.empty((n_rooms, rows, d))
    first = block.start
    for number, (tile, tile_y, weight) in enumerate(tiles(block, rows)):
        n, room = len(tile), rooms[number % n_rooms]
        z = plain[:n] if triangle else room[:n]
        r = fitted.read(tile, tile_y, write, z)
        omega = r * r if weight is None else (r * weight) ** 2
        q = z
        if triangle is not None:
            triangle.whiten(z.T, room[:n].T)
            q = room[:n]
            q[:, triangle.rank :] = 0.0
            if leverage is not None:
                _divide(omega, q, weight, leverage, state, first)
        np.add(state.total, omega.sum(), out=state.total)
        np.add(state.sums, omega @ q, out=state.sums)
        q *= np.sqrt(omega)[:, None]
        state.n[...] += n
        first += n
        yield q


def _divide(
    omega: Float64,
    q: Float64,
    weight: Float64 | None,
    leverage: Leverage,
    state: MeatState,
    first: int,
) -> None:
    """Divide ω by (1 - h)ᵖ, in place, and count rows with h near 1."""
    h = np.einsum("ij,ij->i", q, q) * leverage.factor + leverage.share
    if weight is not None:
        h *= weight
    exact = 1 - h < leverage.least
    if exact.any():
        at = first + int(np.argmax(exact))
        factors = _mixed(first + np.flatnonzero(exact))
        state.exact[0] += factors.sum()
        state.exact[1:] += factors @ q[exact]
        np.add(state.n_exact, np.count_nonzero(exact), out=state.n_exact)
        np.minimum(state.first_exact, at, out=state.first_exact)
    omega /= np.maximum(1 - h, leverage.least) ** leverage.power


def _mixed(numbers: Int64) -> Float64:
    """Return factors from ½ to 3/2 that look random, of the numbers of rows."""
    return np.asarray(0.5 + np.modf(numbers * _GOLDEN)[0])


def meat_scratch_nbytes(n_features: int, rows: int) -> int:
    """Bytes that :func:`meat` needs beside state and block, with tiles of this many rows."""
    return 8 * (2 * rows * (n_features + 4) + 64 * rows + 4 * n_features)
