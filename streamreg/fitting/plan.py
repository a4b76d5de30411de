"""The plan of a fit: its parameters are checked against the data, from metadata alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from streamreg.engines.fold_scan import GCV, FoldedRows, n_folds_of
from streamreg.errors import InputError, MemoryLimitError, Message, Parameter, Part, Remedy
from streamreg.fitting.backends import backend_of
from streamreg.fitting.requests import given_penalties, inference_request, selection_request
from streamreg.fitting.solver import build_solver
from streamreg.formatting import format_nbytes
from streamreg.inference.result import CHOSEN_TYPES
from streamreg.planning.memory_model import make_plan
from streamreg.solvers.base import LEAST_SQUARES
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.dual import Dual
from streamreg.solvers.registry import AUTO

if TYPE_CHECKING:
    from streamreg.config.fit_config import FitConfig
    from streamreg.inference.groups import Groups
    from streamreg.planning.backend import Backend
    from streamreg.planning.plan import Plan
    from streamreg.planning.terms import Candidate
    from streamreg.solvers.selection import SelectionRequest
    from streamreg.sources.dataset import Dataset

# numbers of folds that a refusal offers, if more do not fit
_FEWER_FOLDS = (3, 2)


def plan_fit(
    dataset: Dataset,
    config: FitConfig,
    backend: Backend | None = None,
    groups: Groups | None = None,
    rows: FoldedRows | None = None,
) -> Plan:
    """Plan a fit; reads metadata only. On a cluster the plan is of each worker.

    Rows of equal groups are taken to be consecutive, if the groups are not known.
    """
    if dataset.X.is_sparse:
        _require_sparse_fit(dataset, config)
    backend = backend or backend_of(config)
    backend.require_readable(dataset)
    if config.cv is not None or config.l2_of_targets is not None:
        return _plan_selection(dataset, config, backend, rows)
    inference = inference_request(config, dataset, groups)
    solver_named = partial(build_solver, config, inference=inference)
    if config.solver != AUTO and inference is not None and not solver_named(config.solver).infers:
        without: list[Part] = []
        if solver_named(config.solver, inference=replace(inference, columns=(0,))).infers:
            without = [" without ", Parameter("inference_for")]
        raise InputError(
            Parameter("solver", config.solver),
            " gives no standard errors of ",
            Parameter("cov_type", config.cov_type),
            *without,
            ": pass ",
            Remedy("solver", "qr"),
            " or ",
            Remedy("solver", "closed_form"),
        )
    if config.solver != AUTO and not backend.runs(build_solver(config, config.solver)):
        _require_passes_of_workers(config, other="cg")
        raise InputError(
            Parameter("solver", config.solver),
            " has no kernels for ",
            Parameter("device", config.device),
            ": pass ",
            Remedy("device", "cpu"),
        )
    plan = make_plan(
        dataset,
        backend,
        config.solver,
        solver_named,
        saves=config.checkpoint is not None,
        infers=inference is not None,
        writes=config.coef_out is not None,
    )
    if groups is not None:
        plan = replace(plan, was_read="only groups were read")
    if groups is not None and groups.numbers is not None:
        plan = replace(plan, advice="sort the rows by groups, whose sums then take no memory")
    objective = plan.candidates[plan.chosen].objective
    if config.l2 and objective != LEAST_SQUARES:
        raise InputError(
            Parameter("l2", config.l2),
            " has no effect with ",
            Parameter("solver", plan.chosen),
            f", which minimises {objective}; leave it out",
        )
    return plan


def _require_sparse_fit(dataset: Dataset, config: FitConfig) -> None:
    """Refuse what is not computed from sparse rows."""
    sparse = f"{dataset.X.name} is sparse, "
    if config.device != "cpu":
        raise InputError(sparse, "which a GPU does not read: pass ", Remedy("device", "cpu"))
    if config.solver != AUTO and not build_solver(config, config.solver).reads_sparse:
        raise InputError(
            sparse,
            "which ",
            Parameter("solver", config.solver),
            " does not read: pass ",
            Remedy("solver", "cg"),
        )


def _require_passes_of_workers(config: FitConfig, other: str) -> None:
    """Refuse a solver that no workers can run, with another one as a remedy."""
    if config.client is not None and not build_solver(config, config.solver).runs_on_cluster:
        raise InputError(
            Parameter("solver", config.solver),
            " has no passes that workers can share: leave out ",
            Remedy("client"),
            ", or pass ",
            Remedy("solver", other),
        )


def _plan_selection(
    dataset: Dataset, config: FitConfig, backend: Backend, rows: FoldedRows | None
) -> Plan:
    """Plan a fit that chooses its penalty; a refusal offers fewer folds, GCV, or one penalty."""
    if config.solver != AUTO:
        _require_passes_of_workers(config, other=ClosedForm.name)
    if config.l2_of_targets is not None:
        selection = given_penalties(config, dataset)
        return _planned_search(dataset, config, backend, selection)
    was_read = rows is not None and rows.have_groups
    if rows is None:
        # numbers of folds that groups determine are known once the groups are read
        n_folds = n_folds_of(config.cv, dataset.n_rows)
        have_groups = dataset.groups is not None
        alternate = have_groups or not isinstance(config.cv, str | int)
        rows = FoldedRows(dataset, n_folds, alternate, have_groups)
    selection = selection_request(config, rows)

    planned = partial(_planned_search, dataset, config, backend)
    plan = planned(selection)
    if plan.candidates[plan.chosen].fits:
        return plan
    remedies = []
    for n_folds in (*_FEWER_FOLDS, 1):
        needs_folds = config.one_standard_error or rows.have_groups
        if n_folds >= selection.n_folds or (n_folds == 1 and needs_folds):
            continue
        with_fewer = planned(replace(selection, n_folds=n_folds))
        fewer = with_fewer.candidates[with_fewer.chosen]
        if fewer.fits:
            cost = format_nbytes(fewer.needed_nbytes, up=True)
            cv = Remedy("cv", n_folds if n_folds > 1 else GCV, cost=cost)
            remedies.append(Message("use ", cv))
    one = replace(config, cv=None, l2s=None, l2=1.0, l2_per_target=False, one_standard_error=False)
    plain = replace(dataset, groups=None)
    cg = plan_fit(plain, replace(one, solver="cg"), backend).candidates["cg"]
    if cg.fits:
        cost = f"{format_nbytes(cg.needed_nbytes, up=True)}, about {cg.passes:,} passes"
        solver = Remedy("solver", "cg", cost=cost)
        remedies.append(Message("fit one penalty, without ", Parameter("cv"), ", by ", solver))
    read = "only groups were read" if was_read else plan.was_read
    return replace(plan, remedies=tuple(remedies), was_read=read)


def _planned_search(
    dataset: Dataset, config: FitConfig, backend: Backend, selection: SelectionRequest
) -> Plan:
    """Plan a fit with several penalties."""
    names = [ClosedForm.name]
    is_gcv = not selection.cross_validates and selection.given is None
    if is_gcv and backend.runs(Dual()):
        names.append(Dual.name)
    # folds are compared by XᵀX
    return make_plan(
        dataset,
        backend,
        config.solver if len(names) > 1 else ClosedForm.name,
        partial(build_solver, config, selection=selection),
        saves=config.checkpoint is not None,
        names=names,
        writes=config.coef_out is not None,
    )


def _with_weights_written(plan: Plan, dataset: Dataset, config: FitConfig) -> Plan:
    """Offer ``coef_out`` beside other remedies, if targets in batches fit."""
    is_possible = (
        not dataset.has_one_target
        and config.coef_out is None
        and config.checkpoint is None
        and config.client is None
        and config.cov_type is None
        and config.device == "cpu"
    )
    if not is_possible or plan.candidates[plan.chosen].fits:
        return plan
    written = plan_fit(dataset, replace(config, coef_out="w.zarr")).candidates.get(plan.chosen)
    if written is None or not written.fits:
        return plan
    passes = "1 pass" if written.passes == 1 else f"{written.passes:,} passes"
    cost = f"{format_nbytes(written.needed_nbytes, up=True)}, {passes}"
    remedy = Message("write the weights by ", Remedy("coef_out", "w.zarr", cost=cost))
    return replace(plan, remedies=(*plan.remedies, remedy))


def require_fit(plan: Plan, dataset: Dataset, config: FitConfig, backend: Backend) -> Candidate:
    """Return the chosen candidate; a refusal also offers chosen standard errors, if those fit."""
    plan = _with_weights_written(plan, dataset, config)
    try:
        return plan.require_fit()
    except MemoryLimitError as error:
        if config.cov_type not in CHOSEN_TYPES or config.inference_for is not None:
            raise
        cg = replace(config, solver="cg", inference_for=(0,), checkpoint=None)
        if not plan_fit(dataset, cg, backend).candidates["cg"].fits:
            raise
        raise MemoryLimitError(
            error.args[0],
            "\n  Or choose the standard errors that you need, which ",
            Parameter("solver", "cg"),
            " works out in O(D) memory: pass ",
            Remedy("inference_for"),
            ".",
        ) from None
