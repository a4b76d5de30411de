"""Columns that are multiples of each other, noticed in O(D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Reduce
    from streamreg.solvers.columns import Start

    Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]

# sums of equal columns differ by rounding, and by where in a register a column lies
_EQUAL = 1e-10


def duplicate_warnings(start: Start, reduce: Reduce) -> list[str]:
    """Name columns that are equal but for a factor and a constant.

    Equal columns have equal correlations with y. Where some do, one more pass gives everyone's
    correlation with a random mixture of them, which only equal columns share.
    """
    coordinates = start.coordinates
    # to columns of deviation 1; constant ones become 0
    unit = np.where(start.spread > 0, coordinates.scale / start.spread, 0.0)
    gradient = start.evaluation.gradient
    norms = np.linalg.norm(gradient, axis=0)
    if not norms.any():
        return []
    # with a mixture of all targets
    generator = np.random.default_rng(0)
    parts = generator.standard_normal(len(norms)) / np.where(norms > 0, norms, np.inf)
    with_y = -(gradient[:-1] @ parts) * unit
    suspects = _alike(np.abs(with_y), np.flatnonzero(unit))
    if not len(suspects):
        return []
    mixture = np.zeros_like(gradient)
    mixture[suspects, 0] = generator.standard_normal(len(suspects)) * unit[suspects]
    theta = np.zeros_like(mixture)
    with_mixture = coordinates.evaluate(reduce, theta, mixture).curvature[:-1, 0] * unit
    repeated = _alike(np.where(with_y < 0, -with_mixture, with_mixture), suspects)
    if not len(repeated):
        return []
    message = (
        f"{coordinates.problem.columns(repeated.tolist())} are multiples of each other, but for a "
        "constant: of all weights that fit alike the ones of least norm, in the solver's units, "
        "were sought; leave such columns out, or pass l2 > 0"
    )
    return [message]


def _alike(values: Float64, columns: Numbers) -> Numbers:
    """Return those of the columns whose value another of them has."""
    order = columns[np.argsort(values[columns], kind="stable")]
    close = np.diff(values[order]) <= _EQUAL * np.max(np.abs(values[columns]), initial=0.0)
    return np.unique(np.concatenate([order[:-1][close], order[1:][close]]))
