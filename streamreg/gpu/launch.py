"""How rows of one shape are shared by the threads of a GPU: the kernels that fold products."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

WARP = 32
# of narrower rows most of a warp would idle; wider ones do not fit the registers of a block
_LEAST_FEATURES, _MOST_FEATURES = 8, 4096
_MOST_COLUMNS, _MOST_THREADS = 2, 512
# columns of a thread: the more, the fewer steps it takes to add up what threads found
_MANY_A_THREAD = 4
# blocks of threads: two for each processor of the largest GPUs, more where they are small
_GRID, _MOST_GRIDS = 264, 8
# of rows that are read twice, the second time out of the L2 cache: 40 MiB or more on GPUs of today,
# where two tiles lie at once
_WIDE_TILE_NBYTES = 20 << 20
_LEAST_WIDE, _MOST_WIDE_COLUMNS = 256, 8
# blocks of threads that add up
_WIDE_GRID = 1024
# as in wide_products.cu
_WIDE_ROWS, _WIDE_THREADS, _SLICE, _BATCH = 4, 256, 4096, 64
# of a block of threads, without asking for more
_USUAL_SHARED_NBYTES = 48 << 10
TYPES = {"f": "float", "d": "double"}


class Shape(NamedTuple):
    """Of what is folded: D features, M columns of coefficients, K targets."""

    n_features: int
    n_columns: int
    n_targets: int

    @property
    def length(self) -> int:
        """Numbers of one sum: products (M, D), then sums of s·u (M,), of s·r² (K,), and of s."""
        return self.n_columns * self.n_features + self.n_columns + self.n_targets + 1


class Given(NamedTuple):
    """What a kernel is given: rows, and coefficients V (M, D) and b (M,)."""

    X: Any
    y: Any  # (n, K) float64
    weight: Any  # a null pointer where each row counts once
    V: Any
    bias: Any
    first: int  # number of the first row of the state's


class Launch(Protocol):
    """A kernel, for rows of one shape.

    How rows are shared is a function of the shape, and of which kernels the GPU has room for.

    Attributes
    ----------
    source
        Its file.
    n_sums
        Sums that are kept apart until a segment ends.
    room_nbytes
        Bytes that it needs beside them.
    shared_nbytes
        Bytes that a block of threads shares, at most.
    """

    source: str
    n_sums: int
    room_nbytes: int
    shared_nbytes: int

    def name(self, dtype: str) -> str:
        """Return the instance of the template for rows of "float" or "double"."""

    def queue(self, kernel: Any, given: Given, sums: Any, room: Any) -> None:  # noqa: ANN401
        """Queue the folding of rows."""


class NarrowRows:
    """Rows that fit the registers of a block of threads, with one target.

    Attributes
    ----------
    a_thread
        Columns of a thread.
    threads
        Threads of a block.
    """

    source = "products.cu"
    room_nbytes = 0

    def __init__(self, shape: Shape) -> None:
        n_features = shape.n_features
        self._shape, self.a_thread = shape, 1
        while n_features > self.a_thread * (
            WARP if self.a_thread < _MANY_A_THREAD else _MOST_THREADS
        ):
            self.a_thread *= 2
        self.threads = -(-n_features // (WARP * self.a_thread)) * WARP
        self.n_sums = _GRID * min(_MOST_GRIDS, _MOST_THREADS // self.threads)
        self.shared_nbytes = max(map(self._shared_nbytes, TYPES.values()))

    def _shared_nbytes(self, dtype: str) -> int:
        found = 2 * self.at_once(dtype) * (self.threads // WARP)
        return 8 * self._shape.n_columns * (self.a_thread * self.threads + found)

    def at_once(self, dtype: str) -> int:
        """Return the rows that threads hold at once, and as many that come: in their registers."""
        if self.a_thread <= _MANY_A_THREAD:
            return 4 if dtype == "float" else 2
        return 2 if dtype == "float" else 1

    def name(self, dtype: str) -> str:
        numbers = self._shape.n_columns, self.a_thread, self.at_once(dtype)
        return f"fold_products<{dtype}, {', '.join(map(str, numbers))}>"

    def queue(self, kernel: Any, given: Given, sums: Any, room: Any) -> None:  # noqa: ANN401
        del room
        n_rows, n_features = given.X.shape
        shared_nbytes = self._shared_nbytes(TYPES[given.X.dtype.char])
        if shared_nbytes > max(_USUAL_SHARED_NBYTES, kernel.max_dynamic_shared_size_bytes):
            kernel.max_dynamic_shared_size_bytes = shared_nbytes
        kernel(
            (self.n_sums,),
            (self.threads,),
            (
                given.X, given.y, given.weight, given.V, given.bias,
                np.int64(given.first), np.int64(n_rows), np.int32(n_features), sums,
            ),
            shared_mem=shared_nbytes,
        )  # fmt: skip


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
        return f"fold_wide<{dtype}, {self._shape.n_columns}>"

    def queue(self, kernel: Any, given: Given, sums: Any, room: Any) -> None:  # noqa: ANN401
        n_rows, n_features = given.X.shape
        if not n_rows:
            return
        tile = _tile_rows(n_features, given.X.dtype.itemsize)
        # a launch each: the tile before is added up while the next one is read
        for turn, start in enumerate(range(-tile, n_rows, tile)):
            before = 0 if start < 0 else min(tile, n_rows - start)
            after = max(0, min(tile, n_rows - start - tile))
            adding = self._column_blocks * self.n_sums if before else 0
            reading = -(-after // _WIDE_ROWS) * self._slices
            kernel(
                (adding + reading,),
                (_WIDE_THREADS,),
                (
                    given.X, given.y, given.weight, given.V, given.bias, np.int64(given.first),
                    np.int64(max(0, start)), np.int64(before), np.int64(after), np.int32(turn % 2),
                    np.int32(n_features), np.int32(self._shape.n_targets), np.int32(self.n_sums),
                    np.int64(len(room) // 2), room, sums,
                ),
                shared_mem=self.shared_nbytes,
            )  # fmt: skip


def _tile_rows(n_features: int, itemsize: int) -> int:
    return max(1, _WIDE_TILE_NBYTES // (itemsize * n_features))


def launches_for(shape: Shape) -> list[Launch]:
    """Return how rows of a shape can be folded, the best first."""
    d, n_columns, n_targets = shape
    launches: list[Launch] = []
    if _LEAST_FEATURES <= d <= _MOST_FEATURES and n_targets == 1 and n_columns <= _MOST_COLUMNS:
        launches.append(NarrowRows(shape))
    if d >= _LEAST_WIDE and n_columns <= _MOST_WIDE_COLUMNS:
        launches.append(WideRows(shape))
    return launches


def partial_sums_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes of the sums that are kept apart, and of what is needed beside, with any solver."""
    # with a direction for each target, and without
    shapes = [Shape(n_features, m, n_targets) for m in (n_targets, 2 * n_targets)]
    return max(
        (
            8 * launch.n_sums * shape.length + launch.room_nbytes
            for shape in shapes
            for launch in launches_for(shape)
        ),
        default=0,
    )
