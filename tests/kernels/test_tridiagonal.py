"""Tridiagonal forms, permutations and symmetric products, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import lapack

from streamreg.kernels import blas, tridiagonal
from streamreg.kernels.tridiagonal import Tridiagonal, permute


def symmetric(d, seed=0):
    """Return a symmetric array, and one with NaN in its upper part, in Fortran order."""
    B = np.random.default_rng(seed).standard_normal((d, d))
    whole = B @ B.T
    return whole, np.asfortranarray(np.where(np.tri(d, dtype=bool), whole, np.nan))


# one column more than those that are permuted at once
@pytest.mark.parametrize("d", [1, 2, 3, 17, 40])
def test_q_t_q_transposed_is_the_array(d):
    whole, lower = symmetric(d)
    form = Tridiagonal.of(lower)
    T = np.diag(form.diagonal) + np.diag(form.beside, 1) + np.diag(form.beside, -1)
    Q = np.eye(d, order="F")
    form.rotate(Q, transposed=False)
    np.testing.assert_allclose(Q @ T @ Q.T, whole, atol=1e-12 * d)
    QT = np.eye(d, order="F")
    form.rotate(QT, transposed=True)
    np.testing.assert_allclose(QT, Q.T, atol=1e-14 * d)


def test_a_part_of_an_array_is_reduced_in_place():
    whole, lower = symmetric(20)
    form = Tridiagonal.of(lower[:12, :12])
    eigenvalues = np.linalg.eigvalsh(whole[:12, :12])
    T = np.diag(form.diagonal) + np.diag(form.beside, 1) + np.diag(form.beside, -1)
    np.testing.assert_allclose(np.linalg.eigvalsh(T), eigenvalues, atol=1e-12 * 20)
    # the rest is as it was
    np.testing.assert_array_equal(np.tril(lower)[12:], np.tril(whole)[12:])


@pytest.mark.parametrize("d", [1, 15, 16, 17, 40])
def test_rows_and_columns_are_permuted(d):
    whole, lower = symmetric(d)
    order = np.random.default_rng(1).permutation(d)
    permute(lower, order)
    np.testing.assert_array_equal(lower, whole[np.ix_(order, order)])


def test_a_symmetric_array_multiplies_by_its_lower_part():
    whole, lower = symmetric(9)
    right = np.asfortranarray(np.random.default_rng(2).standard_normal((9, 4)))
    out = np.full((9, 4), np.nan, order="F")
    blas.multiply_symmetric(lower, right, out)
    np.testing.assert_allclose(out, whole @ right, atol=1e-12)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("m", [1, 16, 37])
def test_sums_over_solutions_are_those_of_dense_equations(monkeypatch, compiled, m):
    if not compiled:
        monkeypatch.setattr(tridiagonal, "load_library", lambda: None)
    rng = np.random.default_rng(0)
    r = 50
    diagonal, beside = rng.uniform(2, 3, r), rng.uniform(-1, 1, r - 1)
    # rows of an array with more of them
    right = np.asfortranarray(rng.standard_normal((r + 3, m)))[:r]
    factors = [lapack.dpttrf(diagonal + l2, beside)[:2] for l2 in (0.0, 1.0)]
    delta, below = (np.array(each) for each in zip(*factors, strict=True))
    products, squares = tridiagonal.solved_sums(right, delta, below)
    for number, l2 in enumerate((0.0, 1.0)):
        dense = np.diag(diagonal + l2) + np.diag(beside, 1) + np.diag(beside, -1)
        z = np.linalg.solve(dense, right)
        np.testing.assert_allclose(products[number], (z * right).sum(axis=0), rtol=1e-12)
        np.testing.assert_allclose(squares[number], (z * z).sum(axis=0), rtol=1e-12)


def test_products_with_q_itself_are_those_with_its_reflectors():
    rng = np.random.default_rng(0)
    square = np.cov(rng.standard_normal((20, 60)))
    columns = np.asfortranarray(rng.standard_normal((20, 7)))
    for transposed in (True, False):
        found = []
        for explicit in (True, False):
            factor = tridiagonal.Tridiagonal.of(np.asfortranarray(square))
            rotated = columns.copy(order="F")
            (factor.explicit() if explicit else factor).rotate(rotated, transposed=transposed)
            found.append(rotated)
        np.testing.assert_allclose(*found, rtol=0, atol=1e-13)
