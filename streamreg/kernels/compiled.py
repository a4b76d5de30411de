"""The compiled kernels: each row is read from memory once, and reduced while it is in cache.

They read any real dtype of at most 64 bits in either byte order, without a widened copy of a block.
Rows in another layout than C order are copied first, some tiles at a time. Sums are float64. No
loop holds the interpreter's lock. The plainest form of each kernel is in ``kernels/numpy.py``.
"""

from __future__ import annotations

import ctypes
from ctypes import byref
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.blocks import FileRows
from streamreg.kernels import compiled_sparse
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.base import AS_STORED, Affine, Kernel, Kernels, KernelSet, Scale
from streamreg.kernels.groups import group_sums, sorted_groups
from streamreg.kernels.meat import meat
from streamreg.kernels.residuals import count_in_two_floats, normalise
from streamreg.kernels.root import root
from streamreg.kernels.states import count
from streamreg.kernels.structs import address, point_at, struct
from streamreg.kernels.tiles import bias_of_directions, column, set_origins, targets_less_bias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Array, Block, Float64
    from streamreg.kernels.library import Library
    from streamreg.kernels.states import MomentsState, ProductState, ResidualState

# the stored types, in the order of `enum type` in rows.h
_TYPES = ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
_TYPE_NUMBERS = {np.dtype(name): number for number, name in enumerate(_TYPES)}
# Rows whose weights are summed at once, and whose first row begins a tile: bits depend on it.
_PART_ROWS = 1 << 14
# float64 that are copied at a time, of y and of rows in another layout: no bit depends on it
_COPIED_NBYTES = 1 << 20


# in the order of the structs of native/*.h and native/*.c, where the fields are described
_Rows = struct("rows", "*values n d *scale *shift type swapped in_cache")
_Files = struct("files", "n_parts *files *offsets *bounds first piece_nbytes *piece piece_rows")
_Products = struct("products", "m k *coefficients *bias *y *weight *rr *sums *products *scratch")
_Residuals = struct("residuals", "m k *coefficients *bias *y *weight *rr *sums *products *scratch")
_Moments = struct(
    "moments", "k *y *weight *origin *s *mean *m2 *low *high *y_mean *y_m2 *cross *scratch"
)

_STRUCTS = (_Rows, _Files, _Products, _Residuals, _Moments, *compiled_sparse.STRUCTS)

_POINTER, _INT64 = ctypes.c_void_p, ctypes.c_int64
_ARGUMENTS = {
    "add_products": [_POINTER] * 3,
    "add_moments": [_POINTER] * 3,
    "add_residuals": [_POINTER] * 3,
    "products_rows": [_INT64],
    "moments_rows": [_INT64],
    "residuals_rows": [_INT64],
    "products_scratch": [_INT64],
    "moments_scratch": [_INT64] * 2,
    "residuals_scratch": [_INT64],
    "columns": [_POINTER] * 4 + [_INT64],
    "centre": [_POINTER, _POINTER, ctypes.c_double, _POINTER, _POINTER, _POINTER],
    "predict": [_POINTER] * 3 + [_INT64] + [_POINTER] * 2,
    **compiled_sparse.ARGUMENTS,
    **{f"{each.__name__}_nbytes": [] for each in _STRUCTS},
}


_WITHOUT_RESULT = {"centre", "columns", "predict", "add_sparse_sums", "add_sparse_pairs"}


class _Loops:
    """The loops of one library, as kernels."""

    def __init__(self, library: Library) -> None:
        functions = library.functions
        for name, arguments in _ARGUMENTS.items():
            function = getattr(functions, name)
            function.argtypes = arguments
            function.restype = None if name in _WITHOUT_RESULT else _INT64
        self._functions = functions
        for each in _STRUCTS:
            nbytes = getattr(functions, f"{each.__name__}_nbytes")()
            if nbytes != ctypes.sizeof(each):
                raise TypeError(
                    f"struct {each.__name__} has {nbytes} bytes in {library.level}'s loops and "
                    f"{ctypes.sizeof(each)} in Python"
                )

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
        added = bias_of_directions(bias, n_targets)
        scratch = np.empty(self._functions.products_scratch(block.X.shape[1]))
        sums = _Products(n_columns, n_targets, address(V), address(added))
        point_at(sums, state, "rr sums products")
        sums.scratch = address(scratch)
        for part in self._parts("products", block, n_targets):
            target = targets_less_bias(block.y[part, :n_targets], y, bias[:n_targets])
            self._add("products", block, part, x, sums, target)
        for rows, weight in _weights(block):
            count(np, state, rows, weight)

    def moments(self, block: Block, state: MomentsState, *, x_scale: Scale, y_scale: Scale) -> None:
        """Add a block to means and centred sums."""
        n_features, n_targets = block.X.shape[1], len(state.y_mean)
        if block.n_rows:
            set_origins(state, block.X, block.y, x_scale, y_scale)
        scratch = np.empty(self._functions.moments_scratch(n_features, n_targets))
        sums = _Moments(n_targets)
        point_at(sums, state, "origin s mean m2 low high y_mean y_m2 cross")
        sums.scratch = address(scratch)
        for part in self._parts("moments", block, n_targets):
            stored_y = block.y[part]
            if n_targets:
                np.minimum(state.y_low, stored_y.min(axis=0), out=state.y_low)
                np.maximum(state.y_high, stored_y.max(axis=0), out=state.y_high)
            target = column(stored_y, Affine(y_scale, state.y_origin))
            self._add("moments", block, part, Affine(x_scale), sums, target)
        state.n[...] += block.n_rows

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
        sums = _Residuals(len(bias), n_targets, address(coefficients), address(bias))
        point_at(sums, state, "rr sums products")
        sums.scratch = address(scratch)
        for part in self._parts("residuals", block, n_targets):
            target = column(block.y[part, :n_targets], Affine(y_scale))
            self._add("residuals", block, part, Affine(x_scale), sums, target)
        for rows, weight in _weights(block):
            count_in_two_floats(state, rows, weight)
        normalise(state)

    def write_columns(
        self, tile: Array, columns: Affine, roots: Float64 | None, out: Float64
    ) -> None:
        """Write (x·scale - shift)·√s to ``out``, (n, D) in Fortran order."""
        tile = _readable(tile)
        widened = np.empty((8, tile.shape[1]))
        self._functions.columns(
            byref(_rows(tile, columns)),
            address(roots),
            address(widened),
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
            address(weight),
            total or 1.0,
            address(None if total is None else mean),
            address(None if varies.all() else varies),
            address(out),
        )
        return mean

    def predict(self, X: Array, coefficients: Float64, intercept: Float64) -> Float64:
        """Return Xw + b, (n, K) float64; w is (D, K), b (K,)."""
        out = np.empty((len(X), len(intercept)))
        w = np.ascontiguousarray(coefficients.T)
        scratch = np.empty(self._functions.products_scratch(X.shape[1]))
        step = len(X) if _is_readable(X) else self._copied_rows("products", X, X.shape[1])
        for start in range(0, len(X), max(1, step)):
            rows = _readable(X[start : start + step])
            self._functions.predict(
                byref(_rows(rows, AS_STORED)),
                address(w),
                address(intercept),
                len(intercept),
                address(out[start:]),
                address(scratch),
            )
        return out

    def _copied_rows(self, loop: str, X: Array | FileRows, width: int) -> int:
        """Return how many rows of ``width`` float64 are copied at a time, for a loop over X."""
        step: int = getattr(self._functions, f"{loop}_rows")(X.shape[1])
        return max(1, _COPIED_NBYTES // (8 * max(1, width)) // step) * step

    def _parts(self, loop: str, block: Block, n_targets: int) -> Iterator[slice]:
        """Yield the rows whose targets are copied at once."""
        rows = self._copied_rows(loop, block.X, n_targets)
        for first, stop in _spans(0, block.n_rows, _PART_ROWS):
            yield from (slice(*span) for span in _spans(first, stop, rows))

    def _add(
        self,
        loop: str,
        block: Block,
        part: slice,
        columns: Affine,
        sums: ctypes.Structure,
        target: Float64,
    ) -> None:
        """Add some rows of a block, whose targets are float64, to sums."""
        add = getattr(self._functions, f"add_{loop}")
        weight = None if block.weight is None else block.weight[part]
        sums.y, sums.weight = address(target), address(weight)
        X, first = block.X, part.start
        if isinstance(X, FileRows):
            files = _files(X, part.start)
            rows = _Rows(None, len(target), *_form(X.dtype, X.shape[1], columns))
            first += add(byref(rows), byref(sums), byref(files))
            step = files.piece_rows
        else:
            is_copied = not _is_readable(X)
            step = self._copied_rows(loop, X, X.shape[1]) if is_copied else len(target)
        # Rows in memory. Also rows of files that could not be read: the source's reader retries,
        # and its error tells why.
        for start, stop in _spans(first, part.stop, step):
            done = start - part.start
            sums.y, sums.weight = (
                address(target[done:]),
                address(None if weight is None else weight[done:]),
            )
            values = _readable(X[start:stop])
            add(byref(_rows(values, columns)), byref(sums), None)


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
    sparse = compiled_sparse.SparseLoops(library, loops.predict)
    of_sparse: dict[str, Kernel] = {
        # these read dense slices
        **by_name,
        "products": numpy_kernels.products,
        "moments": numpy_kernels.moments,
        "sparse_products": sparse.products,
        "sparse_moments": sparse.moments,
        "sparse_gram": sparse.gram,
        "column_gram": sparse.column_gram,
        "residuals": sparse.residuals,
        "predict": sparse.predict,
    }
    return KernelSet(
        {"dense": Kernels(by_name), "file": Kernels(by_name), "sparse": Kernels(of_sparse)}
    )


def _spans(first: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the bounds of ``step`` rows at a time; the last have fewer."""
    return ((start, min(start + step, stop)) for start in range(first, stop, step))


def _weights(block: Block) -> Iterator[tuple[int, Float64 | None]]:
    """Yield the number of rows and the weights of each part of a block."""
    for start, stop in _spans(0, block.n_rows, _PART_ROWS):
        yield stop - start, None if block.weight is None else block.weight[start:stop]


def _files(X: FileRows, first: int) -> ctypes.Structure:
    """Return the files of rows, to be read from row ``first`` on."""
    files = _Files(len(X.files), X.files.ctypes.data, X.offsets.ctypes.data, X.bounds.ctypes.data)
    files.first, files.piece_nbytes, files.piece = first, len(X.piece), X.piece.ctypes.data
    return files


def _is_readable(X: Array) -> bool:
    """Whether loops read these rows where they are."""
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
    return n_features, address(columns.scale), address(columns.shift), number, not dtype.isnative
