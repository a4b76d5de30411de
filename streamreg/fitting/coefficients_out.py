"""The Zarr array that ``coef_out`` names: weights of many targets on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from streamreg.errors import InputError, Parameter
from streamreg.output.coefficient_store import CoefficientStore
from streamreg.signals import sigterm_as_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from streamreg.fitting.result import Described
    from streamreg.output.stored_coefficients import StoredCoefficients
    from streamreg.solvers.base import Solution


def begin_weights(
    path: str | None,
    rows: Described,
    stack: ExitStack,
    inputs: Callable[[], Sequence[Path]] = list,
) -> CoefficientStore | None:
    """Begin the array of the weights, if there is a path; it is removed if the fit fails.

    ``inputs`` are files of the rows, which it must not overwrite.
    """
    if path is None:
        return None
    if rows.has_one_target:
        raise InputError(
            Parameter("coef_out"), " takes the weights of several targets, y (N, K): leave it out"
        )
    if Path(path).exists():
        raise InputError(
            Parameter("coef_out", path), " exists; choose another name, or remove it first"
        )
    stack.enter_context(sigterm_as_exit())
    store = CoefficientStore.create(path, rows.n_targets, rows.n_features, inputs=inputs())
    return stack.enter_context(store)


def finish_weights(
    store: CoefficientStore | None, solution: Solution
) -> tuple[Solution, StoredCoefficients | None]:
    """Write the weights that the solver did not; return the solution without those in memory."""
    if store is None:
        return solution, None
    if solution.coefficients is not None:
        rows, step = solution.coefficients.T, store.chunk_targets
        for first in range(0, len(rows), step):
            store.write(first, rows[first : first + step])
    return replace(solution, coefficients=None), store.finish()
