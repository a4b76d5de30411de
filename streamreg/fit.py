"""A fit: data set + configuration → plan → backend → solver → solution."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from streamreg import __version__
from streamreg.checkpoint.checkpoint import Checkpoint
from streamreg.config import FitConfig, memory_limit_or_default
from streamreg.engines.blas import blas_threads_of_solver
from streamreg.engines.fold_scan import GCV, FoldedRows, folded, n_folds_of
from streamreg.engines.group_scan import scan_groups
from streamreg.engines.partition import HOST
from streamreg.engines.threads import ThreadsEngine, ThreadsReducer
from streamreg.errors import InputError, MemoryLimitError, Message, Parameter, Part, Remedy
from streamreg.formatting import format_nbytes
from streamreg.inference.result import CHOSEN_TYPES, CLUSTER
from streamreg.machine import PeakMemory, available_nbytes, usable_cpus
from streamreg.model import Model
from streamreg.planning.backend import Backend
from streamreg.planning.memory_model import HOST_RATES, make_plan, threads_needs
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.signals import sigterm_as_exit
from streamreg.solvers.base import LEAST_SQUARES, NO_ITERATE_STORE, Problem, Solution
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.registry import AUTO
from streamreg.sources.checks import block_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Float64
    from streamreg.engines.base import Engine, PartialResult, Reduction, SegmentReducer
    from streamreg.errors import CheckpointError
    from streamreg.inference.groups import Groups
    from streamreg.planning.backend import OnRows, Request
    from streamreg.planning.plan import Plan
    from streamreg.planning.terms import Candidate, Needs
    from streamreg.schema import Schema
    from streamreg.solvers.base import EpochRecord, Reduce, Solver
    from streamreg.solvers.selection import Selection, SelectionRequest
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")

_LARGEST_WEIGHT_SUM = 1e120
# scores of penalties that a model file holds
_MOST_SCORES_KEPT = 100_000
# numbers of folds that a refusal offers, if more do not fit
_FEWER_FOLDS = (3, 2)


class Described(Protocol):
    """What a model keeps of the data that were fitted."""

    @property
    def n_rows(self) -> int:
        """N, with rows that were left out."""

    @property
    def n_targets(self) -> int:
        """K."""

    @property
    def has_one_target(self) -> bool:
        """Whether y was (N,)."""

    @property
    def feature_names(self) -> tuple[str, ...] | None:
        """(D,)."""

    @property
    def target_names(self) -> tuple[str, ...] | None:
        """(K,)."""

    @property
    def schema(self) -> Schema | None:
        """How X was made of the columns of a table."""


@dataclass(frozen=True, eq=False)
class Fit:
    """The outcome of a fit."""

    solution: Solution
    solver: str  # that found the solution: the plan's, or one with more digits after it
    plan: Plan
    planned_nbytes: int  # the planned peak: the larger one, if two solvers ran
    peak_nbytes: int  # memory that the fit added to the process, measured
    n_omitted: int  # rows left out for NaN or inf
    warnings: list[str]
    checkpoint_error: CheckpointError | None  # set if nothing could be saved to the checkpoint

    def model(self, dataset: Described) -> Model:
        """Return the weights with the names of the data that were fitted."""
        solution = self.solution
        return Model(
            np.ascontiguousarray(solution.coefficients.T),
            solution.intercept,
            dataset.has_one_target,
            dataset.feature_names,
            dataset.target_names,
            schema=dataset.schema,
            details={
                "solver": self.solver,
                "status": str(solution.status.value),
                "converged": solution.status.converged,
                "n_iter": solution.n_epochs,
                "loss_history": solution.loss_history,
                "n_rows": dataset.n_rows - self.n_omitted,
                "rows_omitted": self.n_omitted,
                "peak_memory": self.peak_nbytes,
                "planned_peak": self.planned_nbytes,
                "memory_limit": self.plan.memory_limit,
                "warnings": [str(warning) for warning in self.warnings],
                "digits": _rows(solution.digits, one_target=dataset.has_one_target),
                "condition": solution.condition,
                **_selected(solution.selection, one_target=dataset.has_one_target),
            },
            inference=solution.inference,
        )


def _selected(selection: Selection | None, *, one_target: bool) -> dict[str, Any]:
    """Return what a file says of the choice of a penalty."""
    if selection is None:
        return {}
    l2 = selection.l2
    scores = selection.scores[:, :, 0] if one_target else selection.scores
    return {
        "l2": l2.tolist() if selection.is_per_target else float(l2[0]),
        "l2s": selection.l2s.tolist(),
        "cv_scores": scores.tolist() if scores.size <= _MOST_SCORES_KEPT else None,
        "best_score": (
            selection.best_score.tolist()
            if selection.is_per_target
            else float(selection.best_score.mean())
        ),
    }


def _rows(digits: Float64 | None, *, one_target: bool) -> list[Any] | None:
    """Return digits of coefficients, (D, K), in the shape of ``coef_``."""
    if digits is None:
        return None
    rows: list[Any] = digits.T.tolist()
    return rows[0] if one_target else rows


@dataclass
class ThreadsBackend(Backend):
    """Threads of this process, or of a cluster's workers."""

    memory_limit: int
    n_threads: int
    policy = HOST
    rates = HOST_RATES

    def require_readable(self, dataset: Dataset) -> None:
        dataset.require_on_host(
            Message("pass ", Remedy("device", "cuda"), " to compute on the GPU, or ")
        )

    def needs(self, request: Request, n_threads: int) -> Needs:
        return threads_needs(request, n_threads)

    def open(self, dataset: Dataset, candidate: Candidate, on_rows: OnRows) -> Engine:
        return ThreadsEngine(
            dataset,
            candidate.n_threads,
            on_rows,
            kernels=candidate.kernels,
            cache_nbytes=candidate.cache_nbytes,
            policy=self.policy,
        )

    def segment_reducer(self, candidate: Candidate) -> SegmentReducer:
        return ThreadsReducer(candidate.kernels, self.policy, candidate.uses_blas)


def backend_of(config: FitConfig) -> Backend:
    """Return where the passes of a fit run; a GPU's or a cluster's code is imported only here."""
    if config.client is None:
        limit = memory_limit_or_default(config.memory_limit)
        return _backend_of_process(config, limit, config.n_threads or usable_cpus())
    from streamreg.cluster.backend import ClusterBackend  # noqa: PLC0415

    return ClusterBackend(config, partial(_backend_of_process, config))


def _backend_of_process(config: FitConfig, memory_limit: int, n_threads: int) -> Backend:
    """Return the backend of one process: this one, or one of a cluster's workers."""
    threads = ThreadsBackend(memory_limit, n_threads)
    if config.device == "cpu":
        return threads
    from streamreg.gpu.backend import GpuBackend  # noqa: PLC0415

    is_local = config.client is None
    return GpuBackend(threads, config.device_memory_limit, is_local=is_local)


def plan(
    X: Any,  # noqa: ANN401  (whatever can be read as rows)
    y: Any = None,  # noqa: ANN401
    sample_weight: Any = None,  # noqa: ANN401
    **parameters: Any,  # noqa: ANN401
) -> Plan:
    """Plan a fit from metadata alone: what each solver would need, and which would run.

    Parameters
    ----------
    X, y, sample_weight
        As for ``LinearRegression.fit``.
    **parameters
        Of ``LinearRegression``, such as ``memory_limit`` and ``solver``; with ``cv``, of
        ``LinearRegressionCV``.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import plan
    >>> X, y = np.zeros((1000, 10)), np.zeros(1000)
    >>> plan(X, y, memory_limit="1 GiB").chosen
    'closed_form'
    """
    # the penalties to compare are passed as l2
    known = {field.name for field in fields(FitConfig)} - {"l2s"} | {"progress"}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise InputError(
            f"there is no parameter {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    # a plan shows no progress, but accepts all parameters of an estimator
    parameters.pop("progress", None)
    config = FitConfig.parse(**parameters)
    return plan_fit(config.open_dataset(X, y, sample_weight), config)


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
    backend = backend or backend_of(config)
    backend.require_readable(dataset)
    if config.cv is not None:
        return _plan_selection(dataset, config, backend, rows)
    inference = config.inference(dataset, groups)
    build_solver = partial(config.build_solver, inference=inference)
    if config.solver != AUTO and inference is not None and not build_solver(config.solver).infers:
        without: list[Part] = []
        if build_solver(config.solver, inference=replace(inference, columns=(0,))).infers:
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
    if config.solver != AUTO and not backend.runs(config.build_solver(config.solver)):
        if config.client is not None and not config.build_solver(config.solver).runs_on_cluster:
            raise InputError(
                Parameter("solver", config.solver),
                " has no passes that workers can share: leave out ",
                Remedy("client"),
                ", or pass ",
                Remedy("solver", "cg"),
            )
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
        build_solver,
        saves=config.checkpoint is not None,
        infers=inference is not None,
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


def _plan_selection(
    dataset: Dataset, config: FitConfig, backend: Backend, rows: FoldedRows | None
) -> Plan:
    """Plan a fit that chooses its penalty; a refusal offers fewer folds, GCV, or one penalty."""
    was_read = rows is not None and rows.have_groups
    if rows is None:
        # numbers of folds that groups determine are known once the groups are read
        n_folds = n_folds_of(config.cv, dataset.n_rows)
        have_groups = dataset.groups is not None
        alternate = have_groups or not isinstance(config.cv, str | int)
        rows = FoldedRows(dataset, n_folds, alternate, have_groups)
    selection = config.selection(rows)

    def planned(selection: SelectionRequest) -> Plan:
        build_solver = partial(config.build_solver, selection=selection)
        saves = config.checkpoint is not None
        names = (ClosedForm.name,)
        return make_plan(dataset, backend, ClosedForm.name, build_solver, saves=saves, names=names)

    plan = planned(selection)
    if plan.candidates[plan.chosen].fits:
        return plan
    remedies = []
    for n_folds in (*_FEWER_FOLDS, 1):
        needs_folds = config.one_standard_error or rows.have_groups
        if n_folds >= selection.n_folds or (n_folds == 1 and needs_folds):
            continue
        fewer = planned(replace(selection, n_folds=n_folds)).candidates[ClosedForm.name]
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
            dataset, selection = rows.dataset, config.selection(rows)
        plan = plan_fit(dataset, config, backend, groups, rows)
        build_solver = partial(
            config.build_solver,
            inference=config.inference(dataset, groups),
            selection=selection,
        )
        candidate = _require_fit(plan, dataset, config, backend)
        stack.enter_context(explain_refused_memory(plan, candidate))
        d, k = dataset.n_features, dataset.n_targets
        solver = build_solver(plan.chosen, config.initial_weights(d, k))
        solver = solver.with_panels(candidate.n_panels)
        # other kernels, or another partition, would change the last bits of the result
        identity = {
            "streamreg": __version__,
            "parameters": config.identity(solver),
            "kernels": candidate.kernels,
            "partition": backend.policy.identity(),
        }
        checkpoint = None
        if config.checkpoint is not None:
            stack.enter_context(sigterm_as_exit())
            checkpoint = stack.enter_context(Checkpoint(config.checkpoint, identity, dataset))
        stack.callback(progress.close)
        run = _Run(dataset, config, backend, progress, checkpoint)
        solution, engine = run.solve(solver, candidate)
        planned_nbytes = candidate.peak_nbytes
        successor = plan.candidates.get(solver.more_digits or "")
        is_short = config.solver == AUTO and not solution.status.converged
        if is_short and successor is not None and successor.fits:
            solver = build_solver(successor.solver).with_panels(successor.n_panels)
            with explain_refused_memory(plan, successor):
                more, engine = run.solve(solver, successor, epochs_before=solution.n_epochs)
            planned_nbytes = max(planned_nbytes, successor.peak_nbytes)
            solution = solution.followed_by(more)
        # a file that changed after its last read is noticed here
        dataset.require_unchanged()
    return Fit(
        solution,
        solver.name,
        plan,
        planned_nbytes,
        peak.added_nbytes,
        engine.n_omitted,
        [*solution.warnings, *engine.rounding_warnings(), *engine.omission_warnings()],
        None if checkpoint is None else checkpoint.error_if_unsaved(),
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """What the solvers of one fit share."""

    dataset: Dataset
    config: FitConfig
    backend: Backend
    progress: Progress
    checkpoint: Checkpoint | None

    def solve(
        self, solver: Solver, candidate: Candidate, epochs_before: int = 0
    ) -> tuple[Solution, Engine]:
        """Run the passes of one solver; returns its engine too, which counted the rows."""

        def report(record: EpochRecord) -> None:
            self.progress.epoch(replace(record, epoch=epochs_before + record.epoch))

        dataset = self.dataset
        problem = Problem(
            dataset.n_features,
            dataset.n_targets,
            fit_intercept=self.config.fit_intercept,
            penalty=solver.penalty(self.config.l2),
            feature_names=dataset.feature_names,
            n_rows=dataset.n_rows,
            dtype=block_dtype(dataset.X.dtype),
        )
        with (
            self.backend.open(dataset, candidate, self.progress.rows) as engine,
            blas_threads_of_solver(dataset.n_features),
        ):
            reduce = self._reduce_with(engine)
            iterates = self.checkpoint or NO_ITERATE_STORE
            solution = solver.solve(problem, reduce, report, iterates)
        if solution.inference is not None:
            inference = replace(
                solution.inference,
                log_weight_sum=engine.log_weight_sum,
                is_weighted=dataset.weight is not None,
            )
            solution = replace(solution, inference=inference)
        return solution, engine

    def _reduce_with(self, engine: Engine) -> Reduce:
        """Return the function with which a solver runs passes."""

        def reduce(accumulator: Accumulator[Any, Result]) -> Result:
            self.progress.begin_pass(self.dataset.n_rows)
            if self.checkpoint is None:
                reduction = engine.reduce(accumulator)
            else:
                reduction = self.checkpoint.reduce(engine, accumulator)
            require_rows(self.dataset, reduction, engine.n_omitted)
            return reduction.result

        return reduce


def _require_fit(plan: Plan, dataset: Dataset, config: FitConfig, backend: Backend) -> Candidate:
    """Return the chosen candidate; a refusal also offers chosen standard errors, if those fit."""
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


@contextmanager
def explain_refused_memory(plan: Plan, candidate: Candidate) -> Iterator[None]:
    """Say what was planned for a solver, if the system refuses memory while it runs."""
    try:
        yield
    except MemoryLimitError:
        raise
    except MemoryError as error:
        planned = format_nbytes(candidate.peak_nbytes)
        other = plan.less_demanding(candidate)
        other_solver: list[Part] = []
        if other is not None:
            needed = format_nbytes(other.needed_nbytes, up=True)
            other_solver = [", or ", Remedy("solver", other.solver), f", which needs {needed}"]
        raise MemoryLimitError(
            f"the system refused memory that {candidate.solver} needs: "
            f"{str(error) or 'none is left'}. Planned {planned}, with ",
            Parameter("memory_limit"),
            f" {format_nbytes(plan.memory_limit)}; {format_nbytes(available_nbytes())} are "
            "available. Pass a lower ",
            Remedy("memory_limit"),
            *other_solver,
        ) from error


def require_rows(
    dataset: Dataset, reduction: Reduction[Any] | PartialResult, n_omitted: int
) -> None:
    """Raise :class:`InputError` if no row is left to fit, or weights are too large or small."""
    if reduction.n_rows:
        if not 1 / _LARGEST_WEIGHT_SUM < reduction.weight_sum < _LARGEST_WEIGHT_SUM:
            raise InputError(
                f"the weights of {dataset.X.name} add up to {reduction.weight_sum:.1e}, and "
                "squares could leave the range of float64; multiply them by a constant, because "
                "only their ratios count"
            )
        return
    if n_omitted == dataset.n_rows:
        why: Part = Message(
            "all hold NaN or inf and ", Parameter("nan_policy", "omit"), " drops them"
        )
    elif n_omitted:
        why = f"{n_omitted:,} left out for NaN or inf, and all others have zero weight"
    else:
        why = "all have zero weight"
    raise InputError(
        f"no row of {dataset.X.name} is left to fit: of {dataset.n_rows:,} rows, ", why
    )
