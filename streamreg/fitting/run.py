"""The passes of one fit: which engine runs each, its progress and its checkpoint."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from streamreg.blocks import ROWS
from streamreg.engines.blas import blas_threads_of_solver
from streamreg.fitting.refusals import require_rows
from streamreg.solvers.base import NO_ITERATE_STORE, Problem, Solution
from streamreg.sources.checks import block_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import View
    from streamreg.checkpoint.checkpoint import Checkpoint
    from streamreg.config.fit_config import FitConfig
    from streamreg.engines.base import Engine
    from streamreg.planning.backend import Backend
    from streamreg.planning.terms import Candidate
    from streamreg.progress import Progress
    from streamreg.solvers.base import EpochRecord, Reduce, Solver
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")


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
class Run:
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
