"""The triangular factor of rows, a tile at a time, by LAPACK."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels.base import Affine
from streamreg.kernels.lapack import add_rows
from streamreg.kernels.states import count
from streamreg.kernels.tiles import BUFFERS_NBYTES, column, set_origins, tiles, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Parallel, Scale
    from streamreg.kernels.states import RootState

    # (tile, columns, √s or None, out): writes (x·scale - shift)·√s to out, (n, D) in Fortran order
    WriteColumns = Callable[[Array, Affine, Float64 | None, Float64], None]

# Of a tile. A taller one is factorised in fewer updates, each of which rounds. Measured in passes
# of ``Gram``, on one core with AVX-512, by rows: D = 8, 512 4.1, 4,096 1.8; D = 32, 256 3.2, 2,048
# 1.9; D = 256, 512 2.6, 4,096 2.9; D = 1,024, 256 2.9, 1,024 2.6.
_TILE_NBYTES, _MOST_TILE_NBYTES, _MIN_ROWS = 1 << 20, 16 << 20, 256
_LINE = 8  # numbers of a line of the cache


def root_tile_rows(size: int) -> int:
    """Return the rows of a tile of P columns."""
    rows = max(_TILE_NBYTES // (8 * size), size)
    return max(_MIN_ROWS, min(rows, _MOST_TILE_NBYTES // (8 * size)) // _LINE * _LINE)


def root_scratch_nbytes(size: int, n_targets: int) -> int:
    """Bytes of a tile of P columns, of its rows as they are widened, and of its y."""
    rows = root_tile_rows(size)
    return 8 * (size * (rows + 4 * _LINE) + n_targets * rows) + BUFFERS_NBYTES


def root(
    block: Block,
    state: RootState,
    parallel: Parallel,
    *,
    centred: bool,
    x_scale: Scale,
    y_scale: Scale,
    write: WriteColumns | None = None,
) -> None:
    """Add the rows of a block to R."""
    write = write or _write_columns
    d, size = block.X.shape[1], len(state.root)
    height = min(root_tile_rows(size), block.n_rows)
    # an odd number of lines from one column to the next, so that the cache holds many columns
    ahead = -(-height // (2 * _LINE)) * 2 * _LINE + _LINE
    room = np.empty((ahead, size), order="F")
    for tile, tile_y, weight in tiles(block, height):
        n = len(tile)
        if centred:
            set_origins(state, tile, tile_y, x_scale, y_scale)
        shift, y_shift = (state.origin, state.y_origin) if centred else (None, None)
        roots = None if weight is None else np.sqrt(weight)
        room[:n, 0] = 0.0 if not centred else 1.0 if roots is None else roots
        write(tile, Affine(x_scale, shift), roots, room[:n, 1 : d + 1])
        room[:n, d + 1 :] = column(tile_y, Affine(y_scale, y_shift))
        if roots is not None:
            room[:n, d + 1 :] *= roots[:, None]
        still = np.flatnonzero(state.varies == 0)
        for j in still:
            state.varies[j] = room[:n, 1 + j].any()
        add_rows(state.root, room, n, parallel)
        state.updates[...] += 1
        count(np, state, n, weight)


def _write_columns(tile: Array, columns: Affine, roots: Float64 | None, out: Float64) -> None:
    for start in range(0, len(tile), _MIN_ROWS):
        part = slice(start, start + _MIN_ROWS)
        z = widen(tile[part], np.empty((len(tile[part]), tile.shape[1])), columns)
        out[part] = z if roots is None else z * roots[part, None]
