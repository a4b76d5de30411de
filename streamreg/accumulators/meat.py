"""The meat of robust covariances, in O(D²)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.merging import add_fields
from streamreg.accumulators.panels import PanelAccumulator
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.meat import meat_scratch_nbytes
from streamreg.kernels.states import MeatState

if TYPE_CHECKING:
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels
    from streamreg.kernels.meat import FittedRows, Leverage
    from streamreg.kernels.triangle import Triangle


class MeatResult(NamedTuple):
    """Σ ω [1, q][1, q]ᵀ over the rows."""

    total: float  # Σ ωᵢ
    sums: Float64  # (D,) Σ ωᵢ qᵢ
    meat: Float64  # (D, D) Σ ωᵢ qᵢqᵢᵀ, lower triangle, Fortran order
    n_exact: int = 0  # rows whose residuals are rounding, because the fit passes through them
    exact: Float64 | None = None  # (1 + D,) Σ cᵢ [1, qᵢ] of these rows, with random cᵢ
    first_exact: float = np.inf  # the number of the first one
    n_groups: int | None = None  # of rows, if residuals are added up by groups


@dataclass(frozen=True, eq=False)
class Meat(PanelAccumulator[MeatState, MeatResult]):
    """Σ ωᵢ [1, qᵢ][1, qᵢ]ᵀ, ωᵢ = sᵢ² rᵢ²/(1 - hᵢ)ᵖ: White's, and MacKinnon & White's [1]_.

    q = Wz are columns for which least squares is orthonormal, or z itself without a triangle; h are
    the leverages, and p is 0, 1 or 2 for HC0, HC2 and HC3. One state holds 8·(D² + 2D + 5) bytes.

    References
    ----------
    .. [1] MacKinnon & White (1985), J. Econometrics 29(3), 305-325.
    """

    square = "meat"
    reads_tiles = True

    n_features: int  # D
    fitted: FittedRows
    triangle: Triangle | None = None
    leverage: Leverage | None = None

    @property
    def n_columns(self) -> int:
        return self.n_features

    @property
    def state_nbytes(self) -> int:
        return meat_nbytes(self.n_features)[0]

    @property
    def scratch_nbytes(self) -> int:
        return meat_nbytes(self.n_features)[1]

    def zero(self) -> MeatState:
        return MeatState.zero(self.n_features)

    def update(self, state: MeatState, block: Block, kernels: Kernels) -> MeatState:
        kernels.find("meat")(
            block,
            state,
            kernels.parallel,
            fitted=self.fitted,
            triangle=self.triangle,
            leverage=self.leverage,
            rows=meat_rows(self.n_features),
        )
        return state

    def merge(self, a: MeatState, b: MeatState) -> MeatState:
        add_fields(a[:-1], b[:-1])
        np.minimum(a.first_exact, b.first_exact, out=a.first_exact)
        return a

    def finalize(self, state: MeatState) -> MeatResult:
        return MeatResult(
            total=float(state.total),
            sums=state.sums,
            meat=state.meat,
            n_exact=int(state.n_exact),
            exact=state.exact,
            first_exact=float(state.first_exact),
        )

    def is_finite(self, state: MeatState) -> bool:
        return bool(np.isfinite(state.total) and np.isfinite(state.sums).all())


def meat_rows(n_features: int) -> int:
    """Return the rows of a tile of :class:`Meat`."""
    return min(numpy_kernels.MOST_ROBUST_ROWS, numpy_kernels.gram_tile_rows(n_features))


def meat_nbytes(n_features: int) -> tuple[int, int]:
    """Bytes of one state, and of scratch memory."""
    rows = meat_rows(n_features)
    return 8 * (n_features**2 + 2 * n_features + 5), meat_scratch_nbytes(n_features, rows)
