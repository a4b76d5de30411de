"""The kernels in NumPy: each tile is read from memory once, and fits the processor's cache.

Sums are float64, whatever is stored.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from streamreg.kernels import blas, sparse
from streamreg.kernels.base import AS_STORED, Affine, Kernels, KernelSet, Scale
from streamreg.kernels.groups import group_sums, sorted_groups
from streamreg.kernels.meat import meat
from streamreg.kernels.residuals import ARRAYS_ALIVE, add_residuals, count_in_two_floats
from streamreg.kernels.root import root
from streamreg.kernels.sparse_gram import sparse_gram
from streamreg.kernels.states import count, move_means
from streamreg.kernels.tiles import (
    column,
    room_for,
    set_origins,
    targets_less_bias,
    tiles,
    weights_of,
    widen,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Parallel
    from streamreg.kernels.states import GramState, MomentsState, ProductState, ResidualState

    # of a tile: its mean less the origin (D,); sums about the mean: of squares (D,), with y (K, D)
    CentreTile = Callable[[Array, Affine, Float64 | None, float | None, Float64, Float64], Float64]
    Centred = tuple[Float64, Float64, Float64]

Made = TypeVar("Made")

_TILE_NBYTES = 1 << 20
_MIN_ROWS = 8
_GRAM_TILE_NBYTES = 2 << 20
# with fewer rows, reading and writing the D² state would take most of a rank-k update
_GRAM_MIN_ROWS = 256
# Columns of a panel, by which threads share a D² state that is too large for one copy a thread.
# Measured on two threads at D = 2,048, as a share of dsyrk: 256 0.84, 384 0.85, 512 0.80.
_PANEL = 384
# Targets that are centred and multiplied at once, by which threads share XᵀY: a copy of them is as
# large as a tile.
_MOST_TARGETS, _LEAST_TARGETS = 512, 16
# with more columns of coefficients, one matrix product is faster than one vector at a time
FEW_COLUMNS = 4
# of more targets, predictions take taller tiles
FEW_TARGETS = 64
_PREDICT_ROWS, _PREDICT_NBYTES = 256, 32 << 20
# columns are few if they are at most 1 in 8
FEW = 8
# of tiles that robust covariances read: narrow rows take more scratch memory than their columns
MOST_ROBUST_ROWS = 1 << 14


def tile_rows(n_features: int) -> int:
    """Return the rows of a tile: about 1 MiB of float64, at least 8."""
    return max(_MIN_ROWS, _TILE_NBYTES // (8 * n_features))


def predict_rows(n_features: int, n_targets: int) -> int:
    """Return the rows of a tile for predictions of K targets: of many, 256 or at most 32 MiB.

    BLAS packs all weights again for each tile, which must pay.
    """
    rows = tile_rows(n_features)
    if n_targets <= FEW_TARGETS:
        return rows
    return max(rows, min(_PREDICT_ROWS, _PREDICT_NBYTES // (8 * n_features)))


def gram_tile_rows(n_features: int) -> int:
    """Return the rows of a tile for rank-k updates: about 2 MiB of float64, at least 256."""
    return max(_GRAM_MIN_ROWS, _GRAM_TILE_NBYTES // (8 * n_features))


def products(
    block: Block,
    state: ProductState,
    *,
    coefficients: Float64,
    bias: Float64,
    x: Affine = AS_STORED,
    y: Affine = AS_STORED,
) -> None:
    """Add u = XV + b, less y in its first K columns, and uᵀsX; V is (D, M), b (M,)."""
    n_targets, n_columns = len(state.rr), len(state.sums)
    rows = min(tile_rows(block.X.shape[1]), block.n_rows)
    room = room_for(block.X.dtype, block.X.shape[1], rows, x)
    u_room, added = np.empty((n_columns, rows)), np.empty_like(state.products)
    su_room = u_room if block.weight is None else np.empty_like(u_room)
    for tile, tile_y, weight in tiles(block, rows):
        z = widen(tile, room, x)
        u = u_room[:, : len(z)]
        _multiply(coefficients.T, z, u)
        u[:n_targets] -= targets_less_bias(tile_y[:, :n_targets], y, bias[:n_targets]).T
        u[n_targets:] += bias[n_targets:, None]
        su = u if weight is None else np.multiply(u, weight, out=su_room[:, : len(z)])
        _multiply_rows(su, z, added)
        np.add(state.products, added, out=state.products)
        np.add(state.sums, su.sum(axis=1), out=state.sums)
        np.add(state.rr, np.einsum("ji,ji->j", su[:n_targets], u[:n_targets]), out=state.rr)
        count(np, state, len(z), weight)


def _multiply(coefficients: Float64, z: Float64, out: Float64) -> None:
    """Write (zV)ᵀ, (M, n), given Vᵀ: a column at a time, three times as fast while they are few."""
    if len(coefficients) > FEW_COLUMNS:
        np.matmul(coefficients, z.T, out=out)
        return
    for weights, row in zip(coefficients, out, strict=True):
        np.dot(z, weights, out=row)


def _multiply_rows(u: Float64, z: Float64, out: Float64) -> None:
    """Write uz, (M, D)."""
    if len(u) > FEW_COLUMNS:
        np.matmul(u, z, out=out)
        return
    for values, row in zip(u, out, strict=True):
        np.dot(values, z, out=row)


def predict(X: Array, coefficients: Float64, intercept: Float64) -> Float64:
    """Return Xw + b, (n, K) float64; w is (D, K), b (K,)."""
    out = np.empty((len(X), len(intercept)))
    rows = min(predict_rows(X.shape[1], len(intercept)), len(X))
    room = room_for(X.dtype, X.shape[1], rows, AS_STORED)
    # values beyond float64's range become inf, which callers look for
    with np.errstate(all="ignore"):
        for start in range(0, len(X), max(1, rows)):
            z = widen(X[start : start + rows], room, AS_STORED)
            np.matmul(z, coefficients, out=out[start : start + rows])
        out += intercept
    return out


def moments(block: Block, state: MomentsState, *, x_scale: Scale, y_scale: Scale) -> None:
    """Add a block to means and centred sums."""
    rows = min(tile_rows(block.X.shape[1]), block.n_rows)
    room = np.empty((rows, block.X.shape[1]))

    def about_mean(tile: Array, y: Float64, s: Float64, total: float) -> Centred:
        _bound(tile, state.low, state.high)
        z = widen(tile, room, Affine(x_scale, state.origin))
        mean = _centre(z, s, total)
        cross = (y * s[:, None]).T @ z
        np.square(z, out=z)
        return mean, s @ z, cross

    add_moments(block, state, rows, about_mean, x_scale=x_scale, y_scale=y_scale)


def add_moments(
    block: Block,
    state: MomentsState,
    rows: int,
    about_mean: Callable[[Array, Float64, Float64, float], Centred],
    *,
    x_scale: Scale,
    y_scale: Scale,
) -> None:
    """Add tiles, each centred by its own mean: ``about_mean(tile, y, s, Σ sᵢ)`` sums them up."""
    for tile, tile_y, weight in tiles(block, rows):
        set_origins(state, tile, tile_y, x_scale, y_scale)
        _bound(tile_y, state.y_low, state.y_high)
        z_y = column(tile_y, Affine(y_scale, state.y_origin))
        s = weights_of(weight, len(tile))
        total = float(s.sum())
        y_mean = _centre(z_y, s, total)
        mean, squares, cross = about_mean(tile, z_y, s, total)
        ratio, delta, y_delta = move_means(np, state, mean, y_mean, total)
        np.add(state.cross, cross + ratio * np.outer(y_delta, delta), out=state.cross)
        np.add(state.m2, squares + ratio * delta * delta, out=state.m2)
        np.add(state.y_m2, s @ (z_y * z_y) + ratio * y_delta * y_delta, out=state.y_m2)
        count(np, state, len(tile), weight)


def residuals(
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
    rows = min(residuals_rows(block.X.shape[1]), block.n_rows)
    columns = Affine(x_scale)
    room = room_for(block.X.dtype, block.X.shape[1], rows, columns)
    for tile, tile_y, weight in tiles(block, rows):
        y = column(tile_y[:, :n_targets], Affine(y_scale))
        add_residuals(state, widen(tile, room, columns), y, weight, coefficients, bias)
        count_in_two_floats(state, len(tile), weight)


def residuals_rows(n_features: int) -> int:
    """Return the rows that :func:`residuals` takes at once: all its arrays are about a tile."""
    return max(1, tile_rows(n_features) // ARRAYS_ALIVE)


def gram_panels(n_features: int) -> int:
    """Return how many panels of columns :func:`gram` updates, one at a time."""
    return -(-n_features // _PANEL)


def gram_columns(n_features: int, panels: Iterable[int]) -> list[slice]:
    """Return the columns of some panels."""
    return [slice(at * _PANEL, min((at + 1) * _PANEL, n_features)) for at in panels]


def target_width(n_features: int, n_targets: int) -> int:
    """Return how many targets :func:`gram` multiplies at once: a power of two, or all."""
    width = _GRAM_TILE_NBYTES // (8 * gram_tile_rows(n_features))
    power = 1 << max(0, width.bit_length() - 1)
    return min(max(_LEAST_TARGETS, min(power, _MOST_TARGETS)), n_targets)


def target_columns(n_features: int, n_targets: int) -> list[slice]:
    """Return these targets, a range of them after the other."""
    width = max(1, target_width(n_features, n_targets))
    return [slice(at, min(at + width, n_targets)) for at in range(0, n_targets, width)]


class _Tile(NamedTuple):
    """A tile, centred, whose means and counts are in the state already."""

    rows: Float64  # (n, D), or (n + 1, D) with √(nₐ n_b / n) δ
    n: int  # rows of y
    y: Array  # (n, K), as stored
    weight: Float64 | None  # (n,)
    total: float  # Σ sᵢ of the tile
    share: float  # of the weights so far, with the tile's
    ratio: float  # nₐ n_b / n


def gram(
    block: Block,
    state: GramState,
    parallel: Parallel,
    *,
    centred: bool,
    x_scale: Scale,
    y_scale: Scale,
    centre: CentreTile | None = None,
) -> None:
    """Add a block to second moments about the mean (or about zero), a tile at a time.

    With rows a so far and rows b of the tile, and δ = x̄_b - x̄ₐ, the sum about the common mean is

        G = Gₐ + G_b + (nₐ n_b / n) δ δᵀ

    so √(nₐ n_b / n) δ is appended to the tile as a row: one rank-k update does all. Threads share
    panels of XᵀX and ranges of targets.
    """
    ready = _centred_tiles(
        block,
        state,
        parallel.n_tiles,
        centred=centred,
        x_scale=x_scale,
        y_scale=y_scale,
        centre=centre or centre_tile,
    )
    n_features = len(state.gram)
    panels = gram_columns(n_features, range(gram_panels(n_features)))
    ranges = target_columns(*state.cross.shape)

    def add(number: int, tile: _Tile) -> None:
        if number < len(panels):
            columns = panels[number]
            blas.add_gram_panel(tile.rows, state.gram, columns.start, columns.stop)
            return
        # on another thread than the one whose caller ignores overflow
        with np.errstate(all="ignore"):
            _add_targets(tile, state, ranges[number - len(panels)], y_scale, centred=centred)

    _run(ready, add, len(panels) + len(ranges), parallel)


def _add_targets(
    tile: _Tile, state: GramState, targets: slice, y_scale: Scale, *, centred: bool
) -> None:
    """Add some targets of a tile to the sums of y and XᵀY."""
    n, weight = tile.n, tile.weight
    scale = None if y_scale is None else y_scale[targets]
    z = np.empty((len(tile.rows), targets.stop - targets.start))
    shift = state.y_origin[targets] if centred else None
    z[:n] = column(tile.y[:, targets], Affine(scale, shift))
    varies = state.y_varies[targets]
    _note_changes(z[:n], varies)
    state.y_varies[targets] = varies
    if centred:
        mean = _centre(z[:n], np.ones(n) if weight is None else weight, tile.total)
        delta = mean - state.y_mean[targets]
        state.y_mean[targets] += tile.share * delta
        np.multiply(delta, np.sqrt(tile.ratio), out=z[n])
    if weight is not None:
        z[:n] *= np.sqrt(weight)[:, None]
    state.y_m2[targets] += np.einsum("ij,ij->j", z, z)
    cross = state.cross[:, targets]
    if z.shape[1] > FEW_COLUMNS:
        blas.add_product(tile.rows.T, z, cross)
    else:
        np.add(cross, tile.rows.T @ z, out=cross)


def add_gram(ready: Iterator[Float64], gram: Float64, parallel: Parallel) -> None:
    """Add rowsᵀrows of each tile to the lower triangle of ``gram`` (D, D), in Fortran order.

    The next tile is prepared beside the product.
    """
    panels = gram_columns(len(gram), range(gram_panels(len(gram))))

    def add(number: int, rows: Float64) -> None:
        blas.add_gram_panel(rows, gram, panels[number].start, panels[number].stop)

    _run(ready, add, len(panels), parallel)


def _run(
    ready: Iterator[Made], add: Callable[[int, Made], None], count: int, parallel: Parallel
) -> None:
    """Call ``add(number, tile)`` for each part of each tile, and prepare the next tile beside."""
    waiting: deque[Made | None] = deque()

    def prepare() -> None:
        # on another thread than the one whose caller ignores overflow
        with np.errstate(all="ignore"):
            waiting.append(next(ready, None))

    prepare()
    while (tile := waiting.popleft()) is not None:

        def task(number: int, tile: Made = tile) -> None:
            add(number, tile)

        parallel.run(task, count, prepare)


def _centred_tiles(
    block: Block,
    state: GramState,
    n_rooms: int,
    *,
    centred: bool,
    x_scale: Scale,
    y_scale: Scale,
    centre: CentreTile,
) -> Iterator[_Tile]:
    """Yield each tile as it is multiplied, once its means of X and its counts are added."""
    n_features = block.X.shape[1]
    rows = min(gram_tile_rows(n_features), block.n_rows)
    rooms = np.empty((n_rooms, rows + 1, n_features))
    for number, (tile, tile_y, weight) in enumerate(tiles(block, rows)):
        n, room = len(tile), rooms[number % n_rooms]
        if centred:
            set_origins(state, tile, tile_y, x_scale, y_scale)
        columns = Affine(x_scale, state.origin if centred else None)
        total, share, ratio, filled = 0.0, 0.0, 0.0, n
        if centred:
            total = float(weights_of(weight, n).sum())
            mean = centre(tile, columns, weight, total, state.varies, room[:n])
            # the means of y are moved by those who add its ranges
            share = float(total / (state.s + total))
            ratio = float(state.s * share)
            delta = mean - state.mean
            np.add(state.mean, share * delta, out=state.mean)
            np.multiply(delta, np.sqrt(ratio), out=room[n])
            filled = n + 1
        else:
            centre(tile, columns, weight, None, state.varies, room[:n])
        state.updates[...] += 1
        count(np, state, n, weight)
        yield _Tile(room[:filled], n, tile_y, weight, total, share, ratio)


def centre_tile(
    tile: Array,
    columns: Affine,
    weight: Float64 | None,
    total: float | None,
    varies: Float64,
    out: Float64,
) -> Float64:
    """Write (x·scale - shift - mean)·√s to ``out``, (n, D), and return the mean.

    Without ``total``, Σ sᵢ, nothing is centred and the mean is zeros. Columns that differ from
    their shift are marked in ``varies``.
    """
    z = widen(tile, out, columns)
    _note_changes(z, varies)
    mean = np.zeros(len(varies))
    if total is not None:
        mean = _centre(z, weights_of(weight, len(z)), total)
    if weight is not None:
        z *= np.sqrt(weight)[:, None]
    return mean


def _bound(values: Array, low: Float64, high: Float64) -> None:
    if values.shape[1]:
        np.minimum(low, values.min(axis=0), out=low)
        np.maximum(high, values.max(axis=0), out=high)


def _note_changes(z: Float64, varies: Float64) -> None:
    """Mark columns that differ from their origin; once all are marked it costs nothing."""
    still = np.flatnonzero(varies == 0)
    if len(still):
        # a few columns are copied; of many, it is cheaper to look at all
        part = still if FEW * len(still) <= len(varies) else slice(None)
        varies[part] = np.maximum(varies[part], z[:, part].any(axis=0))


def _centre(z: Float64, s: Float64, total: float) -> Float64:
    """Subtract the weighted mean from each column of ``z``, in place, and return it."""
    mean = (s @ z) / total
    z -= mean
    return np.asarray(mean)


_KERNELS = Kernels(
    {
        "products": products,
        "moments": moments,
        "residuals": residuals,
        "gram": gram,
        "root": root,
        "meat": partial(meat, write=centre_tile, add=add_gram),
        "group_sums": partial(group_sums, write=centre_tile),
        "sorted_groups": partial(sorted_groups, write=centre_tile, add=add_gram),
        "predict": predict,
    }
)
_SPARSE_KERNELS = Kernels(
    {
        # these read dense slices
        **_KERNELS.by_name,
        "sparse_products": sparse.sparse_products,
        "sparse_moments": sparse.sparse_moments,
        "sparse_gram": sparse_gram,
        "column_gram": sparse.column_gram,
        "residuals": sparse.residuals,
        "predict": sparse.predict_with(predict),
    }
)
KERNELS = KernelSet({"dense": _KERNELS, "file": _KERNELS, "sparse": _SPARSE_KERNELS})
