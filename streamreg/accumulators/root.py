"""The triangular factor of (X, y), in O(D²), for the solver with most digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import lapack

from streamreg.accumulators.merging import copy_fields, merge_if_empty, merge_varies
from streamreg.accumulators.second_moments import Products, SecondMoments, require_sums
from streamreg.kernels.base import SERIAL
from streamreg.kernels.lapack import add_rows, lapack_nbytes, merge_roots
from streamreg.kernels.root import root_scratch_nbytes
from streamreg.kernels.states import RootState

if TYPE_CHECKING:
    from streamreg.accumulators.second_moments import Mask, Numbers
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


# work space of LAPACK: columns of a block; SciPy's own is of three
_QR_COLUMNS = 64


class RootResult(NamedTuple):
    """The factor, of columns multiplied by ``Scaling`` where the pass had one."""

    n: int  #              rows
    s: float  #            Σ sᵢ
    updates: int  #        updates of R, each of which rounds
    origin: Float64  #     (D,)   the first row; zeros where nothing is centred
    offset: Float64  #     (D,)   x̄ less it; zeros where nothing is centred
    varies: Float64  #     (D,)   1 where a column is not constant (not zero, if not centred)
    y_origin: Float64  #   (K,)   the first y; zeros where nothing is centred
    y_offset: Float64  #   (K,)   ȳ less it; zeros where nothing is centred
    root: Float64  #       (P, P) R of √sᵢ·[1, xᵢ - o, yᵢ - oy], P = 1 + D + K, Fortran order

    @property
    def deviations(self) -> Float64:
        """Deviations of X and y, (D + K,): the norms of columns of R."""
        sizes = np.array([np.linalg.norm(column) for column in self.root[1:, 1:].T])
        return np.asarray(sizes / np.sqrt(self.s))

    @property
    def variances(self) -> Float64:
        """Variances of X and y, (D + K,)."""
        return self.deviations**2

    @property
    def may_vary(self) -> Mask:
        """Whether a column of X is not constant, (D + K,); True for all of y."""
        return np.append(self.varies, np.ones(len(self.y_origin))) > 0


@dataclass(frozen=True, eq=False)
class Root(SecondMoments[RootState]):
    """R with RᵀR = Σ sᵢ zᵢzᵢᵀ, zᵢ = [1, xᵢ - o, yᵢ - oy], o the first row: a QR by Householder.

    Rows are added by the R of [R; rows], and states merge by the R of [Rₐ; R_b] [1]_. Columns
    after the first are then centred. R keeps about 16 - log₁₀ κ(X) digits, where XᵀX keeps
    16 - 2 log₁₀ κ(X). One state holds 8·((1 + D + K)² + 2D + K + 3) bytes.

    References
    ----------
    .. [1] Demmel, Grigori, Hoemmen & Langou (2012), SIAM J. Sci. Comput. 34(1), A206-A239.
    """

    kind = "qr"
    symbol = "R"
    squares_condition = False
    reads_tiles = True

    @property
    def size(self) -> int:
        """P."""
        return 1 + self.n_features + self.n_targets

    @property
    def state_nbytes(self) -> int:
        return 8 * (self.size**2 + 2 * self.n_features + self.n_targets + 3)

    @property
    def scratch_nbytes(self) -> int:
        return root_scratch_nbytes(self.size, self.n_targets) + lapack_nbytes(self.size)

    def zero(self) -> RootState:
        return RootState.zero(self.n_features, self.n_targets)

    def update(self, state: RootState, block: Block, kernels: Kernels) -> RootState:
        x_scale, y_scale = self.scaling or (None, None)
        kernels.find("root")(
            block, state, kernels.parallel, centred=self.centred, x_scale=x_scale, y_scale=y_scale
        )
        return state

    def merge(self, a: RootState, b: RootState) -> RootState:
        if merge_if_empty(a, b):
            return a
        # the first column of R is zero below its first number
        first_row = b.root[0].copy()
        apart = np.concatenate([b.origin - a.origin, b.y_origin - a.y_origin])
        first_row[1:] += first_row[0] * apart
        merge_roots(a.root, b.root, first_row)
        merge_varies(a, b, targets=False)
        np.add(a.updates, b.updates + 1, out=a.updates)
        np.add(a.n, b.n, out=a.n)
        np.add(a.s, b.s, out=a.s)
        return a

    def finalize(self, state: RootState) -> RootResult:
        offsets = np.zeros(self.size - 1)
        if self.centred:
            with np.errstate(invalid="ignore", divide="ignore"):
                offsets = state.root[0, 1:] / state.root[0, 0]
        return RootResult(
            n=int(state.n),
            s=float(state.s),
            updates=int(state.updates),
            origin=state.origin,
            offset=offsets[: self.n_features],
            varies=state.varies,
            y_origin=state.y_origin,
            y_offset=offsets[self.n_features :],
            root=state.root,
        )

    def is_finite(self, state: RootState) -> bool:
        return bool(np.isfinite(state.root.diagonal()).all() and np.isfinite(state.root[0]).all())

    @classmethod
    def select(cls, state: RootState, columns: Numbers, targets: Numbers) -> RootState:
        """Return the R of some columns of R."""
        d = len(state.origin)
        made = RootState.zero(len(columns), len(targets))
        copy_fields(made[:3], state[:3])
        for name in ("origin", "varies"):
            getattr(made, name)[...] = getattr(state, name)[columns]
        made.y_origin[...] = state.y_origin[targets]
        # 1 and the columns of X stand above the rows of y, which are zero in these columns
        chosen = np.concatenate([[0], 1 + columns, 1 + d + targets])
        size = len(chosen)
        part = np.empty((len(state.root), size), order="F")
        for j, column in enumerate(chosen):
            part[:, j] = state.root[:, column]
        triangle, _, _, _ = lapack.dgeqrf(part, lwork=_QR_COLUMNS * size, overwrite_a=1)
        for j in range(size):
            made.root[: j + 1, j] = triangle[: j + 1, j]
        made.updates[...] += 1
        return made

    @classmethod
    def rescale(cls, state: RootState, x: Float64, y: Float64) -> None:
        state.origin[...] *= x
        state.y_origin[...] *= y
        state.root[:, 1:] *= np.concatenate([x, y])

    @classmethod
    def uncentre(cls, state: RootState) -> None:
        np.maximum(state.varies, state.origin != 0, out=state.varies)
        # the first row is that of the columns less the origin: 1 is zero in all others
        row = np.zeros((1, len(state.root)), order="F")
        row[0, 1:] = state.root[0, 1:]
        row[0, 1:] += state.root[0, 0] * np.concatenate([state.origin, state.y_origin])
        state.root[0] = 0.0
        add_rows(state.root, row, 1, SERIAL)
        state.origin[...] = 0.0
        state.y_origin[...] = 0.0
        state.updates[...] += 1

    @classmethod
    def products(cls, state: RootState) -> Products:
        d, R = len(state.origin), state.root
        right = R[1:, d + 1 :]
        X = R[1 : d + 1, 1 : d + 1]
        return Products(X.T @ X, X.T @ right[:d], np.einsum("ij,ij->j", right, right))

    @classmethod
    def settle(cls, state: RootState) -> None:
        """Write nothing: R is zero below its diagonal."""

    @classmethod
    def require_consistent(cls, state: RootState) -> None:
        require_sums(state, np.zeros(0))
        if any(column[j + 1 :].any() for j, column in enumerate(state.root.T)):
            raise ValueError("its R is not triangular")
        if not state.root[0, 0]:
            raise ValueError("its R is of no rows")
