"""The inverse of XᵀX to the last digits, for few columns that are nearly dependent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.residuals import Residuals, residuals_nbytes
from streamreg.kernels.two_float import TwoFloats, product

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.corrections import Equations

# the pass takes, for each column, as much as a correction of the weights
_MOST_COLUMNS = 32
# of the bound of the relative error of R, which is some 50 times the true error
_LEAST_ERROR, _MOST_ERROR = 1e-7, 0.5


def refined_inverse_nbytes(n_features: int) -> tuple[int, int]:
    """Bytes of the state and of scratch memory of the pass."""
    d = min(n_features, _MOST_COLUMNS)
    return residuals_nbytes(n_features, d)


def needs_refined_inverse(equations: Equations) -> bool:
    """Whether R keeps few digits of the inverse, and a pass can refine it."""
    is_doubtful = _LEAST_ERROR < equations.contraction < _MOST_ERROR
    return is_doubtful and equations.factor.is_full and equations.factor.rank <= _MOST_COLUMNS


def refined_inverse(equations: Equations) -> tuple[Float64, Float64]:
    """Return V (D, r) with VVᵀ = (XᵀX/Σs)⁻¹, and x̄ᵀV (r,): one pass.

    From V₀ of the factor, the pass measures V₀ᵀXᵀXV₀/Σs = I + E in two floats; with LLᵀ = I + E,
    V = V₀L⁻ᵀ. Then the rounding of V₀ has no effect.
    """
    factor, scale, mean = equations.factor, equations.scale[:, None], equations.mean
    V = factor.triangle.unwhiten(np.eye(factor.rank, order="F"))
    at_mean = equations.at_mean(V)
    b = -at_mean if equations.problem.fit_intercept else TwoFloats.of(np.zeros(factor.rank))
    units = None if equations.units.is_one else equations.units
    result = equations.reduce(Residuals(TwoFloats.of(V / scale), b, 0, units))
    moved = TwoFloats(mean.high[:, None], mean.low[:, None]).times(result.sums)
    products = result.products.plus(-moved)
    products = TwoFloats(products.high / scale, products.low / scale)
    identity, low = np.empty((factor.rank,) * 2), np.empty((factor.rank,) * 2)
    for j in range(factor.rank):
        column = TwoFloats(products.high[:, [j]], products.low[:, [j]])
        identity[:, j], low[:, j] = product(TwoFloats.of(V), column)
    excess = TwoFloats(identity, low).plus(-result.s.times(TwoFloats.of(np.eye(factor.rank))))
    E = excess.high / result.s.high
    lower = np.linalg.cholesky(np.eye(factor.rank) + (E + E.T) / 2)
    root = np.linalg.inv(lower).T
    return V @ root, at_mean.rounded() @ root
