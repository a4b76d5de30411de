"""A data set, a plan, an engine and a solver make a solution."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from streamreg import __version__
from streamreg.checkpoint.checkpoint import Checkpoint
from streamreg.cluster.workers import require_threads, room_on, scheduler_of
from streamreg.config import FitConfig
from streamreg.engines.choice import engine_for, loops_for
from streamreg.engines.partition import PARTITION_CONSTANTS
from streamreg.errors import InputError, MemoryLimitError
from streamreg.formatting import format_nbytes, left_out
from streamreg.gpu.device import Gpu
from streamreg.machine import PeakMemory, available_nbytes
from streamreg.model import Model
from streamreg.planning.memory_model import make_plan
from streamreg.progress import NoProgress, Progress
from streamreg.signals import sigterm_as_exit
from streamreg.solvers.base import NO_ITERATE_STORE, Problem, Solution
from streamreg.sources.open import open_dataset
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Float64
    from streamreg.engines.base import Engine
    from streamreg.planning.plan import Plan
    from streamreg.solvers.base import Reduce
    from streamreg.sources.dataset import Dataset

Result = TypeVar("Result")

_LARGEST_WEIGHT = 1e120


@dataclass(frozen=True, eq=False)
class Fit:
    """A solution, and how it was come by.

    Attributes
    ----------
    solution
        Weights in the user's units.
    plan
        What was planned.
    peak_nbytes
        Bytes that the fit added to the process, measured.
    n_omitted
        Rows left out for NaN or inf.
    warnings
        What deserves a look.
    unsaved
        Why not one checkpoint could be saved, if one was asked for; else empty.
    """

    solution: Solution
    plan: Plan
    peak_nbytes: int
    n_omitted: int
    warnings: list[str]
    unsaved: str = ""

    def model(self, dataset: Dataset) -> Model:
        """Return the weights with the names of the data set that was fitted."""
        solution = self.solution
        details = {
            "solver": self.plan.chosen,
            "status": solution.status.value,
            "converged": solution.status.converged,
            "n_iter": solution.n_epochs,
            "loss_history": solution.loss_history,
            "peak_memory": self.peak_nbytes,
        }
        return Model(
            np.ascontiguousarray(solution.coefficients.T), solution.intercept,
            dataset.n_targets == 1, dataset.feature_names, dataset.target_names, details,
        )  # fmt: skip


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
        Of ``LinearRegression``, such as ``memory_limit`` and ``solver``.

    Examples
    --------
    >>> import numpy as np
    >>> from streamreg import plan
    >>> X, y = np.zeros((1000, 10)), np.zeros(1000)
    >>> plan(X, y, memory_limit="1 GiB").chosen
    'closed_form'
    """
    known = {field.name for field in fields(FitConfig)} | {"progress"}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise InputError(
            f"there is no parameter {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    # a plan shows nothing, but the parameters of an estimator are welcome whole
    parameters.pop("progress", None)
    settings = FitConfig(**parameters)
    dataset = open_dataset(
        X, y, sample_weight, missing_chunks=settings.missing_chunks, nan_policy=settings.nan_policy
    )
    return plan_fit(dataset, settings)


def plan_fit(dataset: Dataset, settings: FitConfig) -> Plan:
    """Plan a fit; reads metadata only. On a cluster it is what each worker needs."""
    limit, n_threads, device_limit = settings.memory_limit, settings.n_threads, None
    if settings.client is not None:
        limit, n_threads = room_on(scheduler_of(settings.client)).within(limit)
        if settings.device == "cuda":
            n_threads = 1  # tasks take turns
    if settings.device != "cuda":
        dataset.require_on_host('pass device="cuda", which folds them there, or ')
    else:
        device_limit = _device_limit(settings)
    return make_plan(
        dataset,
        settings.solver_settings(),
        memory_limit=limit,
        n_threads=n_threads,
        device_limit=device_limit,
        saves=settings.checkpoint is not None,
        keeps=settings.client is None,
    )


def fit(dataset: Dataset, settings: FitConfig, progress: Progress | None = None) -> Fit:
    """Fit a data set.

    Raises
    ------
    MemoryLimitError
        The plan does not fit; nothing was read. Or the system refused what the plan allows.
    InputError, DataCorruptionError, DivergenceError
        As the engine and the solver meet them.
    """
    if dataset.y is None:
        raise InputError("a fit needs y")
    progress = progress or NoProgress()
    plan = plan_fit(dataset, settings)
    candidate = plan.require_fit()
    if settings.client is not None and settings.device != "cuda":
        require_threads(scheduler_of(settings.client), candidate)
    problem = Problem(
        dataset.n_features, dataset.n_targets,
        fit_intercept=bool(settings.fit_intercept), l2=float(settings.l2),
        feature_names=dataset.feature_names,
    )  # fmt: skip
    init = settings.initial_weights(problem)
    solver = settings.solver_settings(init).build(plan.chosen)
    with _told_refusals(plan), PeakMemory() as peak:
        # loaded here, so that what they take is measured
        loops = loops_for(candidate, settings.client)
        with (
            _checkpoint(dataset, settings, plan.chosen, init, loops) as checkpoint,
            engine_for(dataset, candidate, loops, settings.client, progress.rows) as engine,
        ):
            reduce = _passes(dataset, engine, progress, checkpoint)
            try:
                solution = solver.solve(
                    problem, reduce, progress.epoch, checkpoint or NO_ITERATE_STORE
                )
                # what was read and then changed is not noticed where it is not read again
                dataset.require_unchanged()
            finally:
                progress.close()
    remarks = [*solution.warnings, *_data_warnings(dataset, engine)]
    unsaved = "" if checkpoint is None else checkpoint.unsaved
    return Fit(solution, plan, peak.added_nbytes, engine.n_omitted, remarks, unsaved)


def _device_limit(settings: FitConfig) -> int:
    """Return the bytes of a GPU that a fit may take: what was asked for, or half of what is free.

    Raises
    ------
    MemoryLimitError
        More was asked for than is free on the GPU of this process.
    """
    asked = settings.device_memory_limit
    if asked is not None:
        asked = parse_nbytes(asked, name="device_memory_limit")
        if settings.client is not None:
            return asked
    free = Gpu().free_nbytes
    if asked is not None and asked > free:
        raise MemoryLimitError(
            f"device_memory_limit is {format_nbytes(asked)} and the GPU has {format_nbytes(free)} "
            "free: end what else uses it, or pass a lower one"
        )
    return free // 2 if asked is None else asked


@contextmanager
def _checkpoint(
    dataset: Dataset, settings: FitConfig, solver: str, init: Float64 | None, loops: str
) -> Iterator[Checkpoint | None]:
    """Yield the fit's checkpoint, if one was asked for; where none was, nothing is read."""
    if settings.checkpoint is None:
        yield None
        return
    identity = {
        "streamreg": __version__,
        "parameters": settings.identity(solver, init),
        "loops": loops,
        "cut": list(PARTITION_CONSTANTS),
        "data": dataset.identity(),
    }
    with sigterm_as_exit(), Checkpoint(settings.checkpoint, identity, dataset) as opened:
        yield opened


def _passes(
    dataset: Dataset, engine: Engine, progress: Progress, checkpoint: Checkpoint | None
) -> Reduce:
    """Return what a solver asks for passes."""

    def reduce(accumulator: Accumulator[Any, Result]) -> Result:
        progress.begin_pass(type(accumulator).__name__, dataset.n_rows)
        if checkpoint is None:
            result = engine.reduce(accumulator)
        else:
            result = checkpoint.reduce(engine, accumulator)
        _require_rows(dataset, result, engine.n_omitted)
        return result

    return reduce


@contextmanager
def _told_refusals(plan: Plan) -> Iterator[None]:
    """Say what was planned, where the system refuses memory."""
    try:
        yield
    except MemoryLimitError:
        raise
    except MemoryError as error:
        less = "" if plan.chosen != "closed_form" else ', or solver="cg", which needs O(D)'
        raise MemoryLimitError(
            f"the system refused memory that {plan.chosen} needs: {str(error) or 'none is left'}. "
            f"Planned {format_nbytes(plan.candidates[plan.chosen].peak_nbytes)}, with memory_limit "
            f"{format_nbytes(plan.memory_limit)}; {format_nbytes(available_nbytes())} are "
            f"available. Pass a lower memory_limit{less}"
        ) from error


def _require_rows(dataset: Dataset, result: Any, n_omitted: int) -> None:  # noqa: ANN401
    if result.n:
        if not 1 / _LARGEST_WEIGHT < result.s < _LARGEST_WEIGHT:
            raise InputError(
                f"the weights of {dataset.X.name} add up to {result.s:.1e}, which leaves no room "
                "for squares in float64; multiply them by a constant, only their ratios count"
            )
        return
    if n_omitted == dataset.n_rows:
        why = 'all hold NaN or inf, which nan_policy="omit" leaves out'
    elif n_omitted:
        why = f"{n_omitted:,} left out for NaN or inf, and all others of zero weight"
    else:
        why = "all have a weight of zero"
    raise InputError(f"no row of {dataset.X.name} is left to fit: of {dataset.n_rows:,} {why}")


def _data_warnings(dataset: Dataset, engine: Engine) -> list[str]:
    rounded = [
        f"{name} holds integers beyond 2^53, which float64 rounds; "
        "subtract a constant from such columns before they are stored"
        for name in sorted(engine.rounded)
    ]
    return rounded + left_out(engine.n_omitted, dataset.n_rows)
