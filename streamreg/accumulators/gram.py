"""Centred XᵀX and Xᵀy, in O(D²), for the closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.merging import copy_fields, merge_means, merge_varies
from streamreg.accumulators.panels import PanelAccumulator
from streamreg.accumulators.second_moments import Products, SecondMoments, require_sums
from streamreg.formatting import MIB
from streamreg.kernels import scratch
from streamreg.kernels.numpy import target_columns
from streamreg.kernels.states import GramState
from streamreg.kernels.triangle import mirror

if TYPE_CHECKING:
    from streamreg.accumulators.second_moments import Mask, Numbers
    from streamreg.blocks import Block, Float64
    from streamreg.kernels.base import Kernels


# Size of an outer product in ``merge``, which no plan counts. Measured: equally fast from
# 256 KiB to 4 MiB, D = 1,000 to 5,000.
_MERGED_NBYTES = MIB


class GramResult(NamedTuple):
    """Second moments, of columns multiplied by ``Scaling`` where the pass had one."""

    n: int  #              rows
    s: float  #            Σ sᵢ
    updates: int  #        additions to ``gram``, each of which rounds
    origin: Float64  #     (D,)   the first row; zeros where nothing is centred
    offset: Float64  #     (D,)   x̄ less it; zeros where nothing is centred
    varies: Float64  #     (D,)   1 where a column is not constant (not zero, if not centred)
    gram: Float64  #       (D, D) Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ, a sum: lower triangle, Fortran order
    y_origin: Float64  #   (K,)   the first y; zeros where nothing is centred
    y_offset: Float64  #   (K,)   ȳ less it; zeros where nothing is centred
    y_varies: Float64  #   (K,)   1 where a target is not constant
    y_variance: Float64  # (K,)   Σ sᵢ (yᵢ - ȳ)² / Σ sᵢ
    cross: Float64  #      (D, K) Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ, a sum: Fortran order
    is_about_origin: bool = False  # whether ``gram`` still is about the origin, not the means

    @property
    def mean(self) -> Float64:
        """x̄, (D,), rounded."""
        return self.origin + self.offset

    @property
    def y_mean(self) -> Float64:
        """ȳ, (K,), rounded."""
        return self.y_origin + self.y_offset

    @property
    def variances(self) -> Float64:
        """Variances of X and y, (D + K,)."""
        squares = self.gram.diagonal() / self.s
        if self.is_about_origin:
            squares = np.maximum(squares - self.offset**2, 0.0)
        return np.append(squares, self.y_variance)

    @property
    def may_vary(self) -> Mask:
        """Whether a column of X and y is not constant, (D + K,)."""
        return np.append(self.varies, self.y_varies) > 0

    def about_means(self) -> GramResult:
        """Return the result with ``gram`` about the means, which is overwritten."""
        if not self.is_about_origin:
            return self
        gram, offset = self.gram, self.offset
        for j in range(len(gram)):  # a column at a time: no second D² array
            gram[j:, j] -= (self.s * offset[j]) * offset[j:]
            gram[j, j] = max(gram[j, j], 0.0)
        return self._replace(is_about_origin=False)


@dataclass(frozen=True, eq=False)
class Gram(PanelAccumulator[GramState, GramResult], SecondMoments[GramState]):
    """Centred second moments of (X, y).

    Rows a and rows b merge, with n = nₐ + n_b and δ = x̄_b - x̄ₐ, by [1]_

        G = Gₐ + G_b + (nₐ n_b / n) δ δᵀ               (D, D)

    Solving with G squares κ(X): expect about 16 - 2 log₁₀ κ(X) correct digits. One state holds
    8·(D² + D·(K + 3) + 4K + 3) bytes.

    References
    ----------
    .. [1] Chan, Golub & LeVeque (1983), The American Statistician 37(3), 242-247.
    """

    kind = "gram"
    symbol = "XᵀX"
    squares_condition = True
    square = "gram"
    by_target = ("y_mean", "y_varies", "y_m2", "cross")
    reads_tiles = True

    @property
    def has_square(self) -> bool:
        """Whether XᵀX is computed."""
        return True

    @property
    def n_columns(self) -> int:
        return self.n_features if self.has_square else 0

    @property
    def target_ranges(self) -> list[slice]:
        return target_columns(self.n_features, self.n_targets)

    @property
    def state_nbytes(self) -> int:
        d, k = self.n_features, self.n_targets
        return 8 * (self.n_columns * self.n_columns + d * (k + 3) + 4 * k + 3)

    @property
    def scratch_nbytes(self) -> int:
        return scratch.gram_nbytes(self.n_features, self.n_targets)

    def zero(self) -> GramState:
        return GramState.zero(self.n_features, self.n_targets, has_square=self.has_square)

    def update(self, state: GramState, block: Block, kernels: Kernels) -> GramState:
        x_scale, y_scale = self.scaling or (None, None)
        kernels.find("gram")(
            block, state, kernels.parallel, centred=self.centred, x_scale=x_scale, y_scale=y_scale
        )
        return state

    def merge(self, a: GramState, b: GramState) -> GramState:
        merged = merge_means(a, b)
        if merged is None:
            return a
        ratio, delta, y_delta = merged
        np.add(a.updates, b.updates + 1, out=a.updates)
        np.add(a.gram, b.gram, out=a.gram)
        np.add(a.cross, b.cross, out=a.cross)
        np.add(a.y_m2, b.y_m2, out=a.y_m2)
        if self.centred:
            # some columns at a time, because a whole outer product would be a second D² array
            weights, width = ratio * delta, max(1, _MERGED_NBYTES // (8 * self.n_features))
            for first in range(0, self.n_columns, width):
                columns = a.gram[first:, first : first + width]
                moved_by = weights[first : first + width]
                np.add(columns, np.outer(moved_by, delta[first:]).T, out=columns)
            # some targets at a time, because a whole outer product would be a second (D, K) array
            for first in range(0, self.n_targets, width):
                of_targets = a.cross.T[first : first + width]
                moved_by = np.outer(y_delta[first : first + width], delta)
                np.multiply(moved_by, ratio, out=moved_by)
                np.add(of_targets, moved_by, out=of_targets)
            np.add(a.y_m2, ratio * y_delta * y_delta, out=a.y_m2)
        merge_varies(a, b)
        return a

    @np.errstate(invalid="ignore", over="ignore")
    def finalize(self, state: GramState) -> GramResult:
        s = np.float64(state.s)  # without rows the means are NaN
        return GramResult(
            n=int(state.n),
            s=float(s),
            updates=int(state.updates),
            origin=state.origin,
            offset=state.mean,
            varies=state.varies,
            gram=state.gram,
            y_origin=state.y_origin,
            y_offset=state.y_mean,
            y_varies=state.y_varies,
            y_variance=state.y_m2 / s,
            cross=state.cross,
        )

    def is_finite(self, state: GramState) -> bool:
        sums = (state.mean, state.y_mean) if self.centred else (state.gram.diagonal(), state.y_m2)
        return all(bool(np.isfinite(values).all()) for values in sums)

    @classmethod
    def select(cls, state: GramState, columns: Numbers, targets: Numbers) -> GramState:
        mirror(state.gram)
        made = GramState.zero(len(columns), len(targets))
        copy_fields(made[:3], state[:3])
        for name in ("origin", "mean", "varies"):
            getattr(made, name)[...] = getattr(state, name)[columns]
        for name in ("y_origin", "y_mean", "y_varies", "y_m2"):
            getattr(made, name)[...] = getattr(state, name)[targets]
        for j, column in enumerate(columns):  # a column at a time: no second D² array
            made.gram[:, j] = state.gram[columns, column]
        for k, target in enumerate(targets):
            made.cross[:, k] = state.cross[columns, target]
        return made

    @classmethod
    def rescale(cls, state: GramState, x: Float64, y: Float64) -> None:
        for name in ("origin", "mean"):
            getattr(state, name)[...] *= x
        for name in ("y_origin", "y_mean"):
            getattr(state, name)[...] *= y
        # one after the other, because a product of two factors may leave float64's range
        for factors in (x[:, None], x):
            state.gram[...] *= factors
        for factors in (x[:, None], y):
            state.cross[...] *= factors
        for _ in range(2):
            state.y_m2[...] *= y

    @classmethod
    def uncentre(cls, state: GramState) -> None:
        x, y = state.origin + state.mean, state.y_origin + state.y_mean
        for j in range(len(x)):
            state.gram[j:, j] += (state.s * x[j]) * x[j:]
        for k in range(len(y)):
            state.cross[:, k] += (state.s * x) * y[k]
        state.y_m2[...] += state.s * y * y
        np.maximum(state.varies, state.origin != 0, out=state.varies)
        np.maximum(state.y_varies, state.y_origin != 0, out=state.y_varies)
        for zeros in (state.origin, state.mean, state.y_origin, state.y_mean):
            zeros[...] = 0.0
        state.updates[...] += 1

    @classmethod
    def products(cls, state: GramState) -> Products:
        mirror(state.gram)
        return Products(state.gram, state.cross, state.y_m2)

    @classmethod
    def settle(cls, state: GramState) -> None:
        mirror(state.gram)

    @classmethod
    def require_consistent(cls, state: GramState) -> None:
        require_sums(state, np.append(state.gram.diagonal(), state.y_m2))


@dataclass(frozen=True, eq=False)
class BatchGram(Gram):
    """The sums of some of the targets, perhaps without XᵀX, which an earlier batch gave."""

    # so that a batch is divided as all targets are, in one segment
    in_order = True

    targets: tuple[int, int] | None = None
    computes_square: bool = True

    @property
    def has_square(self) -> bool:
        return self.computes_square

    @classmethod
    def of(cls, gram: Gram, targets: slice) -> BatchGram:
        """Return what computes this for some targets: of the first ones with XᵀX."""
        first, stop = targets.start, targets.stop
        return cls(
            gram.n_features,
            stop - first,
            gram.centred,
            targets=(first, stop),
            computes_square=not first,
        )
