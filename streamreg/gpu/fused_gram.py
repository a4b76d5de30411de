"""Compiled kernels that centre tiles for a Gram on a GPU: two reads of a tile, not CuPy's five.

Serves rows of float64 and float32 as they are stored; others are left to CuPy's steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.gpu.kernels import centre_tile
from streamreg.gpu.launch import TYPES, WARP

if TYPE_CHECKING:
    from streamreg.gpu.compile import Compiler, CuPy, DeviceArray
    from streamreg.gpu.kernels import CentreTile
    from streamreg.kernels.base import Affine

# the same constants as in gram.cu
_THREADS, _CHUNK, _SPAN = 256, 256, 1024


def compiled_centring(cupy: CuPy, kernel: Compiler) -> CentreTile:
    """Return :func:`centre_tile` for a GPU."""

    def centre(
        tile: DeviceArray,
        columns: Affine,
        weight: DeviceArray | None,
        total: DeviceArray | None,
        out: DeviceArray,
    ) -> tuple[DeviceArray, DeviceArray]:
        if tile.dtype.char not in TYPES or columns.scale is not None:
            return centre_tile(cupy, tile, columns, weight, total, out)
        n_rows, n_features = tile.shape
        n_chunks, dtype = -(-n_rows // _CHUNK), TYPES[tile.dtype.char]
        # a null pointer if rows have no weights
        weights = np.uint64(0) if weight is None else weight
        partial_sums = cupy.empty((2, n_chunks, n_features))
        given = tile, columns.shift, weights, np.int64(n_rows), np.int32(n_features), partial_sums
        n_blocks = -(-n_features // WARP) * n_chunks
        add = kernel("gram.cu", f"sum_columns<{dtype}>")
        add((n_blocks,), (_THREADS,), given, shared_mem=8 * 2 * _THREADS)
        sums, varies = partial_sums[0].sum(axis=0), partial_sums[1].max(axis=0)
        mean = cupy.zeros(n_features) if total is None else sums / total
        sizes = np.int32(tile.size), np.int32(n_features)
        write = kernel("gram.cu", f"centre_rows<{dtype}>")
        n_blocks = -(-tile.size // _SPAN)
        write((n_blocks,), (_THREADS,), (tile, columns.shift, mean, weights, *sizes, out))
        return mean, varies

    return centre
