"""A data set, a plan, an engine and a solver make a solution."""

from __future__ import annotations

import numbers
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import InputError
from streamreg.kernels import blas
from streamreg.memory import PeakMemory
from streamreg.model import Model
from streamreg.planning import make_plan
from streamreg.progress import Progress, Silence
from streamreg.solvers.base import Problem, Solution
from streamreg.solvers.registry import SolverSettings
from streamreg.sources.dataset import open_dataset
from streamreg.sources.opening import is_streamable

if TYPE_CHECKING:
    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Float64
    from streamreg.plans import Plan
    from streamreg.sources.dataset import DataSet, NanPolicy

Result = TypeVar("Result")

_LARGEST_WEIGHT = 1e120


@dataclass(frozen=True, eq=False)
class FitSettings:
    """Everything about a fit but its data; the parameters of ``LinearRegression``.

    Raises
    ------
    InputError
        A value that no fit can use.
    """

    solver: str = "auto"
    fit_intercept: bool = True
    l2: float = 0.0
    standardize: bool = True
    learning_rate: float | Literal["auto"] = "auto"
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Any = "zeros"
    random_state: Any = None
    memory_limit: int | str | None = None
    n_threads: int | None = None
    device: str = "cpu"
    client: Any = None
    checkpoint: Any = None
    missing_chunks: str = "error"
    nan_policy: NanPolicy = "raise"

    def __post_init__(self) -> None:
        for name, only in (("device", "cpu"), ("client", None), ("checkpoint", None)):
            value = getattr(self, name)
            if value != only:
                raise InputError(
                    f"{name}={value!r} is not supported by this version; leave it {only!r}"
                )
        for name, known in (
            ("missing_chunks", ("error", "fill")), ("nan_policy", ("raise", "omit"))
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise InputError(
                    f"{name}={getattr(self, name)!r} must be {known[0]!r} or {known[1]!r}"
                )
        l2: object = self.l2
        if not (isinstance(l2, numbers.Real) and 0 <= float(l2) < np.inf):
            raise InputError(f"l2={l2!r} must be a finite number, 0 or more")
        n: object = self.n_threads
        if n is not None and not (isinstance(n, numbers.Integral) and int(n) >= 1):
            raise InputError(f"n_threads={n!r} must be a whole number, at least 1, or None")

    def solver_settings(self, init: Float64 | None = None) -> SolverSettings:
        """Return what concerns the solver."""
        return SolverSettings(
            self.solver, self.standardize, self.learning_rate, self.max_epochs, self.tol, init
        )

    def initial(self, n_features: int, n_targets: int) -> Float64 | None:
        """Return w to start from, (D, K); ``None`` for zeros.

        Raises
        ------
        InputError
            ``init`` is neither ``"zeros"``, ``"random"`` nor an array of fitting shape.
        """
        if isinstance(self.init, str):
            if self.init == "zeros":
                return None
            if self.init == "random":
                normal = _normal(self.random_state, (n_features, n_targets))
                return np.asarray(normal / np.sqrt(n_features))
            raise InputError(f'init={self.init!r} must be "zeros", "random" or an array (D,)')
        try:
            values = np.asarray(self.init, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f'init={self.init!r} must be "zeros", "random" or numbers (D,): {error}'
            ) from error
        if values.ndim == 1:
            values = values[None, :]
        if values.shape not in {(1, n_features), (n_targets, n_features)}:
            raise InputError(
                f"init has shape {np.shape(self.init)} but the fit has D = {n_features:,} features "
                f"and K = {n_targets:,} targets; pass ({n_features},) or "
                f"({n_targets}, {n_features})"
            )
        if not np.isfinite(values).all():
            raise InputError("init has NaN or inf; every starting weight must be finite")
        return np.broadcast_to(values, (n_targets, n_features)).T.copy()


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
    """

    solution: Solution
    plan: Plan
    peak_nbytes: int
    n_omitted: int
    warnings: list[str]

    def model(self, dataset: DataSet) -> Model:
        """Return the weights with the names of the data set that was fitted."""
        solution = self.solution
        details = {
            "solver": self.plan.chosen,
            "status": solution.status.value,
            "converged": solution.status.converged,
            "n_epochs": solution.n_epochs,
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
    known = {field.name for field in fields(FitSettings)} | {"progress"}
    unknown = sorted(parameters.keys() - known)
    if unknown:
        raise InputError(
            f"there is no parameter {unknown[0]!r}; there are {', '.join(sorted(known))}"
        )
    # a plan shows nothing, but the parameters of an estimator are welcome whole
    parameters.pop("progress", None)
    settings = FitSettings(**parameters)
    data = [
        rows if rows is None or is_streamable(rows) else np.asarray(rows)
        for rows in (X, y, sample_weight)
    ]
    dataset = open_dataset(
        *data, missing_chunks=settings.missing_chunks, nan_policy=settings.nan_policy
    )
    return plan_fit(dataset, settings)


def plan_fit(dataset: DataSet, settings: FitSettings) -> Plan:
    """Plan a fit; reads metadata only."""
    return make_plan(
        dataset,
        settings.solver_settings(),
        memory_limit=settings.memory_limit,
        n_threads=settings.n_threads,
    )


def fit(dataset: DataSet, settings: FitSettings, progress: Progress | None = None) -> Fit:
    """Fit a data set.

    Raises
    ------
    MemoryLimitError
        The plan does not fit; nothing was read.
    InputError, DataCorruptionError, DivergenceError
        As the engine and the solver meet them.
    """
    if dataset.y is None:
        raise InputError("a fit needs y")
    progress = progress or Silence()
    plan = plan_fit(dataset, settings)
    candidate = plan.require_fit()
    problem = Problem(
        dataset.n_features, dataset.n_targets,
        fit_intercept=bool(settings.fit_intercept), l2=float(settings.l2),
        feature_names=dataset.feature_names,
    )  # fmt: skip
    init = settings.initial(problem.n_features, problem.n_targets)
    solver = settings.solver_settings(init).build(plan.chosen)
    if plan.chosen == "closed_form":
        blas.load()
    with (
        PeakMemory() as peak,
        ThreadsEngine(dataset, candidate.n_threads, progress.rows) as engine,
    ):

        def reduce(accumulator: Accumulator[Any, Result]) -> Result:
            progress.begin_pass(type(accumulator).__name__, dataset.n_rows)
            result = engine.reduce(accumulator)
            _require_rows(dataset, result, engine.n_omitted)
            return result

        try:
            solution = solver.solve(problem, reduce, progress.epoch)
        finally:
            progress.close()
        warnings = [*solution.warnings, *_data_warnings(dataset, engine)]
        n_omitted = engine.n_omitted
    return Fit(solution, plan, peak.added_nbytes, n_omitted, warnings)


def _require_rows(dataset: DataSet, result: Any, n_omitted: int) -> None:  # noqa: ANN401
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
        why = f"{n_omitted:,} hold NaN or inf and are left out, the others have a weight of zero"
    else:
        why = "all have a weight of zero"
    raise InputError(f"no row of {dataset.X.name} is left to fit: of {dataset.n_rows:,} {why}")


def _data_warnings(dataset: DataSet, engine: ThreadsEngine) -> list[str]:
    warnings = []
    if engine.has_inexact_integers:
        warnings.append(
            f"{dataset.X.name} holds integers beyond 2^53, which float64 rounds; "
            "subtract a constant from such columns before they are stored"
        )
    if engine.n_omitted:
        warnings.append(
            f"{engine.n_omitted:,} of {dataset.n_rows:,} rows hold NaN or inf and were left out "
            '(nan_policy="omit")'
        )
    return warnings


def _normal(random_state: Any, shape: tuple[int, int]) -> Float64:  # noqa: ANN401
    """Draw from scikit-learn's kinds of ``random_state``, and NumPy's generators."""
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        return np.asarray(random_state.standard_normal(shape))
    try:
        generator = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise InputError(f"random_state={random_state!r} seeds no generator: {error}") from error
    return generator.standard_normal(shape)
