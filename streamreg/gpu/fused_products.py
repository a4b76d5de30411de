"""The products of a gradient on a GPU, compiled: each row is read from its memory once.

Serves rows of float64 and float32 as they are stored; others are left to :class:`ArrayKernels`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.gpu.launch import TYPES, WARP, Launch, Shape, launches_for

if TYPE_CHECKING:
    from streamreg.blocks import Block
    from streamreg.gpu.compile import Compiler, CuPy, DeviceArray
    from streamreg.kernels.base import Affine
    from streamreg.kernels.states import ProductState

# a block's threads: 32 warps, each of which adds up a part of all sums
_ADDING_THREADS = 1024


class FusedProducts:
    """Separate sums of the present segment, which are added to its state at the end.

    Parameters
    ----------
    most_shared_nbytes
        Shared memory that a block of threads can have.
    """

    def __init__(self, cupy: CuPy, kernel: Compiler, most_shared_nbytes: int) -> None:
        self._cupy = cupy
        self._kernel = kernel
        self._most_shared_nbytes = most_shared_nbytes
        self._launch_for = cache(self._fitting_launch)
        self._state: ProductState | None = None
        self._sums: Any = None
        self._room: Any = None

    def serves(self, block: Block, state: ProductState, x: Affine) -> bool:
        """Whether a kernel can reduce a block."""
        return (
            self._launch_for(_shape_of(state)) is not None
            and block.X.dtype.char in TYPES
            and block.X.flags.c_contiguous
            and x.scale is None
            and x.shift is None
        )

    def add(
        self, block: Block, state: ProductState, y: DeviceArray, V: DeviceArray, bias: DeviceArray
    ) -> None:
        """Queue the reduction of a block, given y (n, K) as it is read, V (M, D) and b (M,)."""
        shape = _shape_of(state)
        launch = self._launch_for(shape)
        if launch is None:
            raise ValueError(f"no kernel serves {shape}")
        if self._state is not state:
            if self._state is not None:
                raise ValueError("the sums of another state have not been added up")
            self._state = state
            self._sums = self._cupy.zeros((launch.n_sums, shape.length))
            self._room = self._cupy.empty(launch.room_nbytes // 8)
        # a null pointer where each row counts once
        weight = np.uint64(0) if block.weight is None else block.weight
        kernel = self._kernel(launch.source, launch.name(TYPES[block.X.dtype.char]))
        given = block.X, y, weight, V, bias, np.int64(int(state.n))
        launch.queue(kernel, given, self._sums, self._room)

    def finish(self, state: ProductState) -> None:
        """Queue the addition of the separate sums to their state."""
        if self._state is not state:
            return
        n_columns, n_features = state.products.shape
        n_sums, length = self._sums.shape
        total = self._cupy.empty(length)
        given = self._sums, np.int32(n_sums), np.int64(length), total
        n_blocks, shared_nbytes = -(-length // WARP), 8 * _ADDING_THREADS
        add_up = self._kernel("add_up.cu", "add_up")
        add_up((n_blocks,), (_ADDING_THREADS,), given, shared_mem=shared_nbytes)
        add = self._cupy.add
        at = n_columns * n_features
        add(state.products, total[:at].reshape(n_columns, n_features), out=state.products)
        add(state.sums, total[at : at + n_columns], out=state.sums)
        add(state.rr, total[at + n_columns : -1], out=state.rr)
        add(state.s, total[-1], out=state.s)
        self.forget()

    def forget(self) -> None:
        """Release the separate sums."""
        self._state = self._sums = self._room = None

    def _fitting_launch(self, shape: Shape) -> Launch | None:
        """Return the best launch; ``None`` if no kernel serves these rows on this GPU."""
        fitting = (
            each for each in launches_for(shape) if each.shared_nbytes <= self._most_shared_nbytes
        )
        return next(fitting, None)


def _shape_of(state: ProductState) -> Shape:
    n_columns, n_features = state.products.shape
    return Shape(n_features, n_columns, len(state.rr))
