"""The product with a gradient on a GPU, compiled: each row is read from its memory once.

It serves rows of float64 and float32, with one target and at most one direction, as they are
stored; for others :class:`ArrayKernels` does.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Block
    from streamreg.kernels import Affine
    from streamreg.kernels.states import ProductState

_SOURCE = "products.cu"
# of narrower rows most of a warp would idle; wider ones do not fit the registers of a block
_LEAST_FEATURES, _MOST_FEATURES = 32, 4096
_MOST_COLUMNS = 2
_MOST_THREADS, _WARP = 512, 32
# columns of a thread: the more, the fewer steps it takes to add up what threads found
_MANY_A_THREAD = 4
# blocks of threads: two for each processor of the largest GPUs, more where they are small
_GRID, _MOST_GRIDS = 264, 8


class Launch:
    """How the rows of so many features are shared by threads: a function of D alone.

    Attributes
    ----------
    a_thread
        Columns of a thread.
    threads, blocks
        Threads of a block, and blocks of the grid.
    """

    def __init__(self, n_features: int) -> None:
        self.a_thread = 1
        while n_features > self.a_thread * (
            _WARP if self.a_thread < _MANY_A_THREAD else _MOST_THREADS
        ):
            self.a_thread *= 2
        self.threads = -(-n_features // (_WARP * self.a_thread)) * _WARP
        self.blocks = _GRID * min(_MOST_GRIDS, _MOST_THREADS // self.threads)


def is_served(n_features: int, n_columns: int, n_targets: int) -> bool:
    """Whether rows and coefficients of such shapes are."""
    fits = _LEAST_FEATURES <= n_features <= _MOST_FEATURES
    return fits and n_targets == 1 and n_columns <= _MOST_COLUMNS


def sums_nbytes(n_features: int, n_columns: int, n_targets: int) -> int:
    """Bytes of the sums of all blocks of the grid; 0 for what is not served."""
    if not is_served(n_features, n_columns, n_targets):
        return 0
    return 8 * Launch(n_features).blocks * _length(n_features, n_columns)


class Products:
    """Sums of the states that are being folded.

    Parameters
    ----------
    cupy
        The library.
    """

    def __init__(self, cupy: Any) -> None:  # noqa: ANN401
        self._cupy = cupy
        self._state: ProductState | None = None
        self._sums: Any = None
        self._loaded: Any = None
        self._kernel = cache(self._compiled)

    def serves(self, block: Block, state: ProductState, x: Affine) -> bool:
        """Whether it can fold a block."""
        flags = block.X.flags
        return (
            is_served(block.X.shape[1], len(state.sums), len(state.rr))
            and block.X.dtype.char in "fd"
            and flags.c_contiguous
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
        """Queue the folding of a block, given y (n,) as it is read, V (M, D) and b (M,)."""
        n_rows, n_features = block.X.shape
        n_columns, launch = len(V), Launch(n_features)
        if self._state is not state:
            self._state = state
            self._sums = self._cupy.zeros((launch.blocks, _length(n_features, n_columns)))
        kernel = self._kernel(block.X.dtype.char, n_columns, launch.a_thread)
        found = 2 * _at_once(launch.a_thread) * (launch.threads // _WARP)
        shared_nbytes = 8 * n_columns * (n_features + found)
        kernel.max_dynamic_shared_size_bytes = shared_nbytes
        # a weight of one for each row needs no array
        weight = np.uint64(0) if block.weight is None else block.weight
        kernel(
            (launch.blocks,),
            (launch.threads,),
            (
                block.X, y, weight, V, bias,
                np.int64(state.n), np.int64(n_rows), np.int32(n_features), self._sums,
            ),
            shared_mem=shared_nbytes,
        )  # fmt: skip

    def finish(self, state: ProductState) -> None:
        """Queue the adding up of what was folded into a state."""
        if self._state is not state:
            return
        n_columns, n_features = state.products.shape
        n_blocks, length = self._sums.shape
        total = self._cupy.empty(length)
        threads = 256
        self._module().get_function("add_up")(
            (-(-length // threads),), (threads,),
            (self._sums, np.int32(n_blocks), np.int64(length), total),
        )  # fmt: skip
        add = self._cupy.add
        at = n_columns * n_features
        add(state.products, total[:at].reshape(n_columns, n_features), out=state.products)
        add(state.sums, total[at : at + n_columns], out=state.sums)
        add(state.rr, total[at + n_columns :], out=state.rr)
        self.forget()

    def forget(self) -> None:
        """Let go of sums that were not asked for."""
        self._state = self._sums = None

    def _compiled(self, dtype: str, n_columns: int, a_thread: int) -> Any:  # noqa: ANN401
        return self._module().get_function(_name(dtype, n_columns, a_thread))

    def _module(self) -> Any:  # noqa: ANN401
        """Return the source, compiled for this device the first time; CuPy keeps that on disk."""
        if self._loaded is None:
            names = [
                _name(dtype, n_columns, a_thread)
                for dtype in "fd"
                for n_columns in range(1, _MOST_COLUMNS + 1)
                for a_thread in (1, 2, 4, 8)
            ]
            source = files("streamreg.kernels").joinpath(_SOURCE).read_text()
            self._loaded = self._cupy.RawModule(
                code=source, options=("--std=c++17",), name_expressions=[*names, "add_up"]
            )
        return self._loaded


def _name(dtype: str, n_columns: int, a_thread: int) -> str:
    """Return the instance of the template for such rows."""
    kind = "float" if dtype == "f" else "double"
    return f"fold_products<{kind}, {n_columns}, {a_thread}, {_at_once(a_thread)}>"


def _at_once(a_thread: int) -> int:
    """Return the rows that threads hold at once: what fits their registers."""
    return 4 if a_thread <= _MANY_A_THREAD else 2


def _length(n_features: int, n_columns: int) -> int:
    """Return the sums of one block of the grid, as ``sums_of`` in the source."""
    return n_columns * n_features + n_columns + 1
