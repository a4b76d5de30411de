"""Squared residuals with a few combinations of the columns, in O(M)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.base import Accumulator
from streamreg.accumulators.merging import add_fields
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels import scratch
from streamreg.kernels.tiles import parts, sparse_part_rows, weights_of

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


class ContrastState(NamedTuple):
    """Sums over the rows so far."""

    n: Float64  # ()    rows
    s: Float64  # ()    Σ sᵢ
    y: Float64  # (K,)  Σ sᵢ (yᵢ - c)
    yy: Float64  # (K,) Σ sᵢ (yᵢ - c)²
    squares: Float64  # (M,)  Σ sᵢ² rᵢ² uᵢ², r of the first target


@dataclass(frozen=True, eq=False)
class Contrasts(Accumulator[ContrastState, ContrastState]):
    """Σ sᵢ² rᵢ² uᵢ² with r = Xw + b - y and u = XZ + b, of K targets and M combinations Z.

    The sums of y are about c, (K,), which is near its mean.
    """

    coefficients: Float64  # (D, K + M): w, then Z
    intercept: Float64  # (K + M,)
    centre: Float64  # (K,) c
    y_scale: Float64 | None = None  # (K,) of y, powers of two

    @property
    def state_nbytes(self) -> int:
        return contrasts_nbytes(*self._shape)[0]

    @property
    def scratch_nbytes(self) -> int:
        return contrasts_nbytes(*self._shape)[1]

    @property
    def _shape(self) -> tuple[int, int, int]:
        d, columns = map(int, self.coefficients.shape)
        return d, len(self.centre), columns - len(self.centre)

    def zero(self) -> ContrastState:
        _, k, m = self._shape
        return ContrastState(*(np.zeros(shape) for shape in ((), (), k, k, m)))

    def update(self, state: ContrastState, block: Block, kernels: Kernels) -> ContrastState:
        predict, k = kernels.find("predict"), len(self.centre)
        rows = numpy_kernels.tile_rows(block.X.shape[1])
        for X, tile_y, weight in parts(block, rows, len(self.intercept)):
            u = predict(X, self.coefficients, self.intercept)
            y = tile_y.astype(np.float64)
            if self.y_scale is not None:
                y *= self.y_scale
            s = weights_of(weight, len(y))
            sr = s * (u[:, 0] - y[:, 0])
            y -= self.centre
            state.n[...] += len(y)
            state.s[...] += s.sum()
            np.add(state.y, s @ y, out=state.y)
            np.add(state.yy, s @ (y * y), out=state.yy)
            np.add(state.squares, (sr * sr) @ (u[:, k:] ** 2), out=state.squares)
        return state

    def merge(self, a: ContrastState, b: ContrastState) -> ContrastState:
        add_fields(a, b)
        return a

    def finalize(self, state: ContrastState) -> ContrastState:
        return state

    def is_finite(self, state: ContrastState) -> bool:
        return bool(np.isfinite(state.yy).all() and np.isfinite(state.squares).all())


def contrasts_nbytes(
    n_features: int, n_targets: int, n_columns: int, *, is_sparse: bool = False
) -> tuple[int, int]:
    """Bytes of one state, and of scratch memory, with M combinations."""
    rows, scratch_nbytes = (
        numpy_kernels.tile_rows(n_features),
        scratch.predict_nbytes(n_features, 1),
    )
    if is_sparse:
        rows, scratch_nbytes = sparse_part_rows(n_targets + n_columns), 0
    tiles_nbytes = 8 * rows * (3 * n_targets + 3 * n_columns + 4)
    return 8 * (2 + 2 * n_targets + n_columns), scratch_nbytes + tiles_nbytes
