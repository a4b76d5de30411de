"""The exact least-squares answer of stored numbers, in rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce as fold
from itertools import pairwise
from math import lcm

import numpy as np


def integers(values):
    """Return float64 numbers as integers, and the power of two by which they were multiplied."""
    flat = np.asarray(values, np.float64).ravel()
    fractions = [Fraction(float(each)) for each in flat]
    unit = fold(lcm, (each.denominator for each in fractions), 1)
    whole = [each.numerator * (unit // each.denominator) for each in fractions]
    return np.array(whole, dtype=object).reshape(np.shape(values)), unit


def exact_fit(X, y, weight=None, *, fit_intercept=True, l2=0):
    """Return (w, …, b) of one target as fractions; b is left out without intercept."""
    X = np.asarray(X, np.float64)
    columns = [X[:, [j]] for j in range(X.shape[1])]
    if fit_intercept:
        columns.append(np.ones((len(X), 1)))
    whole, unit = zip(*(integers(each) for each in columns), strict=True)
    A = np.hstack(whole)
    target, y_unit = integers(np.asarray(y, np.float64))
    s, s_unit = integers(np.ones(len(X)) if weight is None else weight)
    del s_unit
    gram, right = (A * s[:, None]).T @ A, (A * s[:, None]).T @ target
    gram = [[Fraction(int(each)) for each in row] for row in gram]
    if l2:
        total = sum(int(each) for each in s)
        for j in range(X.shape[1]):
            gram[j][j] += Fraction(l2) * total * unit[j] ** 2
    solution = _solve(gram, [Fraction(int(each)) for each in right])
    return [each * one / y_unit for each, one in zip(solution, unit, strict=True)]


def _solve(matrix, right):
    """Gauss with rational numbers; the matrix is positive definite."""
    n = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for k in range(n):
        for i in range(k + 1, n):
            factor = rows[i][k] / rows[k][k]
            if factor:
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    out = [Fraction(0)] * n
    for k in reversed(range(n)):
        known = sum((rows[k][j] * out[j] for j in range(k + 1, n)), Fraction(0))
        out[k] = (rows[k][n] - known) / rows[k][k]
    return out


def right_digits(found, exact):
    """Return the correct digits of each number; 17 where it is exact."""
    off = [abs(Fraction(float(a)) - b) for a, b in zip(found, exact, strict=True)]
    shares = [float(e / abs(b)) if b else float(e) for e, b in zip(off, exact, strict=True)]
    return np.array([17.0 if share == 0 else -np.log10(share) for share in shares])


def pieces(n, n_pieces):
    """Return the shares of rows at which to divide them, for ``problems.solve``."""
    bounds = [n * at // n_pieces for at in range(n_pieces + 1)]
    return [b / n for _, b in pairwise(bounds)][:-1]
