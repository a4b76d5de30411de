"""XᵀX of chosen columns of sparse rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.accumulators.merging import add_fields
from streamreg.kernels.states import TriangleState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels
    from streamreg.kernels.states import Places

    Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]


@dataclass(frozen=True, eq=False)
class ColumnGram(Accumulator[TriangleState, "Float64"]):
    """Σ sᵢ zᵢzᵢᵀ / Σ sᵢ of chosen columns z of sparse rows, (k, k), without centring.

    One state holds the lower triangle: 4·k·(k + 1) + 16 bytes. Beside the states it takes 4·D.
    """

    reads_tiles = True

    n_features: int  # D
    columns: Numbers  # (k,) of X, each once
    x_scale: Float64 | None = None  # (D,)
    places: Places = field(init=False)  # (D,)

    def __post_init__(self) -> None:
        places = np.full(self.n_features, -1, np.int32)
        places[self.columns] = np.arange(len(self.columns))
        object.__setattr__(self, "places", places)

    @property
    def state_nbytes(self) -> int:
        return column_gram_nbytes(len(self.columns))

    @property
    def scratch_nbytes(self) -> int:
        return 16 * self.n_features

    def zero(self) -> TriangleState:
        return TriangleState.zero(len(self.columns))

    def update(self, state: TriangleState, block: Block, kernels: Kernels) -> TriangleState:
        kernels.find("column_gram")(block, state, places=self.places, x_scale=self.x_scale)
        return state

    def merge(self, a: TriangleState, b: TriangleState) -> TriangleState:
        add_fields(a, b)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: TriangleState) -> Float64:
        k = len(self.columns)
        out = np.empty((k, k))
        for row in range(k):
            first = row * (row + 1) // 2
            out[row, : row + 1] = state.triangle[first : first + row + 1]
            out[: row + 1, row] = out[row, : row + 1]
        return out / np.float64(state.s)  # without rows it is NaN

    def is_finite(self, state: TriangleState) -> bool:
        return bool(np.isfinite(state.triangle).all())


def column_gram_nbytes(k: int) -> int:
    """Bytes of one state of k columns."""
    return 4 * k * (k + 1) + 16
