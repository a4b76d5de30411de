"""The kernels that read each row from memory once, compiled by Numba.

A row's product with the coefficients and its part of the gradient are computed while the row is in
cache, four rows at a time, so that coefficients and sums are read once for the four; meanwhile the
next rows are prefetched. float32 is widened in registers. Sums are float64; no loop holds the
interpreter's lock. Numba caches compiled code beside this file, or in the user's cache folder.
"""

from __future__ import annotations

import llvmlite.ir as llvm
import numba
import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FLOAT = types.float64
_LINE_NBYTES = 64
# of the next four rows, prefetched; the processor prefetches the rest by itself, and all of short
# rows. Measured: up to 1.3 times as fast, at D = 256, and never slower
_EARLY_NBYTES = 8 << 10
_SHORT_NBYTES = 256
# inputs may be read-only, such as rows of a memory-mapped file
_IN, _OUT = types.Array(_FLOAT, 1, "A", readonly=True), types.Array(_FLOAT, 1, "C")
_WIDE_IN, _WIDE_OUT = types.Array(_FLOAT, 2, "C", readonly=True), types.Array(_FLOAT, 2, "C")
_ROWS = [types.Array(stored, 2, "C", readonly=True) for stored in (types.float64, types.float32)]


def _compiled(*arguments, result):
    """Compile for rows of float64 and of float32, the first argument."""
    signatures = [result(rows, *arguments) for rows in _ROWS]
    # NaN and inf must propagate, because they are how bad data are found
    how = {"nogil": True, "fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}

    def compile_it(function):
        try:
            return numba.njit(signatures, cache=True, **how)(function)
        except Exception:  # noqa: BLE001  (no cache can be written, or it is damaged)
            return numba.njit(signatures, **how)(function)

    return compile_it


@intrinsic
def _prefetch(_context, address):
    """Prefetch the cache line that holds an address, which may be invalid."""

    def codegen(context, builder, _signature, arguments):
        number, pointer = llvm.IntType(32), llvm.IntType(8).as_pointer()
        kind = llvm.FunctionType(llvm.VoidType(), [pointer, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # 0: for reading; 3: into all caches; 1: data
        builder.call(
            function, [builder.inttoptr(arguments[0], pointer), number(0), number(3), number(1)]
        )
        return context.get_dummy_value()

    return types.void(address), codegen


@numba.njit
def _expect_rows(X, i):
    """Prefetch four rows from row i on, or 8 KiB of them, perhaps beyond the last row."""
    row_nbytes = X.shape[1] * X.itemsize
    if row_nbytes < _SHORT_NBYTES:
        return
    first = X.ctypes.data + i * row_nbytes
    for offset in range(0, min(4 * row_nbytes, _EARLY_NBYTES), _LINE_NBYTES):
        _prefetch(first + offset)


@_compiled(_WIDE_IN, _IN, _IN, _WIDE_OUT, result=types.UniTuple(_FLOAT, 2))
def residual_product(X, coefficients, y, weight, products):
    """Add rᵀsX, r = Xw - y, to ``products``, (1, D); return Σ sr² and Σ sr."""
    n, n_features = X.shape
    w, g = coefficients[0], products[0]
    rr = r_sum = 0.0
    whole = n - n % 4
    for i in range(0, whole, 4):
        r0, r1, r2, r3 = -y[i], -y[i + 1], -y[i + 2], -y[i + 3]
        for j in range(n_features):
            r0 += np.float64(X[i, j]) * w[j]
            r1 += np.float64(X[i + 1, j]) * w[j]
            r2 += np.float64(X[i + 2, j]) * w[j]
            r3 += np.float64(X[i + 3, j]) * w[j]
        s0, s1, s2, s3 = weight[i] * r0, weight[i + 1] * r1, weight[i + 2] * r2, weight[i + 3] * r3
        rr += s0 * r0 + s1 * r1 + s2 * r2 + s3 * r3
        r_sum += s0 + s1 + s2 + s3
        _expect_rows(X, i + 4)
        for j in range(n_features):
            g[j] += (
                s0 * np.float64(X[i, j])
                + s1 * np.float64(X[i + 1, j])
                + s2 * np.float64(X[i + 2, j])
                + s3 * np.float64(X[i + 3, j])
            )
    for i in range(whole, n):
        r = -y[i]
        for j in range(n_features):
            r += np.float64(X[i, j]) * w[j]
        s = weight[i] * r
        rr += s * r
        r_sum += s
        for j in range(n_features):
            g[j] += s * np.float64(X[i, j])
    return rr, r_sum


@_compiled(_WIDE_IN, _FLOAT, _IN, _IN, _WIDE_OUT, result=types.UniTuple(_FLOAT, 3))
def two_products(X, coefficients, bias, y, weight, products):
    """Add rᵀsX and uᵀsX, r = Xw - y and u = Xd + e, to ``products``, (2, D).

    Return Σ sr², Σ sr and Σ su.
    """
    n, n_features = X.shape
    w, d, g, q = coefficients[0], coefficients[1], products[0], products[1]
    rr = r_sum = u_sum = 0.0
    whole = n - n % 4
    for i in range(0, whole, 4):
        r0, r1, r2, r3 = -y[i], -y[i + 1], -y[i + 2], -y[i + 3]
        u0 = u1 = u2 = u3 = bias
        for j in range(n_features):
            x0, x1 = np.float64(X[i, j]), np.float64(X[i + 1, j])
            x2, x3 = np.float64(X[i + 2, j]), np.float64(X[i + 3, j])
            r0 += x0 * w[j]
            r1 += x1 * w[j]
            r2 += x2 * w[j]
            r3 += x3 * w[j]
            u0 += x0 * d[j]
            u1 += x1 * d[j]
            u2 += x2 * d[j]
            u3 += x3 * d[j]
        s0, s1, s2, s3 = weight[i] * r0, weight[i + 1] * r1, weight[i + 2] * r2, weight[i + 3] * r3
        rr += s0 * r0 + s1 * r1 + s2 * r2 + s3 * r3
        r_sum += s0 + s1 + s2 + s3
        u0, u1, u2, u3 = weight[i] * u0, weight[i + 1] * u1, weight[i + 2] * u2, weight[i + 3] * u3
        u_sum += u0 + u1 + u2 + u3
        _expect_rows(X, i + 4)
        for j in range(n_features):
            x0, x1 = np.float64(X[i, j]), np.float64(X[i + 1, j])
            x2, x3 = np.float64(X[i + 2, j]), np.float64(X[i + 3, j])
            g[j] += s0 * x0 + s1 * x1 + s2 * x2 + s3 * x3
            q[j] += u0 * x0 + u1 * x1 + u2 * x2 + u3 * x3
    for i in range(whole, n):
        r, u = -y[i], bias
        for j in range(n_features):
            x = np.float64(X[i, j])
            r += x * w[j]
            u += x * d[j]
        s, u = weight[i] * r, weight[i] * u
        rr += s * r
        r_sum += s
        u_sum += u
        for j in range(n_features):
            x = np.float64(X[i, j])
            g[j] += s * x
            q[j] += u * x
    return rr, r_sum, u_sum


@_compiled(_IN, _IN, _OUT, _OUT, _OUT, result=types.void)
def sums_and_bounds(X, origin, weight, sums, low, high):
    """Add Σ s(x - origin) to ``sums``, and update the bounds ``low`` and ``high``; all (D,)."""
    n, n_features = X.shape
    whole = n - n % 4
    for i in range(0, whole, 4):
        s0, s1, s2, s3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        for j in range(n_features):
            x0, x1 = np.float64(X[i, j]), np.float64(X[i + 1, j])
            x2, x3 = np.float64(X[i + 2, j]), np.float64(X[i + 3, j])
            low[j] = min(low[j], min(min(x0, x1), min(x2, x3)))
            high[j] = max(high[j], max(max(x0, x1), max(x2, x3)))
            o = origin[j]
            sums[j] += s0 * (x0 - o) + s1 * (x1 - o) + s2 * (x2 - o) + s3 * (x3 - o)
    for i in range(whole, n):
        for j in range(n_features):
            x = np.float64(X[i, j])
            low[j] = min(low[j], x)
            high[j] = max(high[j], x)
            sums[j] += weight[i] * (x - origin[j])


@_compiled(_IN, _IN, _IN, _IN, _OUT, _OUT, result=types.void)
def centred_sums(X, origin, mean, y, weight, squares, cross):
    """Add Σ sz² to ``squares`` and Σ syz to ``cross``, (D,), with z = x - origin - mean."""
    n, n_features = X.shape
    whole = n - n % 4
    for i in range(0, whole, 4):
        s0, s1, s2, s3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        t0, t1, t2, t3 = s0 * y[i], s1 * y[i + 1], s2 * y[i + 2], s3 * y[i + 3]
        for j in range(n_features):
            o, m = origin[j], mean[j]
            z0, z1 = np.float64(X[i, j]) - o - m, np.float64(X[i + 1, j]) - o - m
            z2, z3 = np.float64(X[i + 2, j]) - o - m, np.float64(X[i + 3, j]) - o - m
            squares[j] += s0 * z0 * z0 + s1 * z1 * z1 + s2 * z2 * z2 + s3 * z3 * z3
            cross[j] += t0 * z0 + t1 * z1 + t2 * z2 + t3 * z3
    for i in range(whole, n):
        for j in range(n_features):
            z = np.float64(X[i, j]) - origin[j] - mean[j]
            squares[j] += weight[i] * z * z
            cross[j] += weight[i] * y[i] * z
