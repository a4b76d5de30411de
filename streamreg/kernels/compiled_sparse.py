"""The compiled kernels for sparse rows; the plainest form of each is in ``kernels/sparse.py``.

Each value is read from memory once, and checked: a column beyond D is an error, not an access.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from typing import TYPE_CHECKING

import numpy as np

from streamreg.blocks import SparseRows
from streamreg.kernels.base import AS_STORED, Affine, Scale
from streamreg.kernels.residuals import count_in_two_floats, normalise
from streamreg.kernels.sparse import count_targets, rows_of, shifted_rows
from streamreg.kernels.sparse_gram import gram_columns, gram_panels, ready_for_gram
from streamreg.kernels.states import count
from streamreg.kernels.structs import address, point_at, struct
from streamreg.kernels.tiles import bias_of_directions, column, targets_less_bias

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.base import Parallel
    from streamreg.kernels.library import Library
    from streamreg.kernels.states import (
        Places,
        ResidualState,
        SparseGramState,
        SparseMomentsState,
        SparseProductState,
        TriangleState,
    )

# of values, in the order of `enum type` in rows.h
_TYPES = (np.dtype(np.float64), np.dtype(np.float32))
_WIDE_NBYTES = 8

# in the order of the structs of native/sparse*.[ch], where the fields are described
_Rows = struct("sparse_rows", "*values *indices *bounds n d type is_wide")
_Products = struct("sparse_products", "m k *columns *bias *y *weight *rr *sums *scratch")
_Moments = struct("sparse_moments", "k *columns *scale *y *weight *s *check *scratch")
_Residuals = struct(
    "sparse_residuals", "m k *coefficients *bias *scale *y *weight *rr *sums *products"
)
_Gram = struct("sparse_gram", "k *y *weight *sums *varies *cross *gram")
_ColumnGram = struct("sparse_column_gram", "*places *scale *weight *triangle *values *chosen")
STRUCTS = (_Rows, _Products, _Moments, _Residuals, _Gram, _ColumnGram)

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
ARGUMENTS = {
    "add_sparse_products": [_POINTER] * 2,
    "add_sparse_moments": [_POINTER] * 2,
    "add_sparse_residuals": [_POINTER] * 2,
    "add_sparse_column_gram": [_POINTER] * 2,
    "sparse_predict": [_POINTER] * 3 + [_INT64, _POINTER],
    "sparse_moments_scratch": [_INT64],
    "add_sparse_sums": [_POINTER] * 2,
    "add_sparse_pairs": [_POINTER] * 2 + [_INT64] * 2,
}


class SparseLoops:
    """The loops of one library for sparse rows, as kernels."""

    def __init__(self, library: Library, dense_predict: Callable[..., Float64]) -> None:
        self._functions = library.functions
        self._dense_predict = dense_predict

    def products(
        self,
        block: Block,
        state: SparseProductState,
        *,
        bias: Float64,
        shift: Float64 | None = None,
        y: Affine = AS_STORED,
    ) -> None:
        """Do as :func:`streamreg.kernels.sparse.sparse_products`."""
        n_targets, n_columns = len(state.rr), len(state.sums)
        added = bias_of_directions(bias, n_targets)
        target = targets_less_bias(block.y[:, :n_targets], y, bias[:n_targets])
        scratch = np.empty(n_columns)
        sums = _Products(n_columns, n_targets)
        sums.bias, sums.y, sums.weight = address(added), address(target), address(block.weight)
        point_at(sums, state, "columns rr sums")
        sums.scratch = address(scratch)
        self._add("products", shifted_rows(rows_of(block), shift), sums)
        count(np, state, block.n_rows, block.weight)

    def moments(
        self, block: Block, state: SparseMomentsState, *, x_scale: Scale, y_scale: Scale
    ) -> None:
        """Do as :func:`streamreg.kernels.sparse.sparse_moments`."""
        X = rows_of(block)
        target = count_targets(block, state, y_scale=y_scale)
        longest = int(np.diff(X.bounds).max(initial=0))
        scratch = np.empty(self._functions.sparse_moments_scratch(longest), np.uint8)
        sums = _Moments(target.shape[1])
        sums.scale, sums.y, sums.weight = address(x_scale), address(target), address(block.weight)
        point_at(sums, state, "columns s check")
        sums.scratch = scratch.ctypes.data
        self._add("moments", X, sums)

    def column_gram(
        self, block: Block, state: TriangleState, *, places: Places, x_scale: Scale = None
    ) -> None:
        """Do as :func:`streamreg.kernels.sparse.column_gram`."""
        X = rows_of(block)
        longest = int(np.diff(X.bounds).max(initial=0)) + 1
        values, chosen = np.empty(longest), np.empty(longest, np.int64)
        sums = _ColumnGram(places.ctypes.data, address(x_scale), address(block.weight))
        sums.triangle, sums.values = address(state.triangle), address(values)
        sums.chosen = chosen.ctypes.data
        self._add("column_gram", X, sums)
        count(np, state, block.n_rows, block.weight)

    def gram(
        self,
        block: Block,
        state: SparseGramState,
        parallel: Parallel,
        *,
        centred: bool,
        x_scale: Scale,
        y_scale: Scale,
    ) -> None:
        """Do as :func:`streamreg.kernels.sparse_gram.sparse_gram`."""
        X, target = ready_for_gram(block, state, centred=centred, x_scale=x_scale, y_scale=y_scale)
        rows, d = _rows(X), len(state.gram)
        sums = _Gram(target.shape[1], address(target), address(block.weight))
        point_at(sums, state, "sums varies cross")
        sums.gram = address(state.gram.T)
        functions = self._functions

        def add_panel(number: int) -> None:
            columns = gram_columns(d, number)
            functions.add_sparse_pairs(byref(rows), byref(sums), columns.start, columns.stop)

        def add_sums() -> None:
            functions.add_sparse_sums(byref(rows), byref(sums))

        parallel.run(add_panel, gram_panels(d), add_sums)

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
        target = column(block.y[:, :n_targets], Affine(y_scale))
        sums = _Residuals(len(bias), n_targets, address(coefficients), address(bias))
        sums.scale, sums.y, sums.weight = address(x_scale), address(target), address(block.weight)
        point_at(sums, state, "rr sums products")
        self._add("residuals", rows_of(block), sums)
        count_in_two_floats(state, block.n_rows, block.weight)
        # not the products, of which there are more than values in a block
        normalise(state._replace(products=state.products[:0]))

    def predict(self, X: Array | SparseRows, coefficients: Float64, intercept: Float64) -> Float64:
        """Return Xw + b, (n, K) float64; w is (D, K), b (K,)."""
        if not isinstance(X, SparseRows):
            return self._dense_predict(X, coefficients, intercept)
        w, out = np.ascontiguousarray(coefficients), np.empty((len(X), len(intercept)))
        rows = _rows(X)
        done = self._functions.sparse_predict(
            byref(rows), address(w), address(intercept), len(intercept), address(out)
        )
        _require_all(X, done)
        return out

    def _add(self, loop: str, X: SparseRows, sums: ctypes.Structure) -> None:
        rows = _rows(X)
        _require_all(X, getattr(self._functions, f"add_sparse_{loop}")(byref(rows), byref(sums)))


def _require_all(X: SparseRows, done: int) -> None:
    """Raise the error of the row at which a loop ended."""
    if done < len(X):
        X.require_columns()


def _rows(X: SparseRows) -> ctypes.Structure:
    for array in (X.values, X.indices, X.bounds):
        if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
            raise TypeError(f"loops read aligned arrays, not {array.dtype} of {array.strides}")
    return _Rows(
        X.values.ctypes.data,
        X.indices.ctypes.data,
        X.bounds.ctypes.data,
        len(X),
        X.n_columns,
        _TYPES.index(X.values.dtype),
        X.indices.dtype.itemsize == _WIDE_NBYTES,
    )
