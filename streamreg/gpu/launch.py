"""How the threads of a GPU share rows of one shape: launches of the fused products."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

WARP = 32
# of narrower rows most of a warp would idle; wider ones do not fit the registers of a block
_LEAST_FEATURES, _MOST_FEATURES = 8, 4096
_MOST_COLUMNS, _MOST_THREADS = 2, 512
# columns of a thread: the more, the fewer steps it takes to add up the sums of threads
_MANY_A_THREAD = 4
# blocks of threads: two for each processor of the largest GPUs, more if blocks are small
_GRID, _MOST_GRIDS = 264, 8
# of rows that are read twice, the second time from the L2 cache, which holds two tiles: 40 MiB or
# more on present GPUs
_WIDE_TILE_NBYTES = 20 << 20
_LEAST_WIDE, _MOST_WIDE_COLUMNS = 256, 8
# blocks of threads that add up
_WIDE_GRID = 1024
# as in wide_products.cu
_WIDE_ROWS, _WIDE_THREADS, _SLICE, _BATCH = 4, 256, 4096, 64
# shared memory of a block of threads that need not be asked for
_USUAL_SHARED_NBYTES = 48 << 10
TYPES = {"f": "float", "d": "double"}


class Shape(NamedTuple):
    """The shape of the sums: D features, M columns of coefficients, K targets."""

    n_features: int
    n_columns: int
    n_targets: int

    @property
    def length(self) -> int:
        """Numbers of one sum: products (M, D), then sums of s·u (M,), of s·r² (K,), and of s."""
        return self.n_columns * self.n_features + self.n_columns + self.n_targets + 1


class NarrowRows:
    """Rows that fit the registers of a block of threads, with one target."""

    source = "products.cu"
    # that the kernel needs beside the sums
    room_nbytes = 0

    def __init__(self, shape: Shape) -> None:
        n_features = shape.n_features
        # columns of a thread
        self._shape, self.a_thread = shape, 1
        while n_features > self.a_thread * (
            WARP if self.a_thread < _MANY_A_THREAD else _MOST_THREADS
        ):
            self.a_thread *= 2
        # of a block
        self.threads = -(-n_features // (WARP * self.a_thread)) * WARP
        # sums that are separate until a segment ends
        self.n_sums = _GRID * min(_MOST_GRIDS, _MOST_THREADS // self.threads)
        # of a block of threads, at most
        self.shared_nbytes = max(map(self._shared_nbytes, TYPES.values()))

    def _shared_nbytes(self, dtype: str) -> int:
        found = 2 * self._at_once(dtype) * (self.threads // WARP)
        return 8 * self._shape.n_columns * (self.a_thread * self.threads + found)

    def _at_once(self, dtype: str) -> int:
        """Return the rows that threads hold in registers, and prefetch, at once."""
        rows = 2 if self.a_thread <= _MANY_A_THREAD else 1
        return 2 * rows if dtype == "float" else rows

    def name(self, dtype: str) -> str:
        """Return the instance of the template for rows of "float" or "double"."""
        return f"fused<{dtype}, {self._shape.n_columns}, {self.a_thread}, {self._at_once(dtype)}>"

    def queue(self, kernel: Any, given: tuple[Any, ...], sums: Any, room: Any) -> None:  # noqa: ANN401
        """Queue the reduction of rows: X, y, weight, V, bias and the first row's number."""
        del room
        X = given[0]
        n_rows, n_features = X.shape
        shared_nbytes = self._shared_nbytes(TYPES[X.dtype.char])
        if shared_nbytes > max(_USUAL_SHARED_NBYTES, kernel.max_dynamic_shared_size_bytes):
            kernel.max_dynamic_shared_size_bytes = shared_nbytes
        arguments = *given, np.int64(n_rows), np.int32(n_features), sums
        kernel((self.n_sums,), (self.threads,), arguments, shared_mem=shared_nbytes)


class WideRows:
    """Rows of any width, and some targets: tiles that fit the L2 cache are read twice."""

    source = "wide_products.cu"

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._column_blocks = -(-shape.n_features // _WIDE_THREADS)
        self._slices = -(-shape.n_features // _SLICE)
        self.n_sums = -(-_WIDE_GRID // self._column_blocks)
        self.shared_nbytes = 8 * (2 * shape.n_columns + 1) * _BATCH
        # dot products of two tiles of float32
        most_rows = _tile_rows(shape.n_features, 4)
        self.room_nbytes = 2 * 8 * most_rows * shape.n_columns * self._slices

    def name(self, dtype: str) -> str:
        """Return the instance of the template for rows of "float" or "double"."""
        return f"fused_wide<{dtype}, {self._shape.n_columns}>"

    def queue(self, kernel: Any, given: tuple[Any, ...], sums: Any, room: Any) -> None:  # noqa: ANN401
        """Queue the reduction of rows: X, y, weight, V, bias and the first row's number."""
        X = given[0]
        n_rows, n_features = X.shape
        if not n_rows:
            return
        tile = _tile_rows(n_features, X.dtype.itemsize)
        sizes = np.int32(n_features), np.int32(self._shape.n_targets), np.int32(self.n_sums)
        # each launch adds up the tile before while it reads the next one
        for turn, start in enumerate(range(-tile, n_rows, tile)):
            before = 0 if start < 0 else min(tile, n_rows - start)
            after = max(0, min(tile, n_rows - start - tile))
            adding = self._column_blocks * self.n_sums if before else 0
            reading = -(-after // _WIDE_ROWS) * self._slices
            rows = np.int64(max(0, start)), np.int64(before), np.int64(after), np.int32(turn % 2)
            arguments = *given, *rows, *sizes, np.int64(len(room) // 2), room, sums
            grid = (adding + reading,)
            kernel(grid, (_WIDE_THREADS,), arguments, shared_mem=self.shared_nbytes)


Launch = NarrowRows | WideRows


def _tile_rows(n_features: int, itemsize: int) -> int:
    return max(1, _WIDE_TILE_NBYTES // (itemsize * n_features))


def launches_for(shape: Shape) -> list[Launch]:
    """Return the launches that can reduce rows of a shape, the best first."""
    d, n_columns, n_targets = shape
    launches: list[Launch] = []
    if _LEAST_FEATURES <= d <= _MOST_FEATURES and n_targets == 1 and n_columns <= _MOST_COLUMNS:
        launches.append(NarrowRows(shape))
    if d >= _LEAST_WIDE and n_columns <= _MOST_WIDE_COLUMNS:
        launches.append(WideRows(shape))
    return launches


def partial_sums_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes of the separate sums, and of the room beside them, with any solver."""
    # with a direction for each target, and without
    shapes = [Shape(n_features, m, n_targets) for m in (n_targets, 2 * n_targets)]
    nbytes = [
        8 * launch.n_sums * shape.length + launch.room_nbytes
        for shape in shapes
        for launch in launches_for(shape)
    ]
    return max(nbytes, default=0)
