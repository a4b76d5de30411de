"""The kernels in the functions of an array library that works like NumPy: for a GPU, CuPy's.

Nothing here copies to the host or waits for a device, so that work can be queued far ahead. Only
the number of rows of a state, ``n``, is on the host.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.kernels.base import AS_STORED, Affine, Kernels
from streamreg.kernels.residuals import PARTS_OF_TILE, add_residuals, count_in_two_floats
from streamreg.kernels.states import count, move_means
from streamreg.kernels.tiles import tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.gpu.compile import CuPy, DeviceArray
    from streamreg.gpu.fused_products import FusedProducts
    from streamreg.kernels.base import Parallel, Scale
    from streamreg.kernels.states import GramState, MomentsState, ProductState, ResidualState

    # (tile, columns, weight, Σ sᵢ, out) → mean, varies: see centre_tile
    CentreTile = Callable[[Any, Affine, Any, Any, Any], tuple[Any, Any]]

# size of a tile in float64; large, because the host needs some microseconds to queue each step
TILE_NBYTES = 64 << 20
_LEAST_ROWS = 16
# arrays as large as a tile that are alive at once
_TILES_ALIVE = 3
_COPIES_OF_Y = 3


def tile_rows(n_features: int) -> int:
    """Return the rows of a tile: a function of D alone, because it determines the last bits.

    A multiple of 16, so that tiles of any dtype have the same alignment, which may change bits.
    """
    return max(1, TILE_NBYTES // (8 * n_features * _LEAST_ROWS)) * _LEAST_ROWS


def scratch_nbytes(n_features: int, n_columns: int, rows: int) -> int:
    """Bytes that an update needs besides state and block, for blocks of this many rows."""
    alive = _TILES_ALIVE * n_features + 6 * n_columns + 4
    # a product with all rows of a tile, and coefficients as the product is read
    products = 2 * n_features * n_columns
    return 8 * ((min(rows, tile_rows(n_features)) + 1) * alive + products)


class ArrayKernels:
    """The kernels over the arrays of one library, ``xp``.

    ``add_gram`` adds ZᵀZ, given Z (n, D), to the lower triangle of a (D, D) array in Fortran order.
    ``fused`` and ``centre`` are compiled kernels for the rows that they serve.
    """

    def __init__(
        self,
        xp: CuPy,
        add_gram: Callable[[Any, Any], None],
        fused: FusedProducts | None = None,
        centre: CentreTile | None = None,
    ) -> None:
        self._xp = xp
        self._add_gram = add_gram
        self._fused = fused
        self._centre = centre or partial(centre_tile, xp)
        self.kernels = Kernels(
            {
                "products": self.products,
                "moments": self.moments,
                "residuals": self.residuals,
                "gram": self.gram,
            }
        )
        self._constants: dict[int, tuple[Float64, Any]] = {}

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
        V, b = self._on_device(coefficients), self._on_device(bias)
        if self._fused is not None and self._fused.serves(block, state, x):
            VT = xp.ascontiguousarray(V.T)
            rows = max(1, TILE_NBYTES // (8 * max(1, k) * _COPIES_OF_Y))
            # some rows at a time, because y may have to be copied
            for start in range(0, block.n_rows, rows):
                part = block.rows(start, start + rows)
                # without targets, the first column has one of zeros
                target = self._read(part.y, y) if k else xp.zeros((len(part.X), 1))
                self._fused.add(part, state, target, VT, b)
                state.n[...] += len(part.X)
            return
        for tile, tile_y, weight in self._tiles(block):
            z = self._read(tile, x)
            u = z @ V
            # y - b first: both may be large and close, and their difference is then exact
            u[:, :k] -= self._read(tile_y[:, :k], y) - b[:k]
            u[:, k:] += b[k:]
            su = u if weight is None else u * weight[:, None]
            xp.add(state.products, su.T @ z, out=state.products)
            xp.add(state.sums, su.sum(axis=0), out=state.sums)
            xp.add(state.rr, (su[:, :k] * u[:, :k]).sum(axis=0), out=state.rr)
            count(xp, state, len(tile), weight)

    def moments(self, block: Block, state: MomentsState, *, x_scale: Scale, y_scale: Scale) -> None:
        """Add a block to means and centred sums."""
        xp = self._xp
        for tile, tile_y, weight in self._tiles(block):
            if not state.n:
                state.origin[...] = self._read(tile[:1], Affine(x_scale))[0]
                state.y_origin[...] = self._read(tile_y[:1], Affine(y_scale))[0]
            xp.minimum(state.low, tile.min(axis=0), out=state.low)
            xp.maximum(state.high, tile.max(axis=0), out=state.high)
            xp.minimum(state.y_low, tile_y.min(axis=0), out=state.y_low)
            xp.maximum(state.y_high, tile_y.max(axis=0), out=state.y_high)
            z = self._read(tile, Affine(x_scale, state.origin))
            z_y = self._read(tile_y, Affine(y_scale, state.y_origin))
            s = xp.ones(len(tile)) if weight is None else weight
            total = s.sum()
            mean, y_mean = (s @ z) / total, (s @ z_y) / total
            xp.subtract(z, mean, out=z)
            xp.subtract(z_y, y_mean, out=z_y)
            ratio, delta, y_delta = move_means(xp, state, mean, y_mean, total)
            cross = (z_y * s[:, None]).T @ z
            xp.add(state.cross, cross + ratio * xp.outer(y_delta, delta), out=state.cross)
            xp.multiply(z, z, out=z)
            xp.add(state.m2, s @ z + ratio * delta * delta, out=state.m2)
            xp.add(state.y_m2, s @ (z_y * z_y) + ratio * y_delta * y_delta, out=state.y_m2)
            count(xp, state, len(tile), weight)

    def residuals(
        self,
        block: Block,
        state: ResidualState,
        *,
        coefficients: Float64,
        bias: Float64,
        n_targets: int,
        x_scale: Scale = None,
        y_scale: Scale = None,
    ) -> None:
        """Add r = XV + b, less y in its first K columns; V is (M, 2, D), b (M, 2): two floats."""
        V, b = self._on_device(coefficients), self._on_device(bias)
        for X, y, weight in self._tiles(block):
            height = -(-len(X) // PARTS_OF_TILE)
            for start in range(0, len(X), height):
                part = slice(start, start + height)
                z = self._read(X[part], Affine(x_scale))
                target = self._read(y[part, :n_targets], Affine(y_scale))
                s = None if weight is None else weight[part]
                add_residuals(state, z, target, s, V, b)
                count_in_two_floats(state, len(z), s)

    def gram(
        self,
        block: Block,
        state: GramState,
        parallel: Parallel,  # noqa: ARG002  (a device shares the work by itself)
        *,
        centred: bool,
        x_scale: Scale,
        y_scale: Scale,
    ) -> None:
        """Add a block to second moments about the mean (or about zero), a tile at a time.

        √(nₐ n_b / n) δ is appended to the tile as a row, as on the processor.
        """
        xp, d, k = self._xp, len(state.origin), len(state.y_origin)
        for tile, tile_y, weight in self._tiles(block):
            n = len(tile)
            if centred and not state.n:
                state.origin[...] = self._read(tile[:1], Affine(x_scale))[0]
                state.y_origin[...] = self._read(tile_y[:1], Affine(y_scale))[0]
            rows, y_rows = xp.empty((n + 1, d)), xp.empty((n + 1, k))
            total = (n if weight is None else weight.sum()) if centred else None
            columns = Affine(self._on_device(x_scale), state.origin)
            y_columns = Affine(self._on_device(y_scale), state.y_origin)
            mean, varies = self._centre(tile, columns, weight, total, rows[:n])
            y_mean, y_varies = self._centre(tile_y, y_columns, weight, total, y_rows[:n])
            xp.maximum(state.varies, varies, out=state.varies)
            xp.maximum(state.y_varies, y_varies, out=state.y_varies)
            if centred:
                ratio, delta, y_delta = move_means(xp, state, mean, y_mean, total)
                rows[n] = delta * xp.sqrt(ratio)
                y_rows[n] = y_delta * xp.sqrt(ratio)
            else:
                rows[n] = y_rows[n] = 0.0
            self._add_gram(rows, state.gram)
            xp.add(state.updates, 1, out=state.updates)
            xp.add(state.cross, rows.T @ y_rows, out=state.cross)
            xp.add(state.y_m2, (y_rows * y_rows).sum(axis=0), out=state.y_m2)
            count(xp, state, n, weight)

    def finish(self) -> None:
        """Add the separate sums of the fused kernels to the state of a finished segment."""
        if self._fused is not None:
            self._fused.finish()

    def forget(self) -> None:
        """Release the accumulators' arrays, and sums that were not finished."""
        self._constants.clear()
        if self._fused is not None:
            self._fused.forget()

    def _tiles(self, block: Block) -> Iterator[tuple[Array, Array, Float64 | None]]:
        """Yield tiles; none spans two of the blocks that were joined."""
        for start, stop in pairwise((0, *block.joints, block.n_rows)):
            for tile, y, weight in tiles(block.rows(start, stop), tile_rows(block.X.shape[1])):
                # a copy, because it is aligned, and the order of a GPU's sums depends on alignment
                yield tile, y, None if weight is None else weight.copy()

    def _read(self, values: Array, columns: Affine) -> DeviceArray:
        """Return values·scale - shift as float64; the values themselves if nothing changes."""
        z = values.astype(np.float64, copy=False)
        if columns.scale is not None:
            z = z * self._on_device(columns.scale)
        if columns.shift is not None:
            z = z - self._on_device(columns.shift)
        return z

    def _on_device(self, array: Array | DeviceArray | None) -> DeviceArray:
        """Return an array on the device; an array of an accumulator is sent once."""
        if not isinstance(array, np.ndarray):
            return array
        if id(array) not in self._constants:
            # the host's array is kept too, so that no other array can get its id
            self._constants[id(array)] = (array, self._xp.asarray(array))
        return self._constants[id(array)][1]


def centre_tile(
    xp: CuPy,
    tile: DeviceArray,
    columns: Affine,
    weight: DeviceArray | None,
    total: DeviceArray | None,
    out: DeviceArray,
) -> tuple[DeviceArray, DeviceArray]:
    """Write zᵢ = xᵢ·scale - shift, less their mean, times √sᵢ; ``total`` is Σ sᵢ, or ``None``.

    Returns the mean of z (D,), which is zero without Σ sᵢ; and where a z is not zero (D,).
    """
    if columns.scale is not None:
        xp.multiply(tile, columns.scale, out=out)
        tile = out
    xp.subtract(tile, columns.shift, out=out)
    varies = out.any(axis=0)
    mean = xp.zeros(out.shape[1])
    if total is not None:
        mean = (out.sum(axis=0) if weight is None else weight @ out) / total
        xp.subtract(out, mean, out=out)
    if weight is not None:
        xp.multiply(out, xp.sqrt(weight)[:, None], out=out)
    return mean, varies
