"""Standard errors in 80 bits, by Gram-Schmidt: the reference where columns are nearly dependent."""

from __future__ import annotations

import numpy as np

Wide = np.longdouble


def standard_errors(X, y, cov_type, *, groups=None, weight=None, fit_intercept=True):
    """Return the standard errors of the intercept and the weights, as float64."""
    n = len(y)
    s = np.ones(n, Wide) if weight is None else np.asarray(weight, Wide)
    A = np.asarray(X, Wide)
    if fit_intercept:
        A = np.column_stack([np.ones(n, Wide), A])
    A, y = A * np.sqrt(s)[:, None], np.asarray(y, Wide) * np.sqrt(s)
    Q, R = _orthogonal(A)
    r = y - Q @ (Q.T @ y)
    r -= Q @ (Q.T @ r)
    k = A.shape[1]
    if cov_type == "nonrobust":
        meat = np.eye(k, dtype=Wide) * (r @ r) / (n - k)
    elif cov_type == "cluster":
        names = np.unique(groups)
        sums = np.array([(Q[groups == g] * r[groups == g, None]).sum(axis=0) for g in names])
        meat = sums.T @ sums * Wide(len(names)) / (len(names) - 1) * Wide(n - 1) / (n - k)
    else:
        left = 1 - (Q * Q).sum(axis=1)
        factor = {"HC0": 1, "HC1": Wide(n) / (n - k), "HC2": 1 / left, "HC3": 1 / left**2}
        meat = (Q * (r * r * factor[cov_type])[:, None]).T @ Q
    inverse = _inverse(R)
    return np.sqrt(np.einsum("ij,jk,ik->i", inverse, meat, inverse)).astype(float)


def _orthogonal(A):
    """Return Q and R; each column is orthogonalised twice."""
    Q, R = A.copy(), np.zeros((A.shape[1],) * 2, Wide)
    for j in range(A.shape[1]):
        for _ in range(2):
            shares = Q[:, :j].T @ Q[:, j]
            Q[:, j] -= Q[:, :j] @ shares
            R[:j, j] += shares
        R[j, j] = np.sqrt(Q[:, j] @ Q[:, j])
        Q[:, j] /= R[j, j]
    return Q, R


def _inverse(R):
    k = len(R)
    inverse = np.zeros((k, k), Wide)
    for j in range(k):
        for i in reversed(range(j + 1)):
            inverse[i, j] = ((i == j) - R[i, i + 1 :] @ inverse[i + 1 :, j]) / R[i, i]
    return inverse
