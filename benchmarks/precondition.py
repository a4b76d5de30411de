"""Epochs of cg to predictions that are right to 1e-6, with and without a preconditioner.

python benchmarks/precondition.py [--quick] [CASE ...]

Dense columns, D = 4,096: 50 factors and noise; and if they are named, neighbours with a correlation
of 0.95, and a spectrum i^-1.5. Sparse ones, D = 131,072: 20 words a row, in phrases, with penalties
of 10 and 1 (scikit-learn's alpha). An epoch is a pass, that of the preconditioner too. The error is
‖Xw + b - p‖/‖p - p̄‖ with the predictions p of the minimum. Seconds are those of the fit until then,
on two threads, of values in memory. Added memory is planned, beside that of a fit without a
preconditioner: what stays, and the peak on one thread, which the pass needs.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
from harness import keep

import streamreg
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataWarning
from streamreg.solvers.base import IterateStore, Problem
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.penalties import L2Penalty
from streamreg.sources.open import open_dataset

if TYPE_CHECKING:
    from collections.abc import Callable

    Rows = Any

_RIGHT = 1e-6
_MOST_EPOCHS = 3000


class Case(NamedTuple):
    """Data, a penalty λ of λ/(2N)·‖w‖², and the preconditioners to compare."""

    make: Callable[[int, int], Rows]
    shape: tuple[int, int]
    quick: tuple[int, int]
    alpha: float
    directions: tuple[int | str | None, ...]  # as the parameter "precondition"


def factors(n: int, d: int) -> Rows:
    """Return 50 factors, the largest of 10 times the deviation of the smallest, and noise."""
    rng = np.random.default_rng(0)
    loadings = rng.standard_normal((50, d)) * np.geomspace(1, 0.1, 50)[:, None]
    X = rng.standard_normal((n, 50)) @ loadings
    X += 0.2 * rng.standard_normal((n, d))
    return X


def neighbours(n: int, d: int) -> Rows:
    """Return columns whose correlation is 0.95 to the power of their distance."""
    noise = np.random.default_rng(0).standard_normal((n, d))
    return scipy.signal.lfilter([np.sqrt(1 - 0.95**2)], [1, -0.95], noise)


def decaying(n: int, d: int) -> Rows:
    """Return columns whose covariance has the eigenvalues i^-1.5."""
    parts = np.random.default_rng(0).standard_normal((n, d))
    parts *= np.arange(1, d + 1) ** -0.75
    return scipy.fft.dct(parts, norm="ortho", overwrite_x=True)


def words(n: int, d: int) -> Rows:
    """Return counts of 20 words a row, in phrases: words and phrases are frequent by Zipf's law."""
    rng, length = np.random.default_rng(0), 4
    phrases = _ranks(rng, d, (d // 2, length))
    drawn = phrases[_ranks(rng, len(phrases), (n, 20 // length))].ravel()
    columns = rng.permutation(d)[drawn].astype(np.int32)
    X = scipy.sparse.csr_array(
        (np.ones(len(columns)), columns, np.arange(n + 1) * 20), shape=(n, d)
    )
    X.sum_duplicates()
    return X


def _ranks(rng: np.random.Generator, n: int, size: tuple[int, ...]) -> np.ndarray:
    """Draw numbers below n, of which number i has a chance of 1/(i + 1)."""
    shares = np.cumsum(1 / np.arange(1, n + 1))
    return np.searchsorted(shares / shares[-1], rng.random(size)).clip(0, n - 1)


_DENSE, _TEXT = ((12_288, 4_096), (900, 400)), ((65_536, 131_072), (3_000, 1_500))
CASES = {
    "factors": Case(factors, *_DENSE, 0.0, (None, 60, 64, 256, "auto")),
    "words-10": Case(words, *_TEXT, 10.0, (None, 256, 1024, "auto")),
    "words-1": Case(words, *_TEXT, 1.0, (None, 256, 1024, "auto")),
    "neighbours": Case(neighbours, *_DENSE, 0.0, (None, 64, 256, "auto")),
    "decaying": Case(decaying, *_DENSE, 0.0, (None, 64, 256, "auto")),
}
_DEFAULT = ("factors", "words-10", "words-1")


class ReachedError(Exception):
    """Predictions are right."""


class Errors(IterateStore):
    """Stops a fit whose predictions are right; what it computes for that is not timed."""

    def __init__(self, X: Rows, expected: np.ndarray) -> None:
        self.X, self.expected = X, expected
        self.size = np.linalg.norm(expected - expected.mean())
        self.n_epochs, self.seconds, self.began = 0, 0.0, time.perf_counter()

    def save(self, iterate: Any) -> None:  # noqa: ANN401  (a named tuple of the solver's own)
        """Compute the predictions."""
        self.seconds += time.perf_counter() - self.began
        self.n_epochs = iterate.epoch
        predicted = self.X @ iterate.w[0][:, 0] + iterate.b[0][0]
        if np.linalg.norm(predicted - self.expected) <= _RIGHT * self.size:
            raise ReachedError
        self.began = time.perf_counter()


def solve(X: Rows, y: np.ndarray, l2: float, solver: ConjugateGradient, store: IterateStore) -> Any:  # noqa: ANN401
    """Run a fit on two threads."""
    dataset = open_dataset(X, y)
    problem = Problem(
        X.shape[1],
        1,
        penalty=L2Penalty(l2),
        n_rows=X.shape[0],
        dtype=X.dtype,
        is_sparse=scipy.sparse.issparse(X),
    )
    with ThreadsEngine(dataset, 2) as engine:
        return solver.solve(
            problem, lambda statistic: engine.reduce(statistic).result, lambda _: None, store
        )


def needed_nbytes(X: Rows, y: np.ndarray, k: int | None) -> int:
    """Return the memory of a fit on one thread, planned."""
    plan = streamreg.plan(X, y, solver="cg", precondition=k, n_threads=1, memory_limit="64 GiB")
    return plan.candidates["cg"].needed_nbytes


def most_directions(X: Rows, y: np.ndarray) -> int:
    """Return what ``"auto"`` chooses where there is memory for it; none of few columns."""
    plan = streamreg.plan(X, y, solver="cg", n_threads=2, memory_limit="2 GiB")
    return plan.candidates["cg"].n_directions


def run(name: str, case: Case, *, quick: bool) -> list[dict[str, Any]]:
    """Return the figures of all preconditioners of a case."""
    n, d = case.quick if quick else case.shape
    X, rng = case.make(n, d), np.random.default_rng(1)
    y = X @ rng.standard_normal(d)
    y = y + rng.standard_normal(n) * np.std(y)
    l2 = case.alpha / n
    best = solve(X, y, l2, ConjugateGradient(tol=1e-12, precondition=256), IterateStore())
    weights = best.coefficients[:, 0]
    expected, plain = X @ weights + best.intercept[0], needed_nbytes(X, y, None)
    rows = []
    for given in case.directions:
        adapts = given == "auto"
        k = most_directions(X, y) if adapts else given or 0
        solver = ConjugateGradient(
            tol=1e-10, max_epochs=_MOST_EPOCHS, precondition=k, adapts=adapts
        )
        store = Errors(X, expected)
        is_right = False
        try:
            solve(X, y, l2, solver, store)
        except ReachedError:
            is_right = True
        rows.append(
            {
                "case": name,
                "N": n,
                "D": d,
                "precondition": given or "none",
                "k": k,
                "epochs to 1e-6": store.n_epochs if is_right else "-",
                "seconds": store.seconds,
                "kept MiB": 8 * k * (k if scipy.sparse.issparse(X) else d + 1) / 2**20,
                "peak MiB": (needed_nbytes(X, y, k or None) - plain) / 2**20,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Run the first three cases, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data, and nothing is written")
    parser.add_argument("cases", nargs="*", default=_DEFAULT, metavar="CASE", help=", ".join(CASES))
    given = parser.parse_args()
    warnings.simplefilter("ignore", DataWarning)
    rows = [row for name in given.cases for row in run(name, CASES[name], quick=given.quick)]
    keep("precondition", rows, quick=given.quick or {*given.cases} != {*_DEFAULT})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
