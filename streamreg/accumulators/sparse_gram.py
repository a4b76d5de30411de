"""XᵀX and Xᵀy of sparse rows, in O(D²), for the closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.gram import GramResult
from streamreg.accumulators.merging import merge_if_empty, merge_target_moments, merge_varies
from streamreg.accumulators.panels import PanelAccumulator
from streamreg.blocks import SPARSE_BLOCK_VALUES
from streamreg.kernels.sparse_gram import gram_columns, gram_panels, set_origins_to_zero
from streamreg.kernels.states import SparseGramState

if TYPE_CHECKING:
    from streamreg.accumulators.base import Scaling
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels

# of a value of a block: as float64, twice, and its column as an integer that NumPy counts
_VALUE_NBYTES = 32


@dataclass(frozen=True, eq=False)
class SparseGram(PanelAccumulator[SparseGramState, GramResult]):
    """What :class:`Gram` computes, from the stored values of sparse rows alone.

    Sums are about an origin o, of which the means are subtracted afterwards: with t = Σ sᵢ (xᵢ - o)

        Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ = Σ sᵢ (xᵢ - o)(xᵢ - o)ᵀ - t tᵀ/Σ sᵢ

    The origin of a column that every row stores is its first value; of others it is 0, and their
    mean is at most √N deviations, so that the difference loses at most half the digits of N. One
    state holds 8·(D² + D·(K + 3) + 4K + 3) bytes.
    """

    square = "gram"
    reads_tiles = True

    n_features: int  # D
    n_targets: int  # K
    centred: bool = True
    scaling: Scaling | None = None

    @property
    def n_columns(self) -> int:
        return self.n_features

    @property
    def n_panels(self) -> int:
        return gram_panels(self.n_features)

    def panel(self, number: int) -> slice:
        return gram_columns(self.n_features, number)

    @property
    def state_nbytes(self) -> int:
        d, k = self.n_features, self.n_targets
        return 8 * (d * d + d * (k + 3) + 4 * k + 3)

    @property
    def scratch_nbytes(self) -> int:
        return _VALUE_NBYTES * SPARSE_BLOCK_VALUES + 8 * 4 * self.n_features

    def zero(self) -> SparseGramState:
        return SparseGramState.zero(self.n_features, self.n_targets)

    def update(self, state: SparseGramState, block: Block, kernels: Kernels) -> SparseGramState:
        x_scale, y_scale = self.scaling or (None, None)
        kernels.find("sparse_gram")(
            block, state, kernels.parallel, centred=self.centred, x_scale=x_scale, y_scale=y_scale
        )
        return state

    def merge(self, a: SparseGramState, b: SparseGramState) -> SparseGramState:
        if merge_if_empty(a, b):
            return a
        merge_varies(a, b)
        set_origins_to_zero(a, np.flatnonzero((a.origin != 0) & (b.origin == 0)))
        by, sums = b.origin - a.origin, b.sums.copy()
        by[b.origin == 0] = 0.0
        np.add(a.gram, b.gram, out=a.gram)
        a.move_origin(np.flatnonzero(by).tolist(), by, sums, b.s)
        np.add(a.cross, b.cross + np.outer(by, b.s * b.y_mean), out=a.cross)
        np.add(a.cross, np.outer(sums, b.y_origin - a.y_origin), out=a.cross)
        np.add(a.sums, sums, out=a.sums)
        np.add(a.updates, b.updates + 1, out=a.updates)
        # without centring the means of y are zeros
        merge_target_moments(a, b)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: SparseGramState) -> GramResult:
        s = np.float64(state.s)  # without rows the means are NaN
        sums: Float64 = state.sums if self.centred else np.zeros_like(state.sums)
        # (K, D) in C order, so that the result is in Fortran order
        cross = np.empty((self.n_targets, self.n_features))
        np.outer(state.y_mean, sums, out=cross)
        np.subtract(state.cross.T, cross, out=cross)
        return GramResult(
            n=int(state.n),
            s=float(s),
            updates=int(state.updates),
            origin=state.origin,
            offset=sums / s,
            varies=state.varies,
            gram=state.gram,
            y_origin=state.y_origin,
            y_offset=state.y_mean,
            y_varies=state.y_varies,
            y_variance=state.y_m2 / s,
            cross=cross.T,
            is_about_origin=self.centred,
        )

    def is_finite(self, state: SparseGramState) -> bool:
        return all(bool(np.isfinite(values).all()) for values in (state.sums, state.y_m2))
