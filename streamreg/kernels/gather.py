"""Columns of a table to rows: the copy that every block of a table needs."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels.library import load_library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streamreg.blocks import Array, Float64

# the types that the compiled loop reads, in the order of `enum type` in rows.h
_TYPES = ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_NUMBERS = {np.dtype(name): number for number, name in enumerate(_TYPES)}
_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
# rows that NumPy writes column by column while they are in the processor's cache
_TILE_ROWS = 512


class Columns:
    """Columns of n numbers, and their places in rows of float64; the values are not copied.

    ``values`` maps the number of a place to a contiguous array (n,), of integers or floats of at
    most 64 bits in the byte order of the processor.
    """

    def __init__(self, values: Mapping[int, Array]) -> None:
        self._values = values
        self._addresses: Array | None = None
        library = load_library()
        if library is not None and all(each.dtype in _NUMBERS for each in values.values()):
            self._gather = library.functions.gather
            self._gather.restype = None
            self._gather.argtypes = [_POINTER] * 3 + [_INT64] * 3 + [_POINTER, _INT64]
            pointers = [each.__array_interface__["data"][0] for each in values.values()]
            types = [_NUMBERS[each.dtype] for each in values.values()]
            self._addresses = np.array([pointers, types, list(values)], np.int64)

    def write(self, start: int, rows: Float64) -> None:
        """Write row ``start`` and those after it to ``rows`` (m, D), which is in C order."""
        if not self._values:
            return
        if self._addresses is None:
            for low in range(0, len(rows), _TILE_ROWS):
                tile = rows[low : low + _TILE_ROWS]
                first = start + low
                for place, values in self._values.items():
                    tile[:, place] = values[first : first + len(tile)]
            return
        if not rows.flags.c_contiguous:
            raise ValueError("rows are not in C order")
        at = self._addresses.ctypes.data
        step = self._addresses.strides[0]
        count = len(self._values)
        places = (at, at + step, at + 2 * step)
        self._gather(*places, count, start, len(rows), rows.ctypes.data, rows.shape[1])
