"""Loss, gradient and XᵀX times a direction over sparse rows, in O(D) memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.gradient import Derivatives, GradientResult
from streamreg.blocks import SPARSE_BLOCK_VALUES
from streamreg.kernels.states import SparseProductState

if TYPE_CHECKING:
    from streamreg.blocks import Block
    from streamreg.kernels.base import Kernels


@dataclass(frozen=True, eq=False)
class SparseGradient(Derivatives[SparseProductState]):
    """What :class:`Gradient` computes, from the stored values of sparse rows alone.

    A shift of a column that some rows lack would make rows dense, so that ``x`` has shifts only of
    columns that every row stores: other centring is the algebra of the caller. Each state has the
    coefficients beside the sums: 8·(2DM + M + K + 2) bytes.
    """

    @property
    def state_nbytes(self) -> int:
        return sparse_gradient_nbytes(*self._sizes)[0]

    @property
    def scratch_nbytes(self) -> int:
        return sparse_gradient_nbytes(*self._sizes)[1]

    def zero(self) -> SparseProductState:
        scale = self.x.scale
        scaled = self.coefficients if scale is None else self.coefficients * scale[:, None]
        return SparseProductState.zero(scaled, self.n_targets)

    def update(
        self, state: SparseProductState, block: Block, kernels: Kernels
    ) -> SparseProductState:
        shift = self.x.shift
        if shift is not None and self.x.scale is not None:
            # as values are stored: powers of two round nothing
            shift = shift / self.x.scale
        kernels.find("sparse_products")(block, state, bias=self.intercept, shift=shift, y=self.y)
        return state

    def merge(self, a: SparseProductState, b: SparseProductState) -> SparseProductState:
        for mine, other in zip(a[:-1], b[:-1], strict=True):
            np.add(mine, other, out=mine)
        # a column at a time, because the inner loop of NumPy would be over the few columns
        for mine, other in zip(a.products.T, b.products.T, strict=True):
            np.add(mine, other, out=mine)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: SparseProductState) -> GradientResult:
        s = np.float64(state.s)  # without rows the means are NaN
        gradient = np.empty(state.products.shape[::-1]).T
        for sums, mean in zip(state.products.T, gradient.T, strict=True):
            np.divide(sums, s, out=mean)
        if self.x.scale is not None:
            gradient *= self.x.scale[:, None]
        return GradientResult(state.rr / s, gradient=gradient, bias=state.sums / s)


def sparse_gradient_nbytes(n_features: int, n_columns: int, n_targets: int) -> tuple[int, int]:
    """Bytes of one state, and of scratch memory, with M columns of coefficients."""
    state_nbytes = 8 * (n_columns * (2 * n_features + 1) + n_targets + 2)
    # of values that are shifted, and of their shifts
    return state_nbytes, 8 * (2 * n_columns + 2 * SPARSE_BLOCK_VALUES)
