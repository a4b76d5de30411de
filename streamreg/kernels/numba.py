"""The kernels that read each row once, for one target and at most one direction; else NumPy's.

They read rows of float64 and float32 in this machine's byte order; other rows are widened first, a
tile at a time.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.base import AS_STORED, Affine, Kernels, KernelSet, Scale
from streamreg.kernels.numpy import column, room_for, tile_rows, tiles, widen
from streamreg.kernels.states import count
from streamreg.signals import uninterrupted

if TYPE_CHECKING:
    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.states import MomentsState, ProductState

# for fewer bytes, some tens of passes gain less than the half second that Numba takes to load
_WORTH_NBYTES = 256 << 20
# Numba and LLVM: measured 115 to 130 MiB, and 160 the first time, when the loops are compiled
_LIBRARY_NBYTES = 168 << 20
# of a tile as stored, which is read twice: the second time from the cache that threads share
_TILE_NBYTES = 4 << 20
# rows at a time, because targets and weights are copied: at most the memory of NumPy's tiles
_MOST_ROWS = 1 << 14


def load() -> None:
    """Import Numba and the loops, compiled the first time; a broken Numba raises any exception."""
    # after an interrupted import Numba would never work again
    uninterrupted(import_module, "streamreg.kernels.numba_loops")


def library_nbytes() -> int:
    """Bytes that :func:`load` adds to this process; 0 if it is loaded."""
    return 0 if "streamreg.kernels.numba_loops" in sys.modules else _LIBRARY_NBYTES


def is_worth(pass_nbytes: int) -> bool:
    """Whether Numba is installed, and worth loading for passes of this size."""
    return pass_nbytes >= _WORTH_NBYTES and is_installed()


def is_installed() -> bool:
    """Whether Numba is installed and may compile; does not import it."""
    may_compile = os.environ.get("NUMBA_DISABLE_JIT", "0") in {"", "0"}
    return may_compile and find_spec("numba") is not None


def products(
    block: Block,
    state: ProductState,
    *,
    coefficients: Float64,
    bias: Float64,
    x: Affine = AS_STORED,
    y: Affine = AS_STORED,
) -> None:
    """Add u = XV + b, less y in its first column, and uᵀsX to ``state``."""
    from streamreg.kernels import numba_loops  # noqa: PLC0415  (imports Numba)

    n_columns = len(state.sums)
    if len(state.rr) > 1 or n_columns > 2:  # noqa: PLR2004  (w, and a direction)
        numpy_kernels.products(block, state, coefficients=coefficients, bias=bias, x=x, y=y)
        return
    as_stored = _is_readable(block.X) and x.scale is None and x.shift is None
    rows = min(_MOST_ROWS if as_stored else tile_rows(block.X.shape[1]), block.n_rows)
    room = room_for(block.X, rows, always=not as_stored)
    V = np.ascontiguousarray(coefficients.T)
    for tile, tile_y, weight in tiles(block, rows):
        z = tile if as_stored else widen(tile, room, x)
        # y - b first: both may be large and close, and their difference is then exact
        target = column(tile_y, y)[:, 0] - bias[0]
        s = np.broadcast_to(1.0, len(z)) if weight is None else weight
        if n_columns == 1:
            sums = numba_loops.residual_product(z, V, target, s, state.products)
        else:
            sums = numba_loops.two_products(z, V, bias[1], target, s, state.products)
        state.rr[...] += sums[0]
        np.add(state.sums, sums[1:], out=state.sums)
        count(np, state, len(z), weight)


def moments(block: Block, state: MomentsState, *, x_scale: Scale, y_scale: Scale) -> None:
    """Add a block to means and centred sums."""
    from streamreg.kernels import numba_loops  # noqa: PLC0415  (imports Numba)

    if not _is_readable(block.X) or x_scale is not None or block.y.shape[1] != 1:
        numpy_kernels.moments(block, state, x_scale=x_scale, y_scale=y_scale)
        return
    n_features = block.X.shape[1]
    rows = min(_MOST_ROWS, max(8, _TILE_NBYTES // (n_features * block.X.itemsize)))

    def about_mean(tile: Array, y: Float64, s: Float64, total: float) -> numpy_kernels.Centred:
        mean, squares, cross = np.zeros((3, n_features))
        numba_loops.sums_and_bounds(tile, state.origin, s, mean, state.low, state.high)
        mean /= total
        numba_loops.centred_sums(tile, state.origin, mean, y[:, 0], s, squares, cross)
        return mean, squares, cross[None]

    numpy_kernels.add_moments(block, state, rows, about_mean, x_scale=None, y_scale=y_scale)


def _is_readable(X: Array) -> bool:
    flags = X.flags
    return X.dtype.char in "fd" and X.dtype.isnative and flags.c_contiguous and flags.aligned


KERNELS = KernelSet(
    {"dense": Kernels({"products": products, "moments": moments, "gram": numpy_kernels.gram})}
)
