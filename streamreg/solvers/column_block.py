"""A preconditioner of sparse rows: ∇²f of the k columns that most rows store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from streamreg.accumulators.column_gram import ColumnGram
from streamreg.solvers.base import EPS
from streamreg.solvers.preconditioner import NO_PRECONDITIONER, Found, Preconditioner

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.standardization import Coordinates

# is added to a diagonal of 1, where columns depend on each other
_ROUNDING = 64 * EPS
# of a power iteration, which then finds 0.8 of an eigenvalue or more
_ITERATIONS = 10
# The least ratio of the mean frequencies of chosen and other columns, times that of all stored
# values to those of the others. Measured: from 24 on, the epochs of none are multiplied by 0.15 to
# 1.1, on text and one-hot columns by 0.15 to 0.7; from 16 to 24 by 0.6 to 1.2; below by 0.8 to 1.4,
# most where all rows store all columns.
_LEAST_CONCENTRATION = 24.0
# A larger eigenvalue of M⁻¹ is that of chosen columns that depend on each other, without a penalty:
# it would make rounding along them as large as the weights, and fits did not converge.
_DEPENDENT = 1e8


def column_block(coordinates: Coordinates, k: int) -> Found:
    """Run one pass, and return M⁻¹ of the k columns that most rows store: a block Jacobi.

    M is ∇²f in coordinates where its diagonal is 1, for the chosen columns, and 1 for each other.
    A column's part in ∇²f that a penalty makes is not counted, so that what is chosen is

        sⱼ·vⱼ/(vⱼ + λ)        sⱼ: share of the rows that store column j    vⱼ: its variance

    which no unit of a column changes, but for that of the penalty. It takes O(k²) bytes: see
    :func:`column_block_nbytes`.

    Where other columns are about as frequent, it may cost epochs, and none is returned, without a
    pass. Instead of 1 for the other columns, √(d_j·d_k) with the diagonal d of XᵀX, which lies
    between scaled and unscaled columns, took 0.9 of the epochs on words in phrases, but 1.6 times
    those of none on one-hot columns, and 3 times where columns have different units.
    """
    scale, stored = coordinates.scale, coordinates.stored
    varying = np.flatnonzero(np.isfinite(scale))
    if not len(varying) or stored is None:
        return Found(NO_PRECONDITIONER, 1.0, n_passes=0)
    problem, units = coordinates.problem, coordinates.units
    root = problem.penalty.root(units.x)
    rank = stored[varying] * (1 - (root[varying] / scale[varying]) ** 2)
    order = np.argsort(-rank, kind="stable")
    if _concentration(rank[order], k) < _LEAST_CONCENTRATION:
        return Found(NO_PRECONDITIONER, 1.0, n_passes=0)
    chosen = np.sort(varying[order[:k]])
    x_scale = None if (units.x == 1).all() else units.x
    gram = coordinates.reduce(ColumnGram(problem.n_features, chosen, x_scale))
    mean = coordinates.centre[chosen]
    gram -= np.outer(mean, mean)
    gram /= scale[chosen]
    gram /= scale[chosen, None]
    gram[np.diag_indices(len(chosen))] += (root[chosen] / scale[chosen]) ** 2
    gram[np.diag_indices(len(chosen))] += _ROUNDING * len(chosen)
    largest = _largest_eigenvalue(gram)
    factor, failed = lapack.dpotrf(gram.T, lower=1, overwrite_a=1)
    if failed:
        return Found(NO_PRECONDITIONER, 1.0)
    inverse, failed = lapack.dtrtri(factor, lower=1, overwrite_c=1)
    if failed:
        return Found(NO_PRECONDITIONER, 1.0)
    inverse = np.ascontiguousarray(np.tril(inverse))
    of_inverse = _largest_eigenvalue(inverse.T, inverse)
    if of_inverse > _DEPENDENT:
        return Found(NO_PRECONDITIONER, 1.0)
    return Found(
        Preconditioner(inverse, chosen.astype(np.float64)), float(np.sqrt(largest * of_inverse))
    )


def _concentration(frequencies: Float64, k: int) -> float:
    """Return how often as frequent the first k columns are, times Σ of all / Σ of the others."""
    others = float(np.sum(frequencies[k:]))
    if not others > 0:
        return np.inf
    ratio = np.mean(frequencies[:k]) / np.mean(frequencies[k:])
    return float(ratio * np.sum(frequencies) / others)


def _largest_eigenvalue(*factors: Float64) -> float:
    """Return a lower bound of the largest eigenvalue of a product of matrices, about as large."""
    vector = np.random.default_rng(0).standard_normal((factors[-1].shape[1],))
    for _ in range(_ITERATIONS):
        vector = np.asarray(vector / np.linalg.norm(vector))
        for factor in reversed(factors):
            vector = factor @ vector
    return float(np.linalg.norm(vector))


def column_block_nbytes(n_features: int, k: int) -> int:
    """Bytes that k columns take beside the states of their pass."""
    return 8 * (3 * k * k + 4 * n_features)
