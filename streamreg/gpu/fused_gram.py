"""Tiles made ready for a Gram on a GPU, compiled: read twice, where CuPy's steps read five times.

It serves rows of float64 and float32 as they are stored; others are left to CuPy's steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.gpu.kernels import GramTiles
from streamreg.gpu.launch import TYPES, WARP

if TYPE_CHECKING:
    from streamreg.gpu.compile import Compiler
    from streamreg.kernels.base import Affine

_SOURCE = "gram.cu"
# as there
_THREADS, _CHUNK, _SPAN = 256, 256, 1024
# that 32 bits count
_MOST_VALUES = 1 << 31


class CompiledGramTiles(GramTiles):
    """Writes tiles less their means.

    Parameters
    ----------
    cupy
        The library.
    kernel
        Returns compiled kernels.
    """

    def __init__(self, cupy: Any, kernel: Compiler) -> None:  # noqa: ANN401
        super().__init__(cupy)
        self._kernel = kernel

    def ready(
        self,
        tile: Any,  # noqa: ANN401
        columns: Affine,
        weight: Any,  # noqa: ANN401
        total: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        is_served = tile.dtype.char in TYPES and tile.flags.c_contiguous and columns.scale is None
        if not is_served or columns.shift is None or tile.size >= _MOST_VALUES:
            return super().ready(tile, columns, weight, total, out)
        n_rows, n_features = tile.shape
        n_chunks, dtype = -(-n_rows // _CHUNK), TYPES[tile.dtype.char]
        # a weight of one for each row needs no array
        weights = np.uint64(0) if weight is None else weight
        found = self._xp.empty((2, n_chunks, n_features))
        self._kernel(_SOURCE, f"sum_columns<{dtype}>")(
            (-(-n_features // WARP) * n_chunks,), (_THREADS,),
            (tile, columns.shift, weights, np.int64(n_rows), np.int32(n_features), found),
            shared_mem=8 * 2 * _THREADS,
        )  # fmt: skip
        sums, varies = found[0].sum(axis=0), found[1].max(axis=0)
        mean = self._xp.zeros(n_features) if total is None else sums / total
        self._kernel(_SOURCE, f"centre_rows<{dtype}>")(
            (-(-tile.size // _SPAN),), (_THREADS,),
            (
                tile, columns.shift, mean, weights, np.int32(tile.size), np.int32(n_features), out,
            ),
        )  # fmt: skip
        return mean, varies
