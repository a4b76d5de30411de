"""Accumulators: the laws, and the sums against NumPy's in extended precision."""

from __future__ import annotations

import laws
import numpy as np
import pytest
import strategies as ours
from hypothesis import given
from hypothesis import strategies as st
from laws import Rows

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.gradient import Gradient
from streamreg.accumulators.gram import Gram
from streamreg.accumulators.moments import Moments
from streamreg.accumulators.residual_histogram import ResidualHistogram
from streamreg.accumulators.residuals import Residuals
from streamreg.accumulators.root import Root
from streamreg.accumulators.score import Score
from streamreg.kernels.base import Affine
from streamreg.kernels.two_float import TwoFloats

# 80 bits on x86; elsewhere as good as float64, which the tolerances allow for
Wide = np.longdouble
# relative error of sums of some tens of terms, each rounded a few times
ROUNDING = 1e-13

DTYPES = ("?", "u1", "<i8", ">i4", "<f2", ">f2", "<f4", ">f4", "<f8", ">f8")
OFFSETS = (0.0, 1.0, 1e8)


def values(rng, shape, dtype, offset):
    """Return values of a dtype around an offset that the dtype can hold."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    if dtype.itemsize < 4:
        offset = min(offset, 1.0)
    spread = 3.0 if dtype.kind == "f" else 40.0
    return np.abs(offset + spread * rng.standard_normal(shape)).astype(dtype)


@st.composite
def rows(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d, k = draw(st.integers(2, 40)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    X = values(rng, (n, d), draw(st.sampled_from(DTYPES)), draw(st.sampled_from(OFFSETS)))
    y = values(rng, (n, k), draw(st.sampled_from(DTYPES)), draw(st.sampled_from(OFFSETS)))
    weight = rng.uniform(0.1, 3.0, n) if draw(st.booleans()) else None
    return Rows(X, y, weight)


@st.composite
def segments(draw, n_rows):
    """Partition rows into segments, and those into blocks; either may be empty."""
    return [draw(ours.heights(height)) for height in draw(ours.heights(n_rows))]


def accumulators(data, rng):
    """Return one of each kind, with the result that NumPy computes."""
    X, y, weight = (None if a is None else a.astype(Wide) for a in data)
    d, k = X.shape[1], y.shape[1]
    shift, y_shift = X.mean(axis=0).astype(float), y.mean(axis=0).astype(float)
    w, b = rng.standard_normal((d, 2 * k)), rng.standard_normal(2 * k)
    roots = [
        (Root(d, k, centred=centred), expected_root(X, y, weight, centred=centred))
        for centred in (True, False)
        # not on a GPU
        if "root" in laws.KERNELS.by_name
    ]
    return [
        *roots,
        (Moments(d, k), expected_moments(X, y, weight)),
        (Gram(d, k), expected_gram(X, y, weight, centred=True)),
        (Gram(d, k, centred=False), expected_gram(X, y, weight, centred=False)),
        (
            Gradient(w, b, k, x=Affine(None, shift), y=Affine(None, y_shift)),
            expected_gradient(X - shift, y - y_shift, weight, w, b),
        ),
        (Gradient(w[:, :k], b[:k], k), expected_gradient(X, y, weight, w[:, :k], b[:k])),
        (
            Residuals(TwoFloats.of(w), TwoFloats.of(b), k),
            expected_residuals(X, y, weight, w, b),
        ),
        (Score(w[:, :k], b[:k]), expected_score(X, y, weight, w[:, :k], b[:k])),
        (
            ResidualHistogram(w[:, :k], b[:k], target=k - 1, shape=(4, 8)),
            expected_score(X, y, weight, w[:, :k], b[:k]) | {"n": (len(X), 0)},
        ),
    ]


def weighted(X, weight):
    s = np.ones(len(X), Wide) if weight is None else weight
    return s, s / s.sum()


def centred_by(p, values):
    """Return the mean and the centred values; first subtract the first row, which is exact."""
    moved = values - values[0]
    return values[0] + p @ moved, moved - p @ moved


def expected_moments(X, y, weight):
    _, p = weighted(X, weight)
    (mean, z), (y_mean, z_y) = centred_by(p, X), centred_by(p, y)
    deviation, y_deviation = np.sqrt(p @ z**2), np.sqrt(p @ z_y**2)
    # field: expected value, and the size of the terms whose rounding is allowed
    return {
        "n": (len(X), 0),
        "mean": (mean, np.abs(mean) + deviation),
        "deviation": (deviation, deviation),
        "low": (X.min(axis=0), 0),
        "high": (X.max(axis=0), 0),
        "y_mean": (y_mean, np.abs(y_mean) + y_deviation),
        "y_variance": (y_deviation**2, y_deviation**2),
        "y_low": (y.min(axis=0), 0),
        "y_high": (y.max(axis=0), 0),
        "cross": ((z_y * p[:, None]).T @ z, np.outer(y_deviation, deviation)),
    }


def expected_gram(X, y, weight, *, centred):
    s, p = weighted(X, weight)
    mean, z, y_mean, z_y = 0 * X[0], X, 0 * y[0], y
    if centred:
        (mean, z), (y_mean, z_y) = centred_by(p, X), centred_by(p, y)
    size, y_size = np.sqrt(p @ z**2), np.sqrt(p @ z_y**2)
    return {
        "n": (len(X), 0),
        "s": (s.sum(), s.sum()),
        "mean": (mean, np.abs(mean) + size),
        "varies": (((X[0] if centred else 0) != X).any(axis=0), 0),
        "gram": (np.tril((z * s[:, None]).T @ z), s.sum() * np.outer(size, size)),
        "y_mean": (y_mean, np.abs(y_mean) + y_size),
        "y_varies": ((y != (y[0] if centred else 0)).any(axis=0), 0),
        "y_variance": (y_size**2, y_size**2),
        "cross": ((z * s[:, None]).T @ z_y, s.sum() * np.outer(size, y_size)),
    }


def expected_root(X, y, weight, *, centred):
    s, p = weighted(X, weight)
    first, y_first = (X[0], y[0]) if centred else (0 * X[0], 0 * y[0])
    rows = np.column_stack([np.full(len(X), float(centred)), X - first, y - y_first])
    rows = rows * np.sqrt(s)[:, None]
    size = np.sqrt((rows**2).sum(axis=0))
    offset, spread = p @ (X - first), np.sqrt(p @ (X - first) ** 2)
    y_offset, y_spread = p @ (y - y_first), np.sqrt(p @ (y - y_first) ** 2)
    return {
        "n": (len(X), 0),
        "s": (s.sum(), s.sum()),
        "origin": (first, 0),
        "y_origin": (y_first, 0),
        "varies": (((X[0] if centred else 0) != X).any(axis=0), 0),
        "offset": (centred * offset, spread),
        "y_offset": (centred * y_offset, y_spread),
        # RᵀR, because R has any signs
        "root": (rows.T @ rows, np.outer(size, size)),
    }


def expected_gradient(X, y, weight, V, b):
    _, p = weighted(X, weight)
    k = y.shape[1]
    u = X @ V + b
    # the terms of u = Σ xⱼvⱼ + b - y may be large and cancel
    size = np.abs(X) @ np.abs(V) + np.abs(b)
    u[:, :k] -= y
    size[:, :k] += np.abs(y)
    ps, root = p[:, None], np.sqrt(p)[:, None]
    products, sizes = (u * ps).T @ X, (size * ps).T @ np.abs(X)
    return {
        "rr": (((u * root)[:, :k] ** 2).sum(axis=0), ((size * root)[:, :k] ** 2).sum(axis=0)),
        "gradient": (products.T, sizes.T),
        "bias": (p @ u, p @ size),
    }


def expected_residuals(X, y, weight, V, b):
    s, _ = weighted(X, weight)
    mean = expected_gradient(X, y, weight, V, b)
    r = X @ V + b
    size = np.abs(X) @ np.abs(V) + np.abs(b)
    r[:, : y.shape[1]] -= y
    size[:, : y.shape[1]] += np.abs(y)
    total = s.sum()
    rr, rr_size = ((s[:, None] * each**2).sum(axis=0) for each in (r, size))
    products, sums = ([total * each for each in mean[name]] for name in ("gradient", "bias"))
    return {
        "n": (len(X), 0),
        "s": (total, total),
        "rr": (rr, rr_size),
        "products": products,
        "sums": sums,
    }


def expected_score(X, y, weight, w, b):
    _, p = weighted(X, weight)
    size = np.abs(y) + np.abs(X) @ np.abs(w) + np.abs(b)
    _, z = centred_by(p, y)
    spread = np.where(z.any(axis=0), p @ z**2, np.nan)
    predicted = X @ w + b
    squares = p @ (y - predicted) ** 2
    _, p_z = centred_by(p, predicted)
    deviations = np.sqrt((p @ z**2) * (p @ p_z**2))
    constant = ~(z.any(axis=0) & p_z.any(axis=0))
    deviations = np.where(constant, np.nan, deviations)
    return {
        "r2": (1 - squares / spread, p @ size**2 / spread),
        "rmse": (np.sqrt(squares), np.sqrt(p @ size**2)),
        "high": (np.abs(y).max(axis=0), 0),
        "pearson_r": (p @ (z * p_z) / deviations, p @ size**2 / deviations),
    }


def assert_is(result, expected):
    for name, (value, size) in expected.items():
        found = getattr(result, name)
        found = np.asarray(found.rounded() if isinstance(found, TwoFloats) else found, Wide)
        if name == "gram":
            found = np.tril(found)
        if name == "root":
            assert not np.tril(found, -1).any()
            found = found.T @ found
        off = np.abs(found - value)
        allowed = ROUNDING * np.asarray(size, Wide)
        assert np.all((off <= allowed) | np.isnan(allowed)), (name, found, value)


@pytest.fixture(autouse=True)
def _laws_of(kernels, monkeypatch):
    monkeypatch.setattr(laws, "KERNELS", kernels)


@pytest.mark.usefixtures("tile_sizes")
@given(data=st.data())
def test_any_split_into_blocks_and_segments_gives_numpys_answer(data):
    drawn = data.draw(rows())
    cuts = data.draw(segments(len(drawn.X)))
    starts = np.cumsum([0, *(sum(heights) for heights in cuts)])
    pieces = [drawn.blocks(cut, int(start)) for cut, start in zip(cuts, starts, strict=False)]
    for accumulator, expected in accumulators(drawn, np.random.default_rng(0)):
        assert_is(accumulator.finalize(laws.reduce(accumulator, pieces)), expected)


@pytest.mark.usefixtures("tile_sizes")
@pytest.mark.parametrize(
    "law",
    [
        laws.assert_zero_is_neutral,
        laws.assert_an_empty_block_adds_nothing,
        laws.assert_finalize_writes_nothing,
        laws.assert_second_arguments_are_left_alone,
    ],
)
@given(drawn=rows())
def test_law(law, drawn):
    for accumulator, _ in accumulators(drawn, np.random.default_rng(0)):
        law(accumulator, drawn)


@given(drawn=rows())
def test_state_nbytes_is_the_size_of_a_state(drawn):
    for accumulator, _ in accumulators(drawn, np.random.default_rng(0)):
        state = accumulator.zero()
        assert sum(field.nbytes for field in state) == accumulator.state_nbytes


@given(drawn=rows())
def test_nan_and_inf_in_any_row_are_detected(drawn):
    for bad in (np.nan, np.inf):
        for broken in (0, 1):
            arrays = [np.array(array, float) for array in drawn[:2]]
            arrays[broken][len(drawn.X) // 2, 0] = bad
            bad_rows = Rows(*arrays, drawn.weight)
            for accumulator, _ in accumulators(drawn, np.random.default_rng(0)):
                with np.errstate(all="ignore"):
                    state = laws.state_of(accumulator, bad_rows.blocks([len(drawn.X)]))
                    assert not accumulator.is_finite(state)


@pytest.mark.parametrize("size", [1e200, 1e-200, 1e300, 1e-300])
@pytest.mark.parametrize("kind", [Moments, Gram])
def test_powers_of_two_scale_without_rounding(kind, size):
    rng = np.random.default_rng(3)
    X, y = rng.standard_normal((50, 3)), rng.standard_normal((50, 2))
    scale = float(2.0 ** np.round(np.log2(1 / size)))
    scaling = Scaling(np.full(3, scale), np.full(2, scale))
    plain = laws.reduce(kind(3, 2), [Rows(X, y).blocks([20, 30])])
    scaled = laws.reduce(kind(3, 2, scaling=scaling), [Rows(X / scale, y / scale).blocks([20, 30])])
    for name in ("mean", "y_mean", "cross", "y_m2"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(scaled, name))


@pytest.mark.parametrize("value", [0.1, 7.3, 1e9 + 0.1, -1e300, 5e-324])
def test_a_constant_column_has_zero_deviation(value):
    X, y = np.full((1000, 2), value), np.full((1000, 1), value)
    blocks = [Rows(X, y).blocks([333, 0, 100]), Rows(X, y).blocks([567], 433)]
    moments = Moments(2, 1).finalize(laws.reduce(Moments(2, 1), blocks))
    gram = Gram(2, 1).finalize(laws.reduce(Gram(2, 1), blocks))
    assert not moments.deviation.any()
    assert not moments.y_variance.any()
    assert not gram.gram.any()
    assert not gram.varies.any()
    assert (gram.mean == value).all()


def test_a_mean_of_a_billion_deviations_costs_no_digits():
    rng = np.random.default_rng(0)
    # X is exact in units of 2^-20, so that integers give the exact answer
    whole = rng.integers(-(2**20), 2**20, (4000, 2))
    X = 1e9 + whole / 2**20
    blocks = [Rows(X, X[:, :1]).blocks([500, 1500]), Rows(X, X[:, :1]).blocks([2000], 2000)]
    found = Moments(2, 1).finalize(laws.reduce(Moments(2, 1), blocks)).deviation
    n, total, squares = len(whole), whole.sum(axis=0), (whole.astype(object) ** 2).sum(axis=0)
    exact = np.sqrt(((n * squares - total.astype(object) ** 2) / n**2).astype(float)) / 2**20
    np.testing.assert_allclose(found, exact, rtol=1e-14)


def test_no_rows_give_no_warning():
    gradient = Gradient(np.zeros((2, 1)), np.zeros(1), 1)
    for accumulator, mean in (
        (Moments(2, 1), "cross"),
        (Gram(2, 1), "y_variance"),
        (gradient, "rr"),
    ):
        result = accumulator.finalize(accumulator.zero())
        assert np.isnan(getattr(result, mean)).all()
