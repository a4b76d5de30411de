"""The memory that kernels need beside states and blocks, for every implementation on the host.

Each bound is that of NumPy's kernels, which keep whole tiles as float64. The compiled ones need
less: a tile of at most 256 KiB or eight rows, and a copy of y of at most 1 MiB or one such tile.
"""

from __future__ import annotations

from streamreg.kernels.numpy import (
    FEW,
    FEW_COLUMNS,
    gram_tile_rows,
    predict_rows,
    residuals_rows,
    target_width,
    tile_rows,
)
from streamreg.kernels.residuals import ARRAYS_ALIVE
from streamreg.kernels.tiles import BUFFERS_NBYTES


def products_nbytes(n_features: int, n_columns: int) -> int:
    """Bytes that ``products`` needs for M columns of coefficients."""
    rows = tile_rows(n_features)
    values = rows * (n_features + 3 * n_columns) + n_columns * n_features
    return 8 * values + BUFFERS_NBYTES


def predict_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes that ``predict`` needs for K targets beside what it returns."""
    return 8 * predict_rows(n_features, n_targets) * n_features + BUFFERS_NBYTES


def moments_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes that ``moments`` needs for K targets."""
    rows = tile_rows(n_features)
    values = rows * (n_features + 4 * n_targets + 1) + (2 * n_targets + 6) * n_features
    return 8 * values + BUFFERS_NBYTES


def residuals_nbytes(n_features: int, n_columns: int) -> int:
    """Bytes that ``residuals`` needs for M columns of coefficients."""
    return 8 * residuals_rows(n_features) * ((1 + ARRAYS_ALIVE) * n_features + 8 * n_columns)


def gram_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes that ``gram`` needs for K targets, on one thread."""
    rows = gram_tile_rows(n_features) + 1
    copied, width = n_features // FEW, target_width(n_features, n_targets)
    values = rows * (n_features + copied + 2) + n_features * (min(width, FEW_COLUMNS) + 4)
    return 8 * (values + 4 * width) + rows * gram_target_row_nbytes(n_features, n_targets)


def gram_target_row_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes that each thread of ``gram`` needs for targets, for each row of a tile."""
    return 24 * target_width(n_features, n_targets)
