"""The product with a gradient on a GPU, compiled: each row is read from its memory once.

It serves rows of float64 and float32 as they are stored; for others :class:`ArrayKernels` does.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.gpu.launch import TYPES, WARP, Given, Launch, Shape, launches_for

if TYPE_CHECKING:
    from streamreg.blocks import Block
    from streamreg.gpu.compile import Compiler
    from streamreg.kernels.base import Affine
    from streamreg.kernels.states import ProductState

# as many warps add up a number of all sums
_ADDING_THREADS = 1024


class FusedProducts:
    """Sums of the states that are being folded.

    Parameters
    ----------
    cupy
        The library.
    kernel
        Returns compiled kernels.
    most_shared_nbytes
        Memory that a block of threads can have.
    """

    def __init__(
        self,
        cupy: Any,  # noqa: ANN401
        kernel: Compiler,
        most_shared_nbytes: int,
    ) -> None:
        self._cupy = cupy
        self._kernel = kernel
        self._most_shared_nbytes = most_shared_nbytes
        self._launch_for = cache(self._fitting_launch)
        self._state: ProductState | None = None
        self._sums: Any = None
        self._room: Any = None

    def serves(self, block: Block, state: ProductState, x: Affine) -> bool:
        """Whether it can fold a block."""
        return (
            self._launch_for(_shape_of(state)) is not None
            and block.X.dtype.char in TYPES
            and block.X.flags.c_contiguous
            and x.scale is None
            and x.shift is None
        )

    def add(
        self,
        block: Block,
        state: ProductState,
        y: Any,  # noqa: ANN401  (arrays on the device, here and below)
        V: Any,  # noqa: ANN401
        bias: Any,  # noqa: ANN401
    ) -> None:
        """Queue the folding of a block, given y (n, K) as it is read, V (M, D) and b (M,)."""
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
        weight = np.uint64(0) if block.weight is None else block.weight
        kernel = self._kernel(launch.source, launch.name(TYPES[block.X.dtype.char]))
        given = Given(block.X, y, weight, V, bias, int(state.n))
        launch.queue(kernel, given, self._sums, self._room)

    def finish(self, state: ProductState) -> None:
        """Queue the adding up of what was folded into a state."""
        if self._state is not state:
            return
        n_columns, n_features = state.products.shape
        n_sums, length = self._sums.shape
        total = self._cupy.empty(length)
        self._kernel("add_up.cu", "add_up")(
            (-(-length // WARP),), (_ADDING_THREADS,),
            (self._sums, np.int32(n_sums), np.int64(length), total),
            shared_mem=8 * _ADDING_THREADS,
        )  # fmt: skip
        add = self._cupy.add
        at = n_columns * n_features
        add(state.products, total[:at].reshape(n_columns, n_features), out=state.products)
        add(state.sums, total[at : at + n_columns], out=state.sums)
        add(state.rr, total[at + n_columns : -1], out=state.rr)
        add(state.s, total[-1], out=state.s)
        self.forget()

    def forget(self) -> None:
        """Let go of sums that were not asked for."""
        self._state = self._sums = self._room = None

    def _fitting_launch(self, shape: Shape) -> Launch | None:
        """Return how rows are folded; ``None`` where no kernel serves them on this GPU."""
        most = self._most_shared_nbytes
        return next(
            (launch for launch in launches_for(shape) if launch.shared_nbytes <= most), None
        )


def _shape_of(state: ProductState) -> Shape:
    n_columns, n_features = state.products.shape
    return Shape(n_features, n_columns, len(state.rr))
