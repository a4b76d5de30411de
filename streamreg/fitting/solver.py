"""The solver of a fit, with the parameters of the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamreg.fitting.requests import given_penalties
from streamreg.solvers.dual import Dual
from streamreg.solvers.dual_search import DualSearch
from streamreg.solvers.penalty_search import PenaltySearch
from streamreg.solvers.registry import SOLVERS, SolverSettings

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.config.fit_config import FitConfig
    from streamreg.inference.request import InferenceRequest
    from streamreg.output.coefficient_store import CoefficientStore
    from streamreg.planning.terms import Candidate
    from streamreg.solvers.base import Solver
    from streamreg.solvers.selection import SelectionRequest


def build_solver(
    config: FitConfig,
    name: str,
    init: Float64 | None = None,
    inference: InferenceRequest | None = None,
    selection: SelectionRequest | None = None,
) -> Solver:
    """Return the solver of that name with these parameters; ``init`` is w (D, K)."""
    writes = config.coef_out is not None
    if config.l2_of_targets is not None:
        selection = given_penalties(config)
    if selection is not None:
        if name == Dual.name:
            return DualSearch(request=selection)
        return PenaltySearch(selection, writes=writes)
    settings = SolverSettings(
        config.standardize,
        config.learning_rate,
        config.max_epochs,
        config.tol,
        init,
        inference,
        None if config.device == "cuda" else config.precondition,
        writes,
    )
    return SOLVERS[name](settings)


def prepared(solver: Solver, candidate: Candidate, store: CoefficientStore | None) -> Solver:
    """Return the solver with the panels and directions of its plan, and where it writes."""
    solver = solver.with_panels(candidate.n_panels)
    if candidate.n_directions:
        solver = solver.with_directions(candidate.n_directions)
    return solver if store is None else solver.writing_to(store)
