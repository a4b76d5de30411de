"""The compiled kernels: each row is read from memory once, and reduced while it is in cache.

They read any real dtype of at most 64 bits in either byte order, without a widened copy of a block.
Rows in another layout than C order are copied a tile at a time first. Sums are float64. No loop
holds the interpreter's lock. The plainest form of each kernel is in ``kernels/numpy.py``.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.blocks import FileRows
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.base import AS_STORED, Affine, Kernel, Kernels, KernelSet, Scale
from streamreg.kernels.numpy import column, tile_rows
from streamreg.kernels.states import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Parallel
    from streamreg.kernels.library import Library
    from streamreg.kernels.states import GramState, MomentsState, ProductState

# the stored types, in the order of `enum type` in rows.h
_TYPES = ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_TYPE_NUMBERS = {np.dtype(name): number for number, name in enumerate(_TYPES)}
_TYPE_NUMBERS[np.dtype(bool)] = _TYPES.index("u1")
# of a tile that is widened, as rows.h and moments.c have it
_WIDENED_NBYTES, _MOMENTS_NBYTES = 32 << 10, 256 << 10
# rows at a time, because their targets are copied
_MOST_ROWS = 1 << 14


class _Rows(ctypes.Structure):
    """``struct rows`` of rows.h."""

    _fields_ = (
        ("values", ctypes.c_void_p),
        ("n", ctypes.c_int64),
        ("d", ctypes.c_int64),
        ("scale", ctypes.c_void_p),
        ("shift", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("swapped", ctypes.c_int32),
        ("in_cache", ctypes.c_int32),
    )


class _Products(ctypes.Structure):
    """``struct products`` of products.h."""

    _fields_ = (
        ("m", ctypes.c_int64),
        ("k", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("coefficients", "bias", "y", "weight")),
        *((name, ctypes.c_void_p) for name in ("rr", "sums", "products", "tile")),
    )


class _Moments(ctypes.Structure):
    """``struct moments`` of moments.h."""

    _fields_ = (
        ("k", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("y", "weight", "origin", "s", "mean", "m2")),
        *((name, ctypes.c_void_p) for name in ("low", "high", "y_mean", "y_m2", "cross")),
        *((name, ctypes.c_void_p) for name in ("scratch", "tile")),
    )


class _Stored(ctypes.Structure):
    """``struct stored`` of read.c."""

    _fields_ = (
        ("n_parts", ctypes.c_int64),
        ("files", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("bounds", ctypes.c_void_p),
        ("first", ctypes.c_int64),
        ("piece_nbytes", ctypes.c_int64),
        ("piece", ctypes.c_void_p),
        ("done", ctypes.c_int64),
    )


_POINTER = ctypes.c_void_p
_ARGUMENTS = {
    "add_products": [_POINTER] * 2,
    "add_moments": [_POINTER] * 2,
    "read_products": [_POINTER] * 3,
    "read_moments": [_POINTER] * 3,
    "centre": [_POINTER, _POINTER, ctypes.c_double, _POINTER, _POINTER, _POINTER],
    "predict": [_POINTER] * 3 + [ctypes.c_int64] + [_POINTER] * 2,
}


class _Loops:
    """The kernels of one library, as accumulators call them."""

    def __init__(self, library: Library) -> None:
        functions = library.functions
        for name, arguments in _ARGUMENTS.items():
            getattr(functions, name).argtypes = arguments
        self._functions = functions

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
        """Add u = XV + b, less y in its first K columns, and uᵀsX; V is (D, M), b (M,)."""
        n_targets, n_columns = len(state.rr), len(state.sums)
        V = np.ascontiguousarray(coefficients.T)
        added = bias.copy()
        added[:n_targets] = 0
        tile = _tile(block.X.shape[1], _WIDENED_NBYTES)
        sums = _Products(n_columns, n_targets, _at(V), _at(added))
        sums.rr, sums.sums, sums.products = _at(state.rr), _at(state.sums), _at(state.products)
        sums.tile = _at(tile)
        add, read = self._functions.add_products, self._functions.read_products
        for rows in _spans(block, x):
            # y - b first: both may be large and close, and their difference is then exact
            target = column(block.y[rows.part], y) - bias[:n_targets]
            weight = None if block.weight is None else block.weight[rows.part]
            sums.y, sums.weight = _at(target), _at(weight)
            rows.reduce(add, read, sums)
            count(np, state, len(target), weight)

    def moments(self, block: Block, state: MomentsState, *, x_scale: Scale, y_scale: Scale) -> None:
        """Add a block to means and centred sums."""
        n_features, n_targets = block.X.shape[1], len(state.y_mean)
        if block.n_rows and not state.n:
            state.origin[...] = column(block.X[:1][0], Affine(x_scale))
            state.y_origin[...] = column(block.y[0], Affine(y_scale))
        scratch = np.empty((2 + max(1, n_targets)) * (n_features + 1))
        tile = _tile(n_features, _MOMENTS_NBYTES)
        sums = _Moments(n_targets)
        for name in ("origin", "s", "mean", "m2", "low", "high", "y_mean", "y_m2", "cross"):
            setattr(sums, name, _at(getattr(state, name)))
        sums.scratch, sums.tile = _at(scratch), _at(tile)
        add, read = self._functions.add_moments, self._functions.read_moments
        for rows in _spans(block, Affine(x_scale)):
            stored_y = block.y[rows.part]
            if n_targets:
                np.minimum(state.y_low, stored_y.min(axis=0), out=state.y_low)
                np.maximum(state.y_high, stored_y.max(axis=0), out=state.y_high)
            target = column(stored_y, Affine(y_scale, state.y_origin))
            weight = None if block.weight is None else block.weight[rows.part]
            sums.y, sums.weight = _at(target), _at(weight)
            rows.reduce(add, read, sums)
            state.n[...] += len(target)

    def gram(
        self,
        block: Block,
        state: GramState,
        parallel: Parallel,
        *,
        centred: bool,
        x_scale: Scale,
        y_scale: Scale,
    ) -> None:
        """Add a block to second moments about the mean, or about zero; BLAS multiplies tiles."""
        numpy_kernels.gram(
            block,
            state,
            parallel,
            centred=centred,
            x_scale=x_scale,
            y_scale=y_scale,
            centre=self._centre,
        )

    def _centre(
        self,
        tile: Array,
        columns: Affine,
        weight: Float64 | None,
        total: float | None,
        varies: Float64,
        out: Float64,
    ) -> Float64:
        """Do as :func:`streamreg.kernels.numpy.centre_tile`."""
        mean = np.zeros(len(varies))
        tile = _readable(tile)
        self._functions.centre(
            ctypes.byref(_rows(tile, columns)),
            _at(weight),
            total or 1.0,
            _at(None if total is None else mean),
            _at(None if varies.all() else varies),
            _at(out),
        )
        return mean

    def predict(self, X: Array, coefficients: Float64, intercept: Float64) -> Float64:
        """Return Xw + b, (n, K) float64; w is (D, K), b (K,)."""
        out = np.empty((len(X), len(intercept)))
        w, tile = np.ascontiguousarray(coefficients.T), _tile(X.shape[1], _WIDENED_NBYTES)
        step = len(X) if X.flags.c_contiguous else tile_rows(X.shape[1])
        for start in range(0, len(X), max(1, step)):
            rows = _readable(X[start : start + step])
            self._functions.predict(
                ctypes.byref(_rows(rows, AS_STORED)),
                _at(w),
                _at(intercept),
                len(intercept),
                _at(out[start:]),
                _at(tile),
            )
        return out

    def kernels(self) -> KernelSet:
        """Return the kernels, for rows in memory and in files."""
        by_name: dict[str, Kernel] = {
            "products": self.products,
            "moments": self.moments,
            "gram": self.gram,
            "predict": self.predict,
        }
        return KernelSet({"dense": Kernels(by_name), "file": Kernels(by_name)})


class _Span(NamedTuple):
    """Some rows of a block, for one call of a loop."""

    part: slice
    rows: _Rows
    stored: _Stored | None  # where they lie, if they are in files
    block: Block
    values: Array | None  # of which ``rows`` holds the address

    def reduce(self, add: Any, read: Any, sums: _Products | _Moments) -> None:  # noqa: ANN401
        """Add the rows to some sums, whose ``y`` and ``weight`` are those of these rows."""
        if self.stored is None:
            add(ctypes.byref(self.rows), ctypes.byref(sums))
        elif not read(ctypes.byref(self.rows), ctypes.byref(sums), ctypes.byref(self.stored)):
            self._reduce_rest(self.stored.done, add, sums)

    def _reduce_rest(self, done: int, add: Any, sums: _Products | _Moments) -> None:  # noqa: ANN401
        """Read the rest as the source's reader does, which retries, and says what is wrong."""
        first = self.part.start + done
        X = _readable(self.block.X[first : first + self.rows.n - done])
        self.rows.values, self.rows.n = _at(X), len(X)
        sums.y += 8 * sums.k * done
        if sums.weight:
            sums.weight += 8 * done
        add(ctypes.byref(self.rows), ctypes.byref(sums))


def _spans(block: Block, columns: Affine) -> Iterator[_Span]:
    """Yield the rows of a block: of a file, in C order, or copied to it a tile at a time."""
    if isinstance(block.X, FileRows):
        stored, found = block.X, _Stored(len(block.X.files))
        found.files, found.offsets = _at(stored.files), _at(stored.offsets)
        found.bounds, found.piece = _at(stored.bounds), _at(stored.piece)
        found.piece_nbytes = len(stored.piece)
        for start in range(0, block.n_rows, _MOST_ROWS):
            stop = min(start + _MOST_ROWS, block.n_rows)
            found.first = start
            rows = _Rows(None, stop - start, *_form(stored.dtype, block.X.shape[1], columns))
            yield _Span(slice(start, stop), rows, found, block, None)
        return
    is_whole = block.X.flags.c_contiguous and block.X.dtype.newbyteorder("=") in _TYPE_NUMBERS
    step = _MOST_ROWS if is_whole else min(_MOST_ROWS, tile_rows(block.X.shape[1]))
    for start in range(0, block.n_rows, step):
        part = slice(start, min(start + step, block.n_rows))
        values = _readable(block.X[part])
        yield _Span(part, _rows(values, columns), None, block, values)


def _readable(X: Array) -> Array:
    """Return rows in C order, of a type that the loops read; others are copied."""
    if X.dtype.newbyteorder("=") not in _TYPE_NUMBERS:
        X = X.astype(np.float64)
    return np.ascontiguousarray(X)


def _rows(X: Array, columns: Affine) -> _Rows:
    rows = _Rows(None, len(X), *_form(X.dtype, X.shape[1], columns))
    rows.values = _at(X)
    return rows


def _form(
    dtype: np.dtype[Any], n_features: int, columns: Affine
) -> tuple[int, int | None, int | None, int, int]:
    """Return D and what follows it in ``struct rows``."""
    number = _TYPE_NUMBERS[dtype.newbyteorder("=")]
    return n_features, _at(columns.scale), _at(columns.shift), number, int(not dtype.isnative)


def _tile(n_features: int, nbytes: int) -> Float64:
    """Return memory for a widened tile of these bytes, or of eight rows."""
    return np.empty(max(nbytes // 8, 8 * n_features))


def _at(array: Array | None) -> int | None:
    """Return the address of an array in C order."""
    return None if array is None else array.ctypes.data


@cache
def kernels_of(library: Library) -> KernelSet:
    """Return the kernels that run the loops of a library."""
    return _Loops(library).kernels()
