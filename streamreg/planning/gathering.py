"""Plans of statistics: of the pass that gathers them, and of a solver that takes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from streamreg.formatting import format_nbytes
from streamreg.planning.backend import Request
from streamreg.planning.memory_model import (
    HOST_RATES,
    candidate_for,
    process_term,
    writer_term,
)
from streamreg.planning.plan import Plan
from streamreg.planning.rechunking import rechunking_advice
from streamreg.planning.row_costs import RowCosts
from streamreg.planning.terms import Candidate, Term, largest, peak
from streamreg.solvers.base import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.planning.backend import Backend
    from streamreg.solvers.base import Footprint
    from streamreg.solvers.factor_solver import FactorSolver
    from streamreg.solvers.penalty_search import PenaltySearch
    from streamreg.sources.dataset import Dataset

# vectors beside the state: means, units, and what is known of columns
_VECTORS = 16


@dataclass(frozen=True)
class Gathering:
    """The passes that gather statistics, as work of a plan."""

    solver: FactorSolver

    name: ClassVar[str] = "statistics"
    summary: ClassVar[str] = "one pass"

    @property
    def objective(self) -> str:
        """Nothing is minimised yet."""
        return self.name

    def panel_counts(self, problem: Problem) -> Iterable[int]:
        """Return 1: the state is computed in one pass."""
        del problem
        return (1,)

    def with_panels(self, n_panels: int) -> Gathering:
        """Return the same work."""
        del n_panels
        return self

    def direction_counts(self, problem: Problem) -> Iterable[int]:
        """Return none."""
        del problem
        return ()

    def with_directions(self, n_directions: int) -> Gathering:
        """Return the same work."""
        del n_directions
        return self

    def targets_of_pass(self, problem: Problem) -> int:
        """Return K."""
        return problem.n_targets

    def footprint(self, problem: Problem) -> Footprint:
        """Return the passes of the solver before its first solution."""
        whole = self.solver.footprint(problem)
        # of many targets, squares outside float64 are refused, so that no pass scales them
        return whole._replace(
            passes=whole.passes[:2],
            solver_nbytes=8 * _VECTORS * (problem.n_features + problem.n_targets),
            n_passes=1,
            solve_flops=0.0,
            is_exact=True,
        )


def plan_gathering(dataset: Dataset, backend: Backend, solver: FactorSolver) -> Plan:
    """Plan the pass that gathers what a solver takes; reads metadata only."""
    problem = Problem(dataset.n_features, dataset.n_targets, is_sparse=dataset.X.is_sparse)
    work = Gathering(solver)

    def candidate(dataset: Dataset = dataset) -> Candidate:
        costs = RowCosts.of(dataset, backend.policy)
        return candidate_for(Request(dataset, costs, problem, work), backend)

    return Plan(
        chosen=work.name,
        memory_limit=backend.memory_limit,
        candidates={work.name: candidate()},
        n_rows=dataset.n_rows,
        n_features=problem.n_features,
        n_targets=problem.n_targets,
        advice=rechunking_advice(dataset, backend.memory_limit, lambda rows: [candidate(rows)]),
        worker_nbytes=backend.worker_nbytes,
    )


def plan_solving(
    problem: Problem,
    n_rows: int,
    memory_limit: int,
    solver: FactorSolver | PenaltySearch,
    *,
    writes: bool = False,
) -> Plan:
    """Plan a fit of statistics: one state, which the solver overwrites, and what it adds."""
    footprint = solver.footprint(problem)
    state = footprint.passes[0]
    d, k = problem.n_features, problem.n_targets
    terms = (
        Term(state.what, state.state_nbytes, f"{state.why}, which the solver overwrites"),
        Term("vectors", footprint.solver_nbytes, f"of the solver, {d:,} × {k:,} each"),  # noqa: RUF001
        *(Term(*other) for other in footprint.others),
        *([writer_term(problem)] if writes else []),
        process_term(1, in_memory=True),
    )
    fits = peak(terms) <= memory_limit
    most = largest(terms)
    candidate = Candidate(
        solver=solver.name,
        objective=solver.objective,
        state_nbytes=state.state_nbytes,
        needed_nbytes=peak(terms),
        cache_nbytes=0,
        bytes_per_pass=0,
        passes=0,
        is_exact=True,
        seconds=footprint.solve_flops / HOST_RATES.flops,
        cost=footprint.solve_flops / HOST_RATES.flops,
        fits=fits,
        reason="no pass" if fits else f"{most.what} {format_nbytes(most.nbytes)}",
        terms=terms,
        n_threads=1,
        kernels="",
        uses_blas=True,
    )
    return Plan(
        chosen=solver.name,
        memory_limit=memory_limit,
        candidates={solver.name: candidate},
        n_rows=n_rows,
        n_features=d,
        n_targets=k,
    )
