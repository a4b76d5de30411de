"""The triangular factor: updated by rows, merged, with a diagonal added; beside NumPy's QR."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from streamreg.blocks import Block
from streamreg.kernels import lapack
from streamreg.kernels.base import SERIAL, Parallel
from streamreg.kernels.registry import best_kernels, load_kernels
from streamreg.kernels.states import RootState

# more columns than a panel, than a block of reflectors, and fewer
SIZES = [1, 7, 200, 1100]


def root_of(rows):
    size = rows.shape[1]
    root, room = np.zeros((size, size), order="F"), np.array(rows, order="F")
    lapack.add_rows(root, room, len(rows), SERIAL)
    return root


def assert_is_root_of(root, rows):
    assert not np.tril(root, -1).any()
    expected = np.linalg.qr(rows, mode="r")
    scale = np.linalg.norm(expected)
    np.testing.assert_allclose(root.T @ root, rows.T @ rows, atol=1e-13 * scale**2)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("n", [1, 50, 1300])
def test_rows_are_added(size, n):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((40, size)), rng.standard_normal((n, size))
    root = root_of(first)
    lapack.add_rows(root, np.array(second, order="F"), n, SERIAL)
    assert_is_root_of(root, np.vstack([first, second]))


@pytest.mark.parametrize("size", SIZES)
def test_factors_are_merged_and_the_second_is_left_alone(size):
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((300, size)), rng.standard_normal((1200, size))
    root, other = root_of(first), root_of(second)
    before = other.copy()
    lapack.merge_roots(root, other, other[0].copy())
    assert_is_root_of(root, np.vstack([first, second]))
    np.testing.assert_array_equal(other, before)


@pytest.mark.parametrize("size", SIZES)
def test_a_diagonal_is_added_and_the_right_side_rotated(size):
    rng = np.random.default_rng(0)
    rows, diagonal = rng.standard_normal((size + 100, size)), rng.uniform(1, 2, size)
    y = rng.standard_normal((size + 100, 2))
    Q, R = np.linalg.qr(rows)
    root, right = np.array(R, order="F"), np.array(Q.T @ y, order="F")
    below = lapack.add_diagonal(root, diagonal, right)
    both = np.vstack([rows, np.diag(diagonal)])
    assert_is_root_of(root, both)
    expected = np.linalg.lstsq(both, np.vstack([y, np.zeros((size, 2))]), rcond=None)[0]
    np.testing.assert_allclose(np.linalg.solve(root, right), expected, atol=1e-11)
    # what is not in the columns of Q, of y in those of the rows
    fitted = np.sum((Q.T @ y) ** 2, axis=0) - np.sum(right**2, axis=0)
    np.testing.assert_allclose(below, fitted, rtol=1e-9)


def test_threads_that_share_panels_change_no_bit():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((900, 1300))
    alone = root_of(rows)

    with ThreadPoolExecutor(3) as pool:

        def run(task, count, prepare):
            list(pool.map(task, range(count)))
            prepare()

        root = np.zeros((1300, 1300), order="F")
        lapack.add_rows(root, np.array(rows, order="F"), len(rows), Parallel(run))
    np.testing.assert_array_equal(root, alone)


@pytest.mark.parametrize("dtype", ["?", ">i2", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("name", ["numpy", best_kernels()])
@pytest.mark.parametrize("order", ["C", "F"])
def test_rows_of_any_dtype_layout_and_weight(name, dtype, order):
    rng = np.random.default_rng(0)
    X = np.array((rng.standard_normal((531, 5)) * 50).astype(dtype), order=order)
    y, weight = rng.standard_normal((531, 2)), rng.uniform(0.1, 3, 531)
    scale = np.array([1.0, 4.0, 0.5, 1.0, 2.0])
    state = RootState.zero(5, 2)
    kernels = load_kernels(name).by_kind["dense"]
    kernels.find("root")(
        Block(X, y, weight, 0), state, SERIAL, centred=True, x_scale=scale, y_scale=None
    )
    plain = X.astype(float) * scale
    rows = np.column_stack([np.ones(531), plain - plain[0], y - y[0]])
    assert_is_root_of(state.root, rows * np.sqrt(weight)[:, None])
    np.testing.assert_array_equal(state.origin, plain[0])
    assert (int(state.n), float(state.updates)) == (531, 1)
    np.testing.assert_allclose(state.s, weight.sum(), rtol=1e-14)
