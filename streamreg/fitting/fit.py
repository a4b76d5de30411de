"""A fit: data set + configuration → plan → backend → solver → solution."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from streamreg import __version__
from streamreg.checkpoint.checkpoint import Checkpoint
from streamreg.engines.fold_scan import folded
from streamreg.engines.group_scan import scan_groups
from streamreg.errors import InputError, Parameter, Remedy
from streamreg.fitting.backends import backend_of
from streamreg.fitting.coefficients_out import begin_weights, finish_weights
from streamreg.fitting.initial_weights import initial_weights
from streamreg.fitting.plan import plan_fit, require_fit
from streamreg.fitting.refusals import explain_refused_memory
from streamreg.fitting.requests import inference_request, selection_request
from streamreg.fitting.result import Fit
from streamreg.fitting.run import Run
from streamreg.fitting.solver import build_solver, prepared
from streamreg.inference.result import CLUSTER
from streamreg.machine import PeakMemory, memory_limit_or_default
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.signals import sigterm_as_exit
from streamreg.solvers.registry import AUTO

if TYPE_CHECKING:
    from streamreg.config.fit_config import FitConfig
    from streamreg.inference.groups import Groups
    from streamreg.sources.dataset import Dataset


def fit_dataset(dataset: Dataset, config: FitConfig, progress: Progress = NO_PROGRESS) -> Fit:
    """Fit a data set.

    Raises
    ------
    MemoryLimitError
        The plan does not fit; no more than groups were read. Or the system refused memory that the
        plan allows.
    InputError, DataCorruptionError, DivergenceError
        As the engine and the solver raise them.
    """
    if dataset.y is None:
        raise InputError("a fit needs y")
    backend = backend_of(config)
    with PeakMemory() as peak, ExitStack() as stack:
        groups = _groups(dataset, config)
        rows = selection = None
        if config.cv is not None:
            rows = folded(dataset, config.cv, memory_limit_or_default(config.memory_limit))
            dataset, selection = rows.dataset, selection_request(config, rows)
        plan = plan_fit(dataset, config, backend, groups, rows)
        solver_named = partial(
            build_solver,
            config,
            inference=inference_request(config, dataset, groups),
            selection=selection,
        )
        candidate = require_fit(plan, dataset, config, backend)
        stack.enter_context(explain_refused_memory(plan, candidate))
        store = begin_weights(config.coef_out, dataset, stack, dataset.local_paths)
        init = initial_weights(config, dataset.n_features, dataset.n_targets)
        solver = prepared(solver_named(plan.chosen, init), candidate, store)
        # other kernels, or another partition, would change the last bits of the result
        identity = {
            "streamreg": __version__,
            "parameters": {**solver.identity(), **config.identity()},
            "kernels": candidate.kernels,
            "partition": backend.policy.identity(),
        }
        checkpoint = None
        if config.checkpoint is not None:
            stack.enter_context(sigterm_as_exit())
            checkpoint = stack.enter_context(Checkpoint(config.checkpoint, identity, dataset))
        stack.callback(progress.close)
        run = Run(dataset, config, backend, progress, checkpoint)
        solution, engine = run.solve(solver, candidate)
        planned_nbytes = candidate.peak_nbytes
        successor = plan.candidates.get(solver.more_digits or "")
        is_short = config.solver == AUTO and not solution.status.converged
        if is_short and successor is not None and successor.fits:
            solver = prepared(solver_named(successor.solver), successor, store)
            with explain_refused_memory(plan, successor):
                more, engine = run.solve(solver, successor, epochs_before=solution.n_epochs)
            planned_nbytes = max(planned_nbytes, successor.peak_nbytes)
            solution = solution.followed_by(more)
        # a file that changed after its last read is noticed here
        dataset.require_unchanged()
        solution, stored = finish_weights(store, solution)
    return Fit(
        solution,
        solver.name,
        plan,
        planned_nbytes,
        peak.added_nbytes,
        engine.n_omitted,
        [*solution.warnings, *engine.rounding_warnings(), *engine.omission_warnings()],
        None if checkpoint is None else checkpoint.error_if_unsaved(),
        stored,
    )


def _groups(dataset: Dataset, config: FitConfig) -> Groups | None:
    """Read the groups alone, if there are any, to learn how their rows are stored."""
    if config.cv is not None:
        return None
    if (dataset.groups is not None) != (config.cov_type == CLUSTER):
        cluster = Remedy("cov_type", CLUSTER)
        if dataset.groups is None:
            raise InputError(
                Parameter("cov_type", CLUSTER),
                " needs ",
                Remedy("groups"),
                ": the group of each row",
            )
        raise InputError(
            Parameter("groups"),
            " are used by ",
            cluster,
            " only, and for folds: pass that too, or leave them out",
        )
    if dataset.groups is None:
        return None
    return scan_groups(dataset.groups, memory_limit_or_default(config.memory_limit))
