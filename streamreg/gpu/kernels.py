"""The kernels in the functions of an array library that works like NumPy: for a GPU, CuPy's.

Rows, states and sums stay where they are: nothing here copies to the host or waits for a device, so
that work can be queued far ahead. Only a state's count of rows, ``n``, lies on the host.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.kernels.base import AS_STORED, Affine, Kernels
from streamreg.kernels.numpy import tiles
from streamreg.kernels.states import ProductState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.gpu.fused_products import FusedProducts
    from streamreg.kernels.base import Parallel
    from streamreg.kernels.states import GramState, MomentsState

# of a tile in float64: large, since each step of it costs the host some microseconds to queue
TILE_NBYTES = 64 << 20
_LEAST_ROWS = 16
# arrays as large as a tile that are alive at once
_TILES_ALIVE = 3
_COPIES_OF_Y = 3


def tile_rows(n_features: int) -> int:
    """Return the rows of a tile: a function of D alone, and so are the bits.

    So many that tiles of any dtype begin at addresses alike, on which loops may depend.
    """
    return max(1, TILE_NBYTES // (8 * n_features * _LEAST_ROWS)) * _LEAST_ROWS


def scratch_nbytes(n_features: int, n_columns: int, rows: int) -> int:
    """Bytes that an update needs beside state and block, for blocks of so many rows."""
    alive = _TILES_ALIVE * n_features + 6 * n_columns + 4
    # a product with all rows of a tile, and coefficients as the product is read
    products = 2 * n_features * n_columns
    return 8 * ((min(rows, tile_rows(n_features)) + 1) * alive + products)


class ArrayKernels:
    """The loops over the arrays of one library.

    Parameters
    ----------
    xp
        The library: its functions are called as NumPy's.
    add_gram
        Adds ZᵀZ to the lower triangle of a square in Fortran order, given Z (n, D).
    fused
        Folds products in one reading of the rows that it serves.
    gram_tiles
        Makes tiles ready for a Gram, if the library's functions are not to.
    """

    def __init__(
        self,
        xp: Any,  # noqa: ANN401
        add_gram: Callable[[Any, Any], None],
        fused: FusedProducts | None = None,
        gram_tiles: GramTiles | None = None,
    ) -> None:
        self._xp = xp
        self._add_gram = add_gram
        self._fused = fused
        self._gram_tiles = gram_tiles or GramTiles(xp)
        self._constants: dict[int, tuple[Float64, Any]] = {}

    @property
    def kernels(self) -> Kernels:
        """The loops, as accumulators take them."""
        return Kernels({"products": self.products, "moments": self.moments, "gram": self.gram})

    def products(
        self,
        block: Block,
        state: ProductState,
        *,
        coefficients: Float64,
        bias: Float64,
        x: Affine = AS_STORED,
        y: Affine = AS_STORED,
    ) -> None:
        """Add u = XV + b, less y in its first K columns, and uᵀsX to ``state``."""
        xp, k = self._xp, len(state.rr)
        V, b = self._there(coefficients), self._there(bias)
        if self._fused is not None and self._fused.serves(block, state, x):
            VT, rows = xp.ascontiguousarray(V.T), max(1, TILE_NBYTES // (8 * k * _COPIES_OF_Y))
            # some at a time: y may have to be copied
            for start in range(0, block.n_rows, rows):
                part = block.rows(start, start + rows)
                self._fused.add(part, state, self._read(part.y, y), VT, b)
                state.n[...] += len(part.X)
            return
        for tile, tile_y, weight in self._tiles(block):
            z = self._read(tile, x)
            u = z @ V
            # y - b first: they may be large and alike, and are then subtracted without rounding
            u[:, :k] -= self._read(tile_y, y) - b[:k]
            u[:, k:] += b[k:]
            su = u if weight is None else u * weight[:, None]
            xp.add(state.products, su.T @ z, out=state.products)
            xp.add(state.sums, su.sum(axis=0), out=state.sums)
            xp.add(state.rr, (su[:, :k] * u[:, :k]).sum(axis=0), out=state.rr)
            self._count(state, len(tile), weight)

    def moments(
        self,
        block: Block,
        state: MomentsState,
        *,
        x_scale: Float64 | None,
        y_scale: Float64 | None,
    ) -> None:
        """Add a block to means and centred sums: Chan, Golub & LeVeque (1983)."""
        xp = self._xp
        for tile, tile_y, weight in self._tiles(block):
            if not state.n:
                self._begin(state, tile, tile_y, x_scale, y_scale)
            for values, low, high in (
                (tile, state.low, state.high), (tile_y, state.y_low, state.y_high)
            ):  # fmt: skip
                xp.minimum(low, values.min(axis=0), out=low)
                xp.maximum(high, values.max(axis=0), out=high)
            z = self._read(tile, Affine(x_scale, state.origin))
            z_y = self._read(tile_y, Affine(y_scale, state.y_origin))
            s = xp.ones(len(tile)) if weight is None else weight
            total = s.sum()
            ratio, delta, y_delta = self._centre(state, z, z_y, s, total)
            cross = (z_y * s[:, None]).T @ z
            xp.add(state.cross, cross + ratio * xp.outer(y_delta, delta), out=state.cross)
            xp.multiply(z, z, out=z)
            xp.add(state.m2, s @ z + ratio * delta * delta, out=state.m2)
            y_m2 = s @ (z_y * z_y) + ratio * y_delta * y_delta
            xp.add(state.y_m2, y_m2, out=state.y_m2)
            self._count(state, len(tile), weight)

    def gram(
        self,
        block: Block,
        state: GramState,
        parallel: Parallel,
        *,
        centred: bool,
        x_scale: Float64 | None,
        y_scale: Float64 | None,
    ) -> None:
        """Add a block to second moments about the mean (or about zero), a tile at a time.

        δ, times the root of its factor, is one more row of the tile, as on the processor.
        """
        del parallel  # a device shares the work by itself
        xp, d, k = self._xp, len(state.origin), len(state.y_origin)
        for tile, tile_y, weight in self._tiles(block):
            n = len(tile)
            if centred and not state.n:
                self._begin(state, tile, tile_y, x_scale, y_scale)
            rows, y_rows = xp.empty((n + 1, d)), xp.empty((n + 1, k))
            total = None
            if centred:
                total = n if weight is None else weight.sum()
            here, varies = self._gram_tiles.ready(
                tile, Affine(self._there(x_scale), state.origin), weight, total, rows[:n]
            )
            y_here, y_varies = self._gram_tiles.ready(
                tile_y, Affine(self._there(y_scale), state.y_origin), weight, total, y_rows[:n]
            )
            xp.maximum(state.varies, varies, out=state.varies)
            xp.maximum(state.y_varies, y_varies, out=state.y_varies)
            if centred:
                ratio, delta, y_delta = self._moved(state, here, y_here, total)
                rows[n] = delta * xp.sqrt(ratio)
                y_rows[n] = y_delta * xp.sqrt(ratio)
            else:
                rows[n] = y_rows[n] = 0.0
            self._add_gram(rows, state.gram)
            xp.add(state.cross, rows.T @ y_rows, out=state.cross)
            xp.add(state.y_m2, (y_rows * y_rows).sum(axis=0), out=state.y_m2)
            self._count(state, n, weight)

    def finish(self, state: object) -> None:
        """Add what is still apart to a state of which all rows were folded."""
        if self._fused is not None and isinstance(state, ProductState):
            self._fused.finish(state)

    def _tiles(self, block: Block) -> Iterator[tuple[Array, Array, Float64 | None]]:
        """Yield tiles; none reaches from one block into another that it was joined to."""
        for start, stop in pairwise((0, *block.joints, block.n_rows)):
            for tile, y, weight in tiles(block.rows(start, stop), tile_rows(block.X.shape[1])):
                # a copy begins where sums of a GPU, which look at that, add up in one order
                yield tile, y, None if weight is None else weight.copy()

    def _begin(
        self,
        state: MomentsState | GramState,
        tile: Array,
        tile_y: Array,
        x_scale: Float64 | None,
        y_scale: Float64 | None,
    ) -> None:
        """Take the first row for the origin."""
        state.origin[...] = self._read(tile[:1], Affine(x_scale))[0]
        state.y_origin[...] = self._read(tile_y[:1], Affine(y_scale))[0]

    def _centre(
        self,
        state: MomentsState,
        z: Float64,
        z_y: Float64,
        s: Float64,
        total: Float64,
    ) -> tuple[Any, Any, Any]:
        """Centre a tile in place, and move the means of the state."""
        here, y_here = (s @ z) / total, (s @ z_y) / total
        self._xp.subtract(z, here, out=z)
        self._xp.subtract(z_y, y_here, out=z_y)
        return self._moved(state, here, y_here, total)

    def _moved(
        self,
        state: MomentsState | GramState,
        here: Any,  # noqa: ANN401
        y_here: Any,  # noqa: ANN401
        total: Any,  # noqa: ANN401
    ) -> tuple[Any, Any, Any]:
        """Move the means of the state, and return nₐn_b/n, δ and δ of y."""
        xp = self._xp
        share = total / (state.s + total)
        delta, y_delta = here - state.mean, y_here - state.y_mean
        xp.add(state.mean, share * delta, out=state.mean)
        xp.add(state.y_mean, share * y_delta, out=state.y_mean)
        return state.s * share, delta, y_delta

    def _read(self, values: Array, columns: Affine) -> Any:  # noqa: ANN401
        """Return values·scale - shift as float64; the values themselves where nothing changes."""
        z = values.astype(np.float64, copy=False)
        if columns.scale is not None:
            z = z * self._there(columns.scale)
        if columns.shift is not None:
            z = z - self._there(columns.shift)
        return z

    def _there(self, array: Any) -> Any:  # noqa: ANN401
        """Return an array where the rows are; what an accumulator holds is sent once."""
        if not isinstance(array, np.ndarray):
            return array
        if id(array) not in self._constants:
            # the array is kept, so that no other one comes to its number
            self._constants[id(array)] = (array, self._xp.asarray(array))
        return self._constants[id(array)][1]

    def forget(self) -> None:
        """Let go of what accumulators held."""
        self._constants.clear()
        if self._fused is not None:
            self._fused.forget()

    def _count(
        self, state: MomentsState | ProductState | GramState, n: int, weight: Float64 | None
    ) -> None:
        state.n[...] += n
        self._xp.add(state.s, n if weight is None else weight.sum(), out=state.s)


class GramTiles:
    """Writes tiles less their means.

    Parameters
    ----------
    xp
        The library: its functions are called as NumPy's.
    """

    def __init__(self, xp: Any) -> None:  # noqa: ANN401  (arrays of that library, below)
        self._xp = xp

    def ready(
        self,
        tile: Any,  # noqa: ANN401
        columns: Affine,
        weight: Any,  # noqa: ANN401
        total: Any,  # noqa: ANN401
        out: Any,  # noqa: ANN401
    ) -> tuple[Any, Any]:
        """Write zᵢ = xᵢ·scale - shift, less their mean, times √sᵢ; given Σ sᵢ, or ``None``.

        Returns
        -------
        The mean of z, (D,), zero without Σ sᵢ; and where a z is not zero, (D,).
        """
        xp = self._xp
        if columns.scale is not None:
            xp.multiply(tile, columns.scale, out=out)
            tile = out
        if columns.shift is not None:
            xp.subtract(tile, columns.shift, out=out)
        elif tile is not out:
            out[...] = tile
        varies = out.any(axis=0)
        mean = xp.zeros(out.shape[1])
        if total is not None:
            mean = (out.sum(axis=0) if weight is None else weight @ out) / total
            xp.subtract(out, mean, out=out)
        if weight is not None:
            xp.multiply(out, xp.sqrt(weight)[:, None], out=out)
        return mean, varies
