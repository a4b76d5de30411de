"""The triangular factor of rows, updated by rows or by another factor, in place.

LAPACK's ``dtpqrt`` factorises [R; B] and writes the new R to the old one [1]_. Columns are taken a
panel at a time: a panel is factorised, and then the panels to its right are updated, which several
threads may share.

References
----------
.. [1] Elmroth & Gustavson (2000), IBM J. Res. Dev. 44(4), 605-624: blocked QR.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np

from streamreg.kernels.routines import at, call, step

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.kernels.base import Parallel

# columns of a panel
_PANEL = 512
# Reflectors of a block, up to this many columns. Measured in passes of ``Gram``: D = 32, 8 1.9 and
# 32 2.8; D = 256, 8 2.9, 16 2.6 and 64 3.3; D = 1,024, 8 3.3 and 32 2.6.
_BLOCKS = {128: 8, 512: 16}
_MOST_IN_BLOCK = 32
# rows of another factor that are copied at once
_MERGED_ROWS = 256


def n_panels(size: int) -> int:
    """Return how many panels a factor (P, P) has, one fewer of which threads can share."""
    return -(-size // _PANEL)


def lapack_nbytes(size: int) -> int:
    """Bytes that updates of a factor (P, P) take, beside the rows."""
    return 8 * size * _MERGED_ROWS + 2 * 8 * _MOST_IN_BLOCK * _PANEL


def add_rows(root: Float64, rows: Float64, n: int, parallel: Parallel) -> None:
    """Write the R of [root; rows] to ``root``; ``rows`` is overwritten.

    ``root`` is (P, P), upper triangular, and ``rows`` (≥ n, P), both in Fortran order.
    """
    size = len(root)
    panels = [slice(at_, min(at_ + _PANEL, size)) for at_ in range(0, size, _PANEL)]
    for number, panel in enumerate(panels):
        reflectors = _factorise(root[panel, panel], rows[:n, panel], triangular_rows=0)
        later = panels[number + 1 :]

        def update(
            which: int,
            panel: slice = panel,
            reflectors: Float64 = reflectors,
            later: list[slice] = later,
        ) -> None:
            _apply(reflectors, rows[:n, panel], root[panel, later[which]], rows[:n, later[which]])

        if later:
            parallel.run(update, len(later), _nothing)


def _nothing() -> None:
    """Prepare nothing beside the tasks."""


def merge_roots(root: Float64, other: Float64, first_row: Float64) -> None:
    """Write the R of [root; other] to ``root``; ``other`` has another first row, (P,)."""
    size = len(root)
    room = np.empty(size * min(_MERGED_ROWS, size))
    for start in range(0, size, _MERGED_ROWS):
        height = min(_MERGED_ROWS, size - start)
        shape = (height, size - start)
        rows = room[: height * (size - start)].reshape(shape, order="F")
        rows[...] = other[start : start + height, start:]
        if not start:
            rows[0] = first_row
        _factorise(root[start:, start:], rows, triangular_rows=height)


def add_diagonal(root: Float64, diagonal: Float64, right: Float64) -> Float64:
    """Write the R of [root; diag] to ``root``, and Qᵀ[right; 0] to ``right`` (P, K).

    Returns the sum of squares of what Qᵀ moves below them, (K,).
    """
    size, k = right.shape
    below = np.zeros(k)
    for start in range(0, size, _MERGED_ROWS):
        height = min(_MERGED_ROWS, size - start)
        rows = np.zeros((height, size - start), order="F")
        np.fill_diagonal(rows, diagonal[start : start + height])
        reflectors = _factorise(root[start:, start:], rows, triangular_rows=height)
        moved = np.zeros((height, k), order="F")
        _apply(reflectors, rows, right[start:], moved, triangular_rows=height)
        below += np.einsum("ij,ij->j", moved, moved)
    return below


def _factorise(root: Float64, rows: Float64, *, triangular_rows: int) -> Float64:
    """Factorise [root; rows]; the rows become reflectors V. Returns their factors T (nb, P)."""
    n, size = rows.shape
    wanted = (block for most, block in _BLOCKS.items() if size <= most)
    block = min(size, next(wanted, _MOST_IN_BLOCK))
    T, work, info = np.empty((block, size), order="F"), np.empty(block * size), ctypes.c_int()
    call(
        "dtpqrt",
        *(n, size, triangular_rows, block),
        *(at(root), step(root), at(rows), step(rows)),
        *(at(T), block, at(work), ctypes.byref(info)),
    )
    return T


def _apply(
    T: Float64, V: Float64, root: Float64, rows: Float64, *, triangular_rows: int = 0
) -> None:
    """Apply the reflectors of a panel to columns of [root; rows]."""
    (n, count), (block, _), width = V.shape, T.shape, rows.shape[1]
    work, info = np.empty(block * width), ctypes.c_int()
    call(
        "dtpmqrt",
        *(b"L", b"T", n, width, count, triangular_rows, block),
        *(at(V), step(V), at(T), block),
        *(at(root), step(root), at(rows), step(rows)),
        *(at(work), ctypes.byref(info)),
    )
