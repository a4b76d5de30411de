"""A fit of statistics: no row is read."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from streamreg.engines.blas import blas_threads_of_solver
from streamreg.engines.fold_scan import GCV
from streamreg.errors import InputError, Parameter, Remedy
from streamreg.fitting.coefficients_out import begin_weights, finish_weights
from streamreg.fitting.refusals import explain_refused_memory
from streamreg.fitting.requests import given_penalties, selection_request
from streamreg.fitting.result import Fit
from streamreg.inference.request import InferenceRequest
from streamreg.inference.result import NONROBUST
from streamreg.machine import PeakMemory, memory_limit_or_default
from streamreg.planning.gathering import plan_solving
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.solvers.base import Problem
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.penalty_search import PenaltySearch
from streamreg.solvers.registry import AUTO, SOLVER_OF_KIND

if TYPE_CHECKING:
    from streamreg.config.fit_config import FitConfig
    from streamreg.planning.plan import Plan
    from streamreg.solvers.factor_solver import FactorSolver
    from streamreg.statistics.about import About
    from streamreg.statistics.gathered import Gathered


class Takeable(Protocol):
    """Statistics in memory or in a file."""

    @property
    def about(self) -> About:
        """What they are of."""

    def take(self) -> Gathered:
        """Return statistics whose state the caller may overwrite."""


def kind_for(config: FitConfig) -> str:
    """Return the kind of statistics that these parameters take; refuse what needs the rows."""
    kinds = [
        kind for kind, solver in SOLVER_OF_KIND.items() if config.solver in {AUTO, solver.name}
    ]
    if not kinds:
        solvers = [Remedy("solver", solver.name) for solver in SOLVER_OF_KIND.values()]
        raise InputError(
            Parameter("solver", config.solver),
            " takes no statistics: pass ",
            solvers[0],
            " or ",
            solvers[1],
            ", or fit all rows at once",
        )
    _request(config)
    return kinds[0]


def plan_gathered(about: About, config: FitConfig) -> Plan:
    """Plan a fit of statistics: the state that the solver overwrites, and the solver."""
    return plan_solving(
        Problem(about.n_features, about.n_targets),
        about.n_rows,
        memory_limit_or_default(config.memory_limit),
        _solver_of(about, config),
        writes=config.coef_out is not None,
    )


def fit_gathered(statistics: Takeable, config: FitConfig, progress: Progress = NO_PROGRESS) -> Fit:
    """Fit statistics.

    Raises
    ------
    MemoryLimitError
        The plan does not fit, or the system refused memory that it allows.
    InputError
        These statistics, or statistics at all, do not give what the parameters ask for.
    """
    about = statistics.about
    with PeakMemory() as peak, ExitStack() as stack:
        plan = plan_gathered(about, config)
        selects = config.cv is not None or config.l2_of_targets is not None
        candidate, solver = plan.require_fit(), _solver_of(about, config)
        store = begin_weights(config.coef_out, about, stack)
        problem = Problem(
            about.n_features,
            about.n_targets,
            fit_intercept=config.fit_intercept,
            penalty=solver.penalty(config.l2),
            feature_names=about.feature_names,
        )
        try:
            with (
                explain_refused_memory(plan, candidate),
                blas_threads_of_solver(about.n_features),
            ):
                sums = statistics.take().sums(
                    fit_intercept=config.fit_intercept, in_user_units=selects
                )
                solution = solver.solve_sums(problem, sums, progress.epoch)
        finally:
            progress.close()
        if solution.inference is not None:
            inference = replace(
                solution.inference,
                log_weight_sum=about.log_weight_sum,
                is_weighted=about.is_weighted,
            )
            solution = replace(solution, inference=inference)
        solution, stored = finish_weights(store, solution)
    return Fit(
        solution,
        solver.name,
        plan,
        candidate.peak_nbytes,
        peak.added_nbytes,
        about.n_omitted,
        solution.warnings,
        None,
        stored,
    )


def _solver_of(about: About, config: FitConfig) -> FactorSolver | PenaltySearch:
    """Return the solver of these statistics; refuse what needs the rows."""
    solver = about.solver
    if config.cv is not None:
        return _search_of(about, config)
    if config.l2_of_targets is not None:
        if solver is not ClosedForm:
            raise InputError(
                Parameter("l2"),
                f" has a penalty for each target, and these statistics are of kind {about.kind!r}: "
                "gather them with ",
                Remedy("kind", ClosedForm.statistic.kind),
            )
        return PenaltySearch(given_penalties(config, about))
    if config.solver not in {AUTO, solver.name}:
        raise InputError(
            Parameter("solver", config.solver),
            f" does not take statistics of kind {about.kind!r}: pass ",
            Remedy("solver", solver.name),
            ", or fit the data",
        )
    return solver(_request(config))


def _search_of(about: About, config: FitConfig) -> PenaltySearch:
    """Return the choice of a penalty by GCV; refuse folds, which need the rows."""
    _request(config)
    if config.cv != GCV:
        raise InputError(
            Parameter("cv"),
            " divides rows into folds, and statistics keep one sum of all rows: pass ",
            Remedy("cv", GCV),
            ", or fit the data",
        )
    if about.solver is not ClosedForm:
        raise InputError(
            Parameter("cv", GCV),
            f" compares penalties by XᵀX, and these statistics are of kind {about.kind!r}: gather "
            "them with ",
            Remedy("kind", ClosedForm.statistic.kind),
        )
    return PenaltySearch(selection_request(config))


def _request(config: FitConfig) -> InferenceRequest | None:
    """Return the standard errors that are asked for; refuse what needs the rows."""
    for name in ("checkpoint", "inference_for"):
        if getattr(config, name) is not None:
            raise InputError(
                Parameter(name), " is of passes, and statistics need none; leave it out"
            )
    if config.cov_type is None:
        return None
    if config.cov_type != NONROBUST:
        raise InputError(
            Parameter("cov_type", config.cov_type),
            " needs the residual of each row, and statistics keep no rows: fit the data, or pass ",
            Remedy("cov_type", NONROBUST),
        )
    return InferenceRequest(config.cov_type)
