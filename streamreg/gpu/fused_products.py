"""Compiled kernels for the products of a gradient on a GPU: each row is read from memory once.

Serves rows of float64 and float32 as they are stored; others are left to :class:`ArrayKernels`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.gpu.launch import TYPES, Shape, launches_for

if TYPE_CHECKING:
    from streamreg.blocks import Block
    from streamreg.gpu.compile import Compiler, CuPy, DeviceArray
    from streamreg.kernels.base import Affine
    from streamreg.kernels.states import ProductState


class FusedProducts:
    """Keeps separate sums of the present segment, and adds them to its state at its end."""

    def __init__(self, cupy: CuPy, kernel: Compiler) -> None:
        self._cupy = cupy
        self._kernel = kernel
        self._state: ProductState | None = None
        self._sums: DeviceArray = None
        self._workspace: DeviceArray = None

    def serves(self, block: Block, state: ProductState, x: Affine) -> bool:
        """Whether a kernel can reduce a block."""
        is_as_stored = block.X.dtype.char in TYPES and x.scale is None and x.shift is None
        return is_as_stored and bool(launches_for(_shape_of(state)))

    def add(
        self, block: Block, state: ProductState, y: DeviceArray, V: DeviceArray, bias: DeviceArray
    ) -> None:
        """Queue the reduction of a block, given y (n, K) as it is read, V (M, D) and b (M,)."""
        shape = _shape_of(state)
        launch = launches_for(shape)[0]
        if self._state is not state:
            self._state = state
            self._sums = self._cupy.zeros((launch.n_sums, shape.length))
            self._workspace = self._cupy.empty(launch.workspace_nbytes // 8)
        # a null pointer if rows have no weights
        weight = np.uint64(0) if block.weight is None else block.weight
        rows = block.X, y, weight, V, bias, np.int64(int(state.n))
        launch.queue(self._kernel, rows, (self._workspace, self._sums))

    def finish(self) -> None:
        """Queue the addition of the separate sums to their state."""
        state = self._state
        if state is None:
            return
        total, first = self._sums.sum(axis=0), 0
        for field in (state.products, state.sums, state.rr, state.s):
            part = total[first : first + field.size].reshape(field.shape)
            self._cupy.add(field, part, out=field)
            # without targets there is a sum of squares nevertheless
            first += field.size or 1
        self.forget()

    def forget(self) -> None:
        """Release the separate sums."""
        self._state = self._sums = self._workspace = None


def _shape_of(state: ProductState) -> Shape:
    n_columns, n_features = state.products.shape
    return Shape(n_features, n_columns, max(1, len(state.rr)))
