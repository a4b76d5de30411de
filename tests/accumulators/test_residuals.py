"""Residuals in two floats, against rational arithmetic, really split and merged."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import pairwise

import laws
import numpy as np
import pytest
from laws import Rows

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.residuals import Residuals
from streamreg.gpu.kernels import ArrayKernels
from streamreg.kernels.library import load_level
from streamreg.kernels.registry import load_kernels
from streamreg.kernels.two_float import TwoFloats, product, total

ARRAYS = "arrays"  # with the functions of an array library, as on a GPU
LEVELS = [ARRAYS, "numpy", *(name for name in ("baseline", "v3", "v4", "neon") if load_level(name))]
# sums of some hundred terms, each correct to 2⁻¹⁰⁴ or so of itself
ROUNDING = Fraction(1, 10**29)


def kernels_of(level):
    if level == ARRAYS:
        return ArrayKernels(np, None).kernels
    return load_kernels(level).by_kind["dense"]


def fraction(values, *at):
    return Fraction(float(values.high[at])) + Fraction(float(values.low[at]))


def exact_sums(X, y, weight, w, b):
    """Return Σ s, and Σ sr, Σ sr², Σ srx of one column, with the sizes of their terms."""
    d, rows = X.shape[1], range(len(X))
    s = [Fraction(1) if weight is None else Fraction(float(each)) for each in weight_of(X, weight)]
    x = [[Fraction(float(value)) for value in row] for row in X]
    target = [Fraction(float(value)) for value in y]
    r = [sum(x[i][j] * w[j] for j in range(d)) + b - target[i] for i in rows]
    size = [sum(abs(x[i][j] * w[j]) for j in range(d)) + abs(b) + abs(target[i]) for i in rows]
    return {
        "sums": (sum(s[i] * r[i] for i in rows), sum(s[i] * size[i] for i in rows)),
        "rr": (sum(s[i] * r[i] ** 2 for i in rows), sum(s[i] * size[i] ** 2 for i in rows)),
        "products": [
            (
                sum(s[i] * r[i] * x[i][j] for i in rows),
                sum(s[i] * size[i] * abs(x[i][j]) for i in rows),
            )
            for j in range(d)
        ],
    }


def weight_of(X, weight):
    return np.ones(len(X)) if weight is None else weight


def split(rows, n_pieces, *, backwards):
    """Return segments of one block each."""
    n = len(rows.X)
    bounds = [n * at // n_pieces for at in range(n_pieces + 1)]
    pieces = [rows.blocks([b - a], a) for a, b in pairwise(bounds)]
    return pieces[::-1] if backwards else pieces


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("d", [1, 11])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("n_pieces", "backwards"), [(1, False), (2, True), (7, False), (53, True)])
def test_sums_have_29_digits(monkeypatch, level, d, weighted, n_pieces, backwards):
    rng = np.random.default_rng(d)
    n, k, m = 53, 2, 3
    X = rng.standard_normal((n, d)) + 1e4
    weight = rng.uniform(0.5, 2.0, n) if weighted else None
    w = TwoFloats(rng.standard_normal((d, m)), 1e-18 * rng.standard_normal((d, m)))
    b = TwoFloats(rng.standard_normal(m), 1e-18 * rng.standard_normal(m))
    # a fit so close that residuals cancel nearly all digits of float64
    y = (X @ w.high + b.high)[:, :k]
    monkeypatch.setattr(laws, "KERNELS", kernels_of(level))
    accumulator = Residuals(w, b, k)
    state = laws.reduce(accumulator, split(Rows(X, y, weight), n_pieces, backwards=backwards))
    found = accumulator.finalize(state)
    assert found.n == n
    assert fraction(found.s) == sum(Fraction(float(each)) for each in weight_of(X, weight))
    for column in range(m):
        target = y[:, column] if column < k else np.zeros(n)
        coefficients = [fraction(w, j, column) for j in range(d)]
        exact = exact_sums(X, target, weight, coefficients, fraction(b, column))
        for name in ("sums", "rr"):
            value, size = exact[name]
            assert abs(fraction(getattr(found, name), column) - value) <= ROUNDING * size
        for j, (value, size) in enumerate(exact["products"]):
            assert abs(fraction(found.products, j, column) - value) <= ROUNDING * size


@pytest.mark.parametrize("level", LEVELS)
def test_scaled_columns_have_the_residuals_of_scaled_values(monkeypatch, level):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.standard_normal((40, 1))
    scaling = Scaling(np.array([2.0**600, 1.0, 2.0**-700]), np.array([2.0**-500]))
    w, b = TwoFloats.of(rng.standard_normal((3, 1))), TwoFloats.of(np.ones(1))
    monkeypatch.setattr(laws, "KERNELS", kernels_of(level))
    plain, scaled = Residuals(w, b, 1), Residuals(w, b, 1, scaling)
    stored = Rows(X / scaling.x, y / scaling.y)
    a = plain.finalize(laws.reduce(plain, [Rows(X, y).blocks([11, 29])]))
    b = scaled.finalize(laws.reduce(scaled, [stored.blocks([11, 29])]))
    laws.assert_same_bits(a, b)


# a plan for a GPU counts its memory apart
@pytest.mark.parametrize("level", LEVELS[1:])
@pytest.mark.parametrize(("d", "k"), [(50, 200), (2, 500), (3000, 20)])
def test_many_targets_take_no_more_than_the_scratch_memory(monkeypatch, level, d, k):
    monkeypatch.setattr(laws, "KERNELS", kernels_of(level))
    n = 4_000 if d < 100 else 200
    X, y = np.ones((n, d), "f4"), np.ones((n, k), "f4")
    accumulator = Residuals(TwoFloats.of(np.zeros((d, k))), TwoFloats.of(np.zeros(k)), k)
    [block], state = Rows(X, y).blocks([n]), accumulator.zero()
    tracemalloc.start()
    try:
        accumulator.update(state, block, laws.KERNELS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= accumulator.scratch_nbytes


def test_two_float_sums_and_products_are_right_to_30_digits():
    rng = np.random.default_rng(0)
    a, b = (TwoFloats(rng.standard_normal(999), 1e-17 * rng.standard_normal(999)) for _ in "ab")
    exact = [[fraction(each, i) for i in range(999)] for each in (a, b)]
    size = Fraction(1, 10**29)
    assert abs(fraction(total(*a)) - sum(exact[0])) < size
    dot = sum(x * y for x, y in zip(*exact, strict=True))
    assert abs(fraction(product(a, b)) - dot) < size
    for name, value in (("plus", 0), ("times", 1)):
        found = getattr(a, name)(b)
        for i in range(999):
            x, y = exact[0][i], exact[1][i]
            wanted = x * y if value else x + y
            assert abs(fraction(found, i) - wanted) < Fraction(1, 10**30) * (abs(x) + abs(y))
