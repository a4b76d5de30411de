"""A fit: data set + configuration → plan → backend → solver → solution."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from streamreg import __version__
from streamreg.blocks import ROWS
from streamreg.checkpoint.checkpoint import Checkpoint
from streamreg.config.fit_config import FitConfig, memory_limit_or_default
from streamreg.engines.blas import blas_threads_of_solver
from streamreg.engines.fold_scan import folded
from streamreg.engines.group_scan import scan_groups
from streamreg.errors import InputError, MemoryLimitError, Message, Parameter, Part, Remedy
from streamreg.fitting.backends import backend_of
from streamreg.fitting.plan import plan_fit, require_fit
from streamreg.fitting.result import Fit
from streamreg.formatting import format_nbytes
from streamreg.inference.result import CLUSTER
from streamreg.machine import PeakMemory, available_nbytes
from streamreg.output.coefficient_store import CoefficientStore
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.signals import sigterm_as_exit
from streamreg.solvers.base import NO_ITERATE_STORE, Problem, Solution
from streamreg.solvers.registry import AUTO
from streamreg.sources.checks import block_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import View
    from streamreg.engines.base import Engine, PartialResult, Reduction
    from streamreg.fitting.result import Described
    from streamreg.inference.groups import Groups
    from streamreg.output.stored_coefficients import StoredCoefficients
    from streamreg.planning.backend import Backend
    from streamreg.planning.plan import Plan
    from streamreg.planning.terms import Candidate
    from streamreg.solvers.base import EpochRecord, Reduce, Solver
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")

_LARGEST_WEIGHT_SUM = 1e120


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
        candidate = require_fit(plan, dataset, config, backend)
        stack.enter_context(explain_refused_memory(plan, candidate))
        d, k = dataset.n_features, dataset.n_targets
        store = None
        if config.coef_out is not None:
            store = begin_weights(config.coef_out, dataset, stack, dataset.local_paths())
        solver = build_solver(plan.chosen, config.initial_weights(d, k))
        solver = _prepared(solver, candidate, store)
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
            solver = _prepared(build_solver(successor.solver), successor, store)
            with explain_refused_memory(plan, successor):
                more, engine = run.solve(solver, successor, epochs_before=solution.n_epochs)
            planned_nbytes = max(planned_nbytes, successor.peak_nbytes)
            solution = solution.followed_by(more)
        # a file that changed after its last read is noticed here
        dataset.require_unchanged()
        stored = None if store is None else finish_weights(store, solution)
    if stored is not None:
        # the weights in memory are freed
        solution = replace(solution, coefficients=None)
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


def begin_weights(
    path: str, rows: Described, stack: ExitStack, inputs: Sequence[Path] = ()
) -> CoefficientStore:
    """Begin the array of the weights; it is removed if the fit fails."""
    if rows.has_one_target:
        raise InputError(
            Parameter("coef_out"), " takes the weights of several targets, y (N, K): leave it out"
        )
    if Path(path).exists():
        raise InputError(
            Parameter("coef_out", path), " exists; choose another name, or remove it first"
        )
    stack.enter_context(sigterm_as_exit())
    store = CoefficientStore.create(path, rows.n_targets, rows.n_features, inputs=inputs)
    return stack.enter_context(store)


def _prepared(solver: Solver, candidate: Candidate, store: CoefficientStore | None) -> Solver:
    solver = solver.with_panels(candidate.n_panels)
    if candidate.n_directions:
        solver = solver.with_directions(candidate.n_directions)
    return solver if store is None else solver.writing_to(store)


def finish_weights(store: CoefficientStore, solution: Solution) -> StoredCoefficients:
    """Write the weights that the solver did not, and finish the array."""
    if solution.coefficients is not None:
        rows, step = solution.coefficients.T, store.chunk_targets
        for first in range(0, len(rows), step):
            store.write(first, rows[first : first + step])
    return store.finish()


class _Engines:
    """The engine of the targets that a pass reads: one at a time is open."""

    def __init__(
        self,
        dataset: Dataset,
        backend: Backend,
        candidate: Candidate,
        on_rows: Callable[[int], None],
        stack: ExitStack,
    ) -> None:
        self._dataset, self._backend, self._candidate = dataset, backend, candidate
        self._on_rows, self._open = on_rows, stack.enter_context(ExitStack())
        self._targets: tuple[int, int] | None = None
        # of all targets, unless a pass asks for some
        self._engine: Engine | None = None

    @property
    def last(self) -> Engine:
        """The engine of the last pass."""
        return self.of(self._targets)

    def of(self, targets: tuple[int, int] | None) -> Engine:
        """Return the engine that reads these targets; ``None`` means all."""
        if self._engine is None or targets != self._targets:
            self._open.close()
            dataset = self._dataset if targets is None else self._dataset.with_targets(*targets)
            engine = self._backend.open(dataset, self._candidate, self._on_rows)
            self._engine, self._targets = self._open.enter_context(engine), targets
        return self._engine


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
            is_sparse=dataset.X.is_sparse,
            column_step=dataset.column_step,
            row_pairs=dataset.X.row_pairs,
        )
        with (
            ExitStack() as stack,
            blas_threads_of_solver(dataset.n_features),
        ):
            engines = _Engines(dataset, self.backend, candidate, self.progress.rows, stack)
            reduce = self._reduce_with(engines, candidate)
            iterates = self.checkpoint or NO_ITERATE_STORE
            solution = solver.solve(problem, reduce, report, iterates)
            engine = engines.last
        if solution.inference is not None:
            inference = replace(
                solution.inference,
                log_weight_sum=engine.log_weight_sum,
                is_weighted=dataset.weight is not None,
            )
            solution = replace(solution, inference=inference)
        return solution, engine

    def _reduce_with(self, engines: _Engines, candidate: Candidate) -> Reduce:
        """Return the function with which a solver runs passes."""

        def reduce(accumulator: Accumulator[Any, Result]) -> Result:
            engine = engines.of(accumulator.targets)
            with self._engine_for(accumulator.view, engine, candidate) as own:
                if self.checkpoint is None:
                    reduction = own.reduce(accumulator)
                else:
                    reduction = self.checkpoint.reduce(own, accumulator)
            require_rows(self.dataset, reduction, engine.n_omitted)
            return reduction.result

        return reduce

    @contextmanager
    def _engine_for(self, view: View, engine: Engine, candidate: Candidate) -> Iterator[Engine]:
        """Lend the engine of the rows, or one that sees them otherwise, for one pass."""
        if view == ROWS:
            self.progress.begin_pass(self.dataset.n_rows)
            yield engine
            return
        engine.release()
        seen, own = self.dataset.seen_as(view), replace(candidate, cache_nbytes=0)
        n_rows, n_seen, n_done = self.dataset.n_rows, seen.n_rows, 0
        self.progress.begin_pass(n_rows)

        def report(n: int) -> None:
            # as much of the rows as of what the pass reads
            nonlocal n_done
            before, n_done = n_rows * n_done // n_seen, n_done + n
            self.progress.rows(n_rows * n_done // n_seen - before)

        with self.backend.open(seen, own, report) as other:
            # the rows were checked by an earlier pass
            other.checks_integers = False
            yield other


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
