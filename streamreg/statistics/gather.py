"""Read rows once, into statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.errors import InputError, Parameter, Remedy
from streamreg.fitting.backends import backend_of
from streamreg.fitting.refusals import explain_refused_memory, require_rows
from streamreg.machine import PeakMemory
from streamreg.planning.gathering import plan_gathering
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.solvers.base import Problem
from streamreg.solvers.registry import SOLVER_OF_KIND
from streamreg.solvers.sums import reduce_sums
from streamreg.statistics.about import About, Piece
from streamreg.statistics.gathered import Gathered

if TYPE_CHECKING:
    from streamreg.accumulators.base import Accumulator, Scaling
    from streamreg.config.fit_config import FitConfig
    from streamreg.engines.base import PartialResult
    from streamreg.planning.backend import Backend
    from streamreg.planning.plan import Plan
    from streamreg.sources.dataset import Dataset


class Outcome(NamedTuple):
    """The outcome of reading rows."""

    gathered: Gathered
    plan: Plan
    peak_nbytes: int  # memory that it added to the process, measured
    warnings: list[str]


def plan_gather(
    dataset: Dataset, config: FitConfig, kind: str, backend: Backend | None = None
) -> Plan:
    """Plan the pass; reads metadata only."""
    if dataset.y is None:
        raise InputError("statistics need y")
    if dataset.groups is not None:
        raise InputError(Parameter("groups"), " are not kept in statistics: leave them out")
    backend = backend or backend_of(config)
    backend.require_readable(dataset)
    solver = SOLVER_OF_KIND[kind]()
    if not backend.runs(solver):
        raise InputError(
            Parameter("kind", kind),
            " has no kernels for ",
            Parameter("device", config.device),
            ": pass ",
            Remedy("device", "cpu"),
        )
    return plan_gathering(dataset, backend, solver)


def gather(
    dataset: Dataset, config: FitConfig, kind: str, progress: Progress = NO_PROGRESS
) -> Outcome:
    """Read a data set once; again, with scaling, if squares leave float64's range.

    Raises
    ------
    MemoryLimitError
        The plan does not fit; no data was read. Or the system refused memory that it allows.
    InputError, DataCorruptionError
        As the engine raises them.
    """
    backend = backend_of(config)
    with PeakMemory() as peak:
        plan = plan_gather(dataset, config, kind, backend)
        candidate = plan.require_fit()
        partials: dict[type[Any], PartialResult] = {}
        try:
            with (
                explain_refused_memory(plan, candidate),
                backend.open(dataset, candidate, progress.rows) as engine,
            ):

                def reduce(accumulator: Accumulator[Any, Any]) -> Any:  # noqa: ANN401
                    progress.begin_pass(dataset.n_rows)
                    # the state of an earlier pass is freed first
                    partials.pop(type(accumulator), None)
                    partial = engine.accumulate(accumulator)
                    require_rows(dataset, partial, engine.n_omitted)
                    partials[type(accumulator)] = partial
                    return accumulator.finalize(partial.state)

                problem = Problem(
                    dataset.n_features,
                    dataset.n_targets,
                    feature_names=dataset.feature_names,
                    is_sparse=dataset.X.is_sparse,
                )
                statistic = SOLVER_OF_KIND[kind].statistic
                with np.errstate(all="ignore"):
                    sums = reduce_sums(statistic, problem, reduce)
                # a file that changed after its last read is noticed here
                dataset.require_unchanged()
        finally:
            progress.close()
        gathered = _gathered(dataset, kind, partials[statistic], sums.units)
    return Outcome(
        gathered,
        plan,
        peak.added_nbytes,
        [*sums.warnings, *engine.rounding_warnings(), *engine.omission_warnings()],
    )


def _gathered(dataset: Dataset, kind: str, partial: PartialResult, units: Scaling) -> Gathered:
    about = About(
        kind=kind,
        n_features=dataset.n_features,
        n_targets=dataset.n_targets,
        has_one_target=dataset.has_one_target,
        n_counted=partial.n_rows,
        weight_sum=partial.weight_sum,
        log_weight_sum=partial.log_weight_sum,
        n_omitted=partial.n_omitted,
        is_weighted=dataset.weight is not None,
        pieces=(Piece(dataset.X.name, dataset.n_rows),),
        feature_names=dataset.feature_names,
        target_names=dataset.target_names,
        schema=dataset.schema,
    )
    return Gathered(about, partial.state, units)
