"""The kernels compared with a reference, which runs in NumPy and in array_api_strict."""

from __future__ import annotations

import array_api_strict
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from streamreg.blocks import Block
from streamreg.kernels import blas
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.base import SERIAL, Affine
from streamreg.kernels.registry import best_kernels, load_kernels
from streamreg.kernels.states import GramState, MomentsState, ProductState

DTYPES = ("?", "u1", "<i8", ">i4", "<f2", "<f4", ">f4", "<f8", ">f8")
# sums of some tens of terms, added in another order
ROUNDING = 1e-12


@pytest.fixture(params=[np, array_api_strict], ids=["numpy", "array_api_strict"])
def xp(request):
    return request.param


@st.composite
def blocks(draw):
    """A block of any dtype, and the same rows as plain float64, with a weight each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d, k = draw(st.integers(1, 30)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    X = (rng.standard_normal((n, d)) * 5 + 7).astype(draw(st.sampled_from(DTYPES)))
    y = (rng.standard_normal((n, k)) * 5 + 7).astype(draw(st.sampled_from(DTYPES)))
    weight = rng.uniform(0.1, 2.0, n) if draw(st.booleans()) else None
    # a view that is not contiguous
    if draw(st.booleans()):
        X = np.repeat(X, 2, axis=1)[:, ::2]
    plain = (X.astype(float), y.astype(float), np.ones(n) if weight is None else weight)
    return Block(X, y, weight, 0), plain


def assert_same(state, expected):
    for name, value in expected.items():
        wanted = np.asarray(value)
        # values are of order 1 and above; smaller ones are differences of such values
        size = np.max(np.abs(wanted), initial=1.0)
        np.testing.assert_allclose(
            getattr(state, name), wanted, rtol=ROUNDING, atol=ROUNDING * size, err_msg=name
        )


def in_namespace(xp, *arrays):
    return [xp.asarray(array) for array in arrays]


@pytest.mark.usefixtures("tile_sizes")
@given(drawn=blocks(), paired=st.booleans(), scaled=st.booleans(), shifted=st.booleans())
def test_products(xp, kernels, drawn, paired, scaled, shifted):
    block, (X, y, weight) = drawn
    d, k = X.shape[1], y.shape[1]
    columns = 2 * k if paired else k
    rng = np.random.default_rng(1)
    V, bias = rng.standard_normal((d, columns)), rng.standard_normal(columns)
    x_affine = Affine(np.full(d, 0.25) if scaled else None, X.mean(axis=0) if shifted else None)
    y_affine = Affine(np.full(k, 4.0) if scaled else None, y.mean(axis=0) if shifted else None)
    state = ProductState.zero(d, k, columns)
    kernels.find("products")(block, state, coefficients=V, bias=bias, x=x_affine, y=y_affine)
    read = X * (0.25 if scaled else 1) - (X.mean(axis=0) if shifted else 0)
    y_read = y * (4.0 if scaled else 1) - (y.mean(axis=0) if shifted else 0)
    assert_same(state, reference.products(*in_namespace(xp, read, y_read, weight, V, bias)))


@pytest.mark.usefixtures("tile_sizes")
@given(drawn=blocks(), scaled=st.booleans())
def test_moments(xp, kernels, drawn, scaled):
    block, (X, y, weight) = drawn
    d, k = X.shape[1], y.shape[1]
    scale = 0.25 if scaled else 1.0
    state = MomentsState.zero(d, k)
    kernels.find("moments")(
        block, state,
        x_scale=np.full(d, scale) if scaled else None,
        y_scale=np.full(k, scale) if scaled else None,
    )  # fmt: skip
    # the state has means less the first row, and bounds of values as stored
    whole = state._replace(
        mean=state.origin + state.mean, y_mean=state.y_origin + state.y_mean,
        low=state.low * scale, high=state.high * scale,
        y_low=state.y_low * scale, y_high=state.y_high * scale,
    )  # fmt: skip
    assert_same(whole, reference.moments(*in_namespace(xp, X * scale, y * scale, weight)))


@pytest.mark.usefixtures("tile_sizes")
@given(drawn=blocks(), centred=st.booleans(), scaled=st.booleans())
def test_gram(xp, kernels, drawn, centred, scaled):
    block, (X, y, weight) = drawn
    d, k = X.shape[1], y.shape[1]
    scale = 0.25 if scaled else 1.0
    state = GramState.zero(d, k)
    kernels.find("gram")(
        block, state, kernels.parallel, centred=centred,
        x_scale=np.full(d, scale) if scaled else None,
        y_scale=np.full(k, scale) if scaled else None,
    )  # fmt: skip
    expected = reference.gram(*in_namespace(xp, X * scale, y * scale, weight), centred=centred)
    whole = state._replace(
        mean=state.origin + state.mean, y_mean=state.y_origin + state.y_mean,
        gram=np.tril(state.gram) + np.tril(state.gram, -1).T,
    )  # fmt: skip
    assert_same(whole, expected)


@pytest.mark.parametrize("level", ["numpy", best_kernels()])
@given(drawn=blocks())
def test_predict(drawn, level):
    block, (X, y, _) = drawn
    rng = np.random.default_rng(2)
    w, b = rng.standard_normal((X.shape[1], y.shape[1])), rng.standard_normal(y.shape[1])
    predict = load_kernels(level).by_kind["dense"].find("predict")
    np.testing.assert_allclose(predict(block.X, w, b), X @ w + b, rtol=1e-12, atol=1e-12)


def test_columns_near_the_ends_of_float64s_range_can_be_scaled():
    X = np.array([[1e200, 1e-200], [3e200, -1e-200], [2e200, 4e-200]])
    scale = 2.0 ** np.array([-664, 664])
    state = GramState.zero(2, 1)
    numpy_kernels.gram(Block(X, X[:, :1], None, 0), state, SERIAL, centred=True, x_scale=scale,
             y_scale=scale[:1])  # fmt: skip
    expected = reference.gram(X * scale, (X * scale)[:, :1], np.ones(3), centred=True)
    np.testing.assert_allclose(state.gram.diagonal(), expected["gram"].diagonal(), rtol=1e-14)


@pytest.mark.parametrize("n_features", [1, 511, 512, 513, 1300])
def test_panels_add_up_to_xtx(n_features):
    rows = np.random.default_rng(0).standard_normal((20, n_features))
    gram = np.zeros((n_features, n_features), order="F")
    for start in range(0, n_features, 512):
        blas.add_gram_panel(rows, gram, start, min(start + 512, n_features))
    expected = rows.T @ rows
    np.testing.assert_allclose(np.tril(gram), np.tril(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_triangles_are_solved_in_place(lower, transposed):
    rng = np.random.default_rng(0)
    matrix = np.asfortranarray(rng.standard_normal((6, 6)) + 4 * np.eye(6))
    right = np.asfortranarray(rng.standard_normal((6, 2)))
    triangle = (np.tril if lower else np.triu)(matrix)[:4, :4]
    expected = np.linalg.solve(triangle.T if transposed else triangle, right[:4])
    untouched = right[4:].copy()
    blas.solve_triangle(matrix, right, size=4, lower=lower, transposed=transposed)
    np.testing.assert_allclose(right[:4], expected, rtol=1e-12)
    np.testing.assert_array_equal(right[4:], untouched)


def test_kernels_of_an_unknown_name_are_an_error():
    with pytest.raises(LookupError, match="no kernels 'tpu' that run on this processor"):
        load_kernels("tpu")
