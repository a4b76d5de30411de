"""How the threads of a GPU share rows of one shape: launches of the fused products."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from streamreg.gpu.compile import Compiler

WARP = 32
# Narrower rows would leave most of a warp idle. Wider ones do not fit the registers of a block.
_LEAST_FEATURES, _MOST_FEATURES = 8, 4096
_MOST_COLUMNS, _MOST_THREADS = 2, 512
# The more columns a thread has, the fewer steps it takes to add up the sums of threads.
_MANY_COLUMNS_PER_THREAD = 4
# The largest GPUs get two blocks of threads for each processor, and more if blocks are small.
_GRID, _MOST_GRIDS = 264, 8
# Wide rows are read twice, the second time from the L2 cache. It holds two tiles, because it has
# 40 MiB or more on present GPUs.
_WIDE_TILE_NBYTES = 20 << 20
_LEAST_WIDE, _MOST_WIDE_COLUMNS = 256, 8
# The number of blocks of threads that add up the sums.
_WIDE_GRID = 1024
# These are the constants of wide_products.cu.
_WIDE_ROWS, _WIDE_THREADS, _SLICE, _BATCH = 4, 256, 4096, 64
# Every GPU has this much shared memory for a block of threads.
_SHARED_NBYTES = 48 << 10
TYPES = {"f": "float", "d": "double"}


class Shape(NamedTuple):
    """The shape of the sums: D features, M columns of coefficients, K targets."""

    n_features: int
    n_columns: int
    n_targets: int

    @property
    def length(self) -> int:
        """Length of one set of sums: products (M, D), then of s·u (M,), of s·r² (K,), and of s."""
        return self.n_columns * self.n_features + self.n_columns + self.n_targets + 1


class NarrowRows:
    """Rows that fit the registers of a block of threads, with one target."""

    workspace_nbytes = 0

    def __init__(self, shape: Shape) -> None:
        d, self._n_columns, _ = shape
        per_thread = 1
        while d > per_thread * (WARP if per_thread < _MANY_COLUMNS_PER_THREAD else _MOST_THREADS):
            per_thread *= 2
        n_warps = -(-d // (WARP * per_thread))
        self.columns_per_thread, self.threads_per_block = per_thread, n_warps * WARP
        # Threads hold this many rows in registers, and prefetch as many; twice that of float32.
        self._rows_at_once = 2 if per_thread <= _MANY_COLUMNS_PER_THREAD else 1
        # Sums are separate until a segment ends.
        self.n_sums = _GRID * min(_MOST_GRIDS, _MOST_THREADS // self.threads_per_block)
        # Shared memory of a block of threads: V, and two copies of the sums of its warps.
        n_partial_sums = 2 * 2 * self._rows_at_once * n_warps
        n_values = self._n_columns * (per_thread * self.threads_per_block + n_partial_sums)
        self.shared_nbytes = 8 * n_values

    def queue(self, kernel: Compiler, rows: tuple[Any, ...], memory: tuple[Any, Any]) -> None:
        """Queue the reduction of rows: X, y, weight, V, bias and the first row's number."""
        X, (_, sums) = rows[0], memory
        at_once = self._rows_at_once * 8 // X.dtype.itemsize
        template = TYPES[X.dtype.char], self._n_columns, self.columns_per_thread, at_once
        fused = kernel("products.cu", f"fused<{', '.join(map(str, template))}>")
        arguments = *rows, np.int64(len(X)), np.int32(X.shape[1]), sums
        grid, threads = (self.n_sums,), (self.threads_per_block,)
        fused(grid, threads, arguments, shared_mem=self.shared_nbytes)


class WideRows:
    """Rows of any width, with several targets: tiles that fit the L2 cache are read twice."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._column_blocks = -(-shape.n_features // _WIDE_THREADS)
        self._slices = -(-shape.n_features // _SLICE)
        self.n_sums = -(-_WIDE_GRID // self._column_blocks)
        # The workspace holds the dot products of two tiles of float32.
        n_dots = _tile_rows(shape.n_features, 4) * shape.n_columns * self._slices
        self.workspace_nbytes = 2 * 8 * n_dots

    def queue(self, kernel: Compiler, rows: tuple[Any, ...], memory: tuple[Any, Any]) -> None:
        X, (workspace, sums) = rows[0], memory
        d, n_columns, n_targets = self._shape
        fused = kernel("wide_products.cu", f"fused_wide<{TYPES[X.dtype.char]}, {n_columns}>")
        tile = _tile_rows(d, X.dtype.itemsize)
        sizes = np.int32(d), np.int32(n_targets), np.int32(self.n_sums)
        shared_nbytes = 8 * (2 * n_columns + 1) * _BATCH
        dots, next_dots = workspace.reshape(2, -1)
        # Each launch adds up the previous tile while it reads the next one.
        for start in range(-tile, len(X), tile):
            before = 0 if start < 0 else min(tile, len(X) - start)
            after = max(0, min(tile, len(X) - start - tile))
            n_adding_blocks = self._column_blocks * self.n_sums if before else 0
            n_reading_blocks = -(-after // _WIDE_ROWS) * self._slices
            grid = (n_adding_blocks + n_reading_blocks,)
            part = np.int64(max(0, start)), np.int64(before), np.int64(after)
            arguments = *rows, *part, *sizes, dots, next_dots, sums
            fused(grid, (_WIDE_THREADS,), arguments, shared_mem=shared_nbytes)
            dots, next_dots = next_dots, dots


Launch = NarrowRows | WideRows


def _tile_rows(n_features: int, itemsize: int) -> int:
    return max(1, _WIDE_TILE_NBYTES // (itemsize * n_features))


def launches_for(shape: Shape) -> list[Launch]:
    """Return the launches that can reduce rows of a shape, the best first."""
    d, n_columns, n_targets = shape
    launches: list[Launch] = []
    if _LEAST_FEATURES <= d <= _MOST_FEATURES and n_targets == 1 and n_columns <= _MOST_COLUMNS:
        narrow = NarrowRows(shape)
        if narrow.shared_nbytes <= _SHARED_NBYTES:
            launches.append(narrow)
    if d >= _LEAST_WIDE and n_columns <= _MOST_WIDE_COLUMNS:
        launches.append(WideRows(shape))
    return launches


def partial_sums_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes of the separate sums and of their workspace, enough for any solver."""
    # Solvers have no direction, or one for each target; cg has directions alone, up to K + 1.
    shapes = [Shape(n_features, m, n_targets) for m in (n_targets, 2 * n_targets)]
    shapes += [Shape(n_features, m, 1) for m in range(1, n_targets + 2)]
    nbytes = [
        8 * launch.n_sums * shape.length + launch.workspace_nbytes
        for shape in shapes
        for launch in launches_for(shape)
    ]
    return max(nbytes, default=0)
