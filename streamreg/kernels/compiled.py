"""The compiled kernels: each row is read from memory once, and reduced while it is in cache.

They read any real dtype of at most 64 bits in either byte order, without a widened copy of a block.
Rows in another layout than C order are copied a tile at a time first. Sums are float64. No loop
holds the interpreter's lock. The plainest form of each kernel is in ``kernels/numpy.py``.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import FileRows
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.base import AS_STORED, Affine, Kernel, Kernels, KernelSet, Scale
from streamreg.kernels.groups import group_sums, sorted_groups
from streamreg.kernels.meat import meat
from streamreg.kernels.numpy import residuals_rows, tile_rows
from streamreg.kernels.residuals import count_in_two_floats, normalise
from streamreg.kernels.root import root
from streamreg.kernels.states import count
from streamreg.kernels.tiles import column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.library import Library
    from streamreg.kernels.states import MomentsState, ProductState, ResidualState

# the stored types, in the order of `enum type` in rows.h
_TYPES = ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
_TYPE_NUMBERS = {np.dtype(name): number for number, name in enumerate(_TYPES)}
_TYPE_NUMBERS[np.dtype(bool)] = _TYPES.index("u1")
# rows at a time, because y is copied
_MOST_ROWS = 1 << 14
# and of them for residuals: as many as fit this memory, which a plan counts as a tile's
_RESIDUALS_NBYTES = 1 << 20


def _struct(name: str, fields: str) -> type[ctypes.Structure]:
    """Return a struct of C: ``*`` marks a pointer, all others are integers of 64 bits."""
    types = [
        (field.strip("*"), ctypes.c_void_p if field[0] == "*" else ctypes.c_int64)
        for field in fields.split()
    ]
    return type(name, (ctypes.Structure,), {"_fields_": types})


# in the order of the structs of native/*.h and native/*.c, where the fields are described
_Rows = _struct("rows", "*values n d *scale *shift type swapped in_cache")
_Files = _struct("files", "n_parts *files *offsets *bounds first piece_nbytes *piece piece_rows")
_Products = _struct("products", "m k *coefficients *bias *y *weight *rr *sums *products *scratch")
_Residuals = _struct("residuals", "m k *coefficients *bias *y *weight *rr *sums *products *scratch")
_Moments = _struct(
    "moments", "k *y *weight *origin *s *mean *m2 *low *high *y_mean *y_m2 *cross *scratch"
)

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "add_products": [_POINTER] * 3,
    "add_moments": [_POINTER] * 3,
    "add_residuals": [_POINTER] * 3,
    "products_scratch": [_INT64],
    "moments_scratch": [_INT64] * 2,
    "residuals_scratch": [_INT64],
    "columns": [_POINTER] * 4 + [_INT64],
    "centre": [_POINTER, _POINTER, ctypes.c_double, _POINTER, _POINTER, _POINTER],
    "predict": [_POINTER] * 3 + [_INT64] + [_POINTER] * 2,
}


class _Loops:
    """The loops of one library, as kernels."""

    def __init__(self, library: Library) -> None:
        functions = library.functions
        for name, arguments in _ARGUMENTS.items():
            function = getattr(functions, name)
            function.argtypes = arguments
            function.restype = None if name in {"centre", "columns", "predict"} else _INT64
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
        scratch = np.empty(self._functions.products_scratch(block.X.shape[1]))
        sums = _Products(n_columns, n_targets, _at(V), _at(added))
        sums.rr, sums.sums, sums.products = _at(state.rr), _at(state.sums), _at(state.products)
        sums.scratch = _at(scratch)
        for part in _parts(block):
            # y - b first: both may be large and close, and their difference is then exact
            target = column(block.y[part, :n_targets], y) - bias[:n_targets]
            weight = None if block.weight is None else block.weight[part]
            _add(self._functions.add_products, block, part, x, sums, target, weight)
            count(np, state, len(target), weight)

    def moments(self, block: Block, state: MomentsState, *, x_scale: Scale, y_scale: Scale) -> None:
        """Add a block to means and centred sums."""
        n_features, n_targets = block.X.shape[1], len(state.y_mean)
        if block.n_rows and not state.n:
            state.origin[...] = column(block.X[:1][0], Affine(x_scale))
            state.y_origin[...] = column(block.y[0], Affine(y_scale))
        scratch = np.empty(self._functions.moments_scratch(n_features, n_targets))
        sums = _Moments(n_targets)
        for name in ("origin", "s", "mean", "m2", "low", "high", "y_mean", "y_m2", "cross"):
            setattr(sums, name, _at(getattr(state, name)))
        sums.scratch = _at(scratch)
        for part in _parts(block):
            stored_y = block.y[part]
            if n_targets:
                np.minimum(state.y_low, stored_y.min(axis=0), out=state.y_low)
                np.maximum(state.y_high, stored_y.max(axis=0), out=state.y_high)
            target = column(stored_y, Affine(y_scale, state.y_origin))
            weight = None if block.weight is None else block.weight[part]
            _add(self._functions.add_moments, block, part, Affine(x_scale), sums, target, weight)
            state.n[...] += len(target)

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
        scratch = np.empty(self._functions.residuals_scratch(block.X.shape[1]))
        sums = _Residuals(len(bias), n_targets, _at(coefficients), _at(bias))
        sums.rr, sums.sums, sums.products = _at(state.rr), _at(state.sums), _at(state.products)
        sums.scratch = _at(scratch)
        rows = _RESIDUALS_NBYTES // (8 * max(1, n_targets))
        rows = min(_MOST_ROWS, max(rows, residuals_rows(block.X.shape[1])))
        for part in _parts(block, rows):
            target = column(block.y[part, :n_targets], Affine(y_scale))
            weight = None if block.weight is None else block.weight[part]
            _add(self._functions.add_residuals, block, part, Affine(x_scale), sums, target, weight)
            count_in_two_floats(state, len(target), weight)
        normalise(state)

    def write_columns(
        self, tile: Array, columns: Affine, roots: Float64 | None, out: Float64
    ) -> None:
        """Write (x·scale - shift)·√s to ``out``, (n, D) in Fortran order."""
        tile = _readable(tile)
        widened = np.empty((8, tile.shape[1]))
        self._functions.columns(
            byref(_rows(tile, columns)),
            _at(roots),
            _at(widened),
            out.ctypes.data,
            out.strides[1] // out.itemsize,
        )

    def centre(
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
            byref(_rows(tile, columns)),
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
        w = np.ascontiguousarray(coefficients.T)
        scratch = np.empty(self._functions.products_scratch(X.shape[1]))
        step = len(X) if X.flags.c_contiguous else tile_rows(X.shape[1])
        for start in range(0, len(X), max(1, step)):
            rows = _readable(X[start : start + step])
            self._functions.predict(
                byref(_rows(rows, AS_STORED)),
                _at(w),
                _at(intercept),
                len(intercept),
                _at(out[start:]),
                _at(scratch),
            )
        return out


@cache
def kernels_of(library: Library) -> KernelSet:
    """Return the kernels that run the loops of a library, for rows in memory and in files."""
    loops = _Loops(library)
    by_name: dict[str, Kernel] = {
        "products": loops.products,
        "moments": loops.moments,
        "residuals": loops.residuals,
        # BLAS multiplies, and LAPACK factorises
        "gram": partial(numpy_kernels.gram, centre=loops.centre),
        "root": partial(root, write=loops.write_columns),
        "meat": partial(meat, write=loops.centre, add=numpy_kernels.add_gram),
        "group_sums": partial(group_sums, write=loops.centre),
        "sorted_groups": partial(sorted_groups, write=loops.centre, add=numpy_kernels.add_gram),
        "predict": loops.predict,
    }
    return KernelSet({"dense": Kernels(by_name), "file": Kernels(by_name)})


def _parts(block: Block, rows: int = _MOST_ROWS) -> Iterator[slice]:
    for start in range(0, block.n_rows, rows):
        yield slice(start, min(start + rows, block.n_rows))


def _add(
    add: Any,  # noqa: ANN401  (a function of C)
    block: Block,
    part: slice,
    columns: Affine,
    sums: ctypes.Structure,
    target: Float64,
    weight: Float64 | None,
) -> None:
    """Add some rows of a block, with their targets and weights, to sums."""
    sums.y, sums.weight = _at(target), _at(weight)
    X, n, done = block.X, len(target), 0
    step = n if _is_readable(X) else tile_rows(X.shape[1])
    if isinstance(X, FileRows):
        files = _Files(len(X.files), X.files.ctypes.data, X.offsets.ctypes.data)
        files.bounds, files.first = X.bounds.ctypes.data, part.start
        files.piece_nbytes, files.piece = len(X.piece), X.piece.ctypes.data
        rows = _Rows(None, n, *_form(X.dtype, X.shape[1], columns))
        done, step = add(byref(rows), byref(sums), byref(files)), files.piece_rows
    # rows in memory; and of files what could not be read: the source's reader retries, and says why
    while done < n:
        values = _readable(X[part.start + done : min(part.start + done + step, part.stop)])
        sums.y, sums.weight = _at(target[done:]), _at(None if weight is None else weight[done:])
        done += add(byref(_rows(values, columns)), byref(sums), None)


def _is_readable(X: Array | FileRows) -> bool:
    """Whether loops read these rows where they are."""
    if isinstance(X, FileRows):
        return False
    return X.flags.c_contiguous and X.dtype.newbyteorder("=") in _TYPE_NUMBERS


def _readable(X: Array) -> Array:
    """Return rows in C order, of a type that the loops read; others are copied."""
    if X.dtype.newbyteorder("=") not in _TYPE_NUMBERS:
        X = X.astype(np.float64)
    return np.ascontiguousarray(X)


def _rows(X: Array, columns: Affine) -> ctypes.Structure:
    return _Rows(X.ctypes.data, len(X), *_form(X.dtype, X.shape[1], columns))


def _form(
    dtype: np.dtype[Any], n_features: int, columns: Affine
) -> tuple[int, int | None, int | None, int, bool]:
    """Return D and what follows it in ``struct rows``."""
    number = _TYPE_NUMBERS[dtype.newbyteorder("=")]
    return n_features, _at(columns.scale), _at(columns.shift), number, not dtype.isnative


def _at(array: Float64 | None) -> int | None:
    """Return the address of numbers, as the loops expect them."""
    if array is None:
        return None
    if array.dtype != np.float64 or not array.flags.c_contiguous:
        raise TypeError(f"loops read float64 in C order, not {array.dtype} of {array.strides}")
    return array.ctypes.data
