"""Tridiagonal forms, permutations and symmetric products, against NumPy's."""

from __future__ import annotations

import numpy as np
import pytest

from streamreg.kernels import blas
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
