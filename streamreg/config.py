"""Everything about a fit but its data: each parameter is parsed and checked once."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streamreg import validate
from streamreg.errors import InputError, Parameter, PythonOnly, Remedy
from streamreg.formatting import count, given
from streamreg.machine import available_nbytes
from streamreg.solvers.registry import AUTO, SOLVERS, SolverSettings

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem, Solver
    from streamreg.sources.dataset import NanPolicy


@dataclass(frozen=True, eq=False)
class FitConfig:
    """The parameters of ``LinearRegression``, as numbers; :meth:`parse` makes them of texts."""

    solver: str
    fit_intercept: bool
    l2: float
    standardize: bool
    learning_rate: float | Literal["auto"]
    max_epochs: int
    tol: float
    init: Any
    random_state: Any
    memory_limit: int | None  # bytes
    n_threads: int | None
    device: str
    device_memory_limit: int | None  # bytes
    client: Any
    checkpoint: str | None
    missing_chunks: str
    nan_policy: NanPolicy

    @classmethod
    def parse(
        cls,
        *,
        solver: object = AUTO,
        fit_intercept: object = True,
        l2: object = 0.0,
        standardize: object = True,
        learning_rate: object = "auto",
        max_epochs: object = 1000,
        tol: object = 1e-8,
        init: object = "zeros",
        random_state: object = None,
        memory_limit: object = None,
        n_threads: object = None,
        device: object = "cpu",
        device_memory_limit: object = None,
        client: object = None,
        checkpoint: object = None,
        missing_chunks: object = "error",
        nan_policy: object = "raise",
    ) -> FitConfig:
        """Return the parameters as users pass them, parsed and checked.

        Raises
        ------
        InputError
            A value that no fit can use, by the name of its parameter.
        """
        device = validate.choice("device", device, ("cpu", "cuda"))
        if device_memory_limit is not None and device != "cuda":
            raise InputError(
                Parameter("device_memory_limit"),
                " limits the memory of a GPU, and ",
                Parameter("device", "cpu"),
                " uses none: pass ",
                Remedy("device", "cuda"),
                ", or leave it out",
            )
        if client is not None and device == "cuda" and device_memory_limit is None:
            raise InputError(
                Parameter("device", "cuda"),
                " with ",
                Parameter("client"),
                " needs ",
                Remedy("device_memory_limit"),
                ": what a fit may take of the GPU of each worker",
            )
        return cls(
            solver=validate.choice("solver", solver, (AUTO, *SOLVERS)),
            fit_intercept=validate.flag("fit_intercept", fit_intercept),
            l2=validate.number("l2", l2, lambda l2: 0 <= l2 < np.inf, "a finite number, 0 or more"),
            standardize=validate.flag("standardize", standardize),
            learning_rate=_learning_rate(learning_rate),
            max_epochs=validate.whole("max_epochs", max_epochs),
            tol=validate.number("tol", tol, lambda tol: 0 <= tol < 1, "a number from 0 to below 1"),
            init=init,
            random_state=random_state,
            memory_limit=_nbytes("memory_limit", memory_limit),
            n_threads=validate.threads(n_threads),
            device=device,
            device_memory_limit=_nbytes("device_memory_limit", device_memory_limit),
            client=client,
            checkpoint=None if checkpoint is None else validate.path_text("checkpoint", checkpoint),
            missing_chunks=validate.choice("missing_chunks", missing_chunks, ("error", "fill")),
            nan_policy=validate.choice("nan_policy", nan_policy, ("raise", "omit")),  # type: ignore[arg-type]
        )

    def build_solver(self, name: str, init: Float64 | None = None) -> Solver:
        """Return the solver of that name with these parameters; ``init`` is w (D, K)."""
        settings = SolverSettings(
            self.standardize, self.learning_rate, self.max_epochs, self.tol, init
        )
        return SOLVERS[name](settings)

    def initial_weights(self, problem: Problem) -> Float64 | None:
        """Return w to start from, (D, K), in the user's units; ``None`` for zeros."""
        seed = self.random_state
        if seed is None and self.checkpoint is not None:
            # the same when the fit is resumed
            seed = zlib.crc32(os.path.realpath(self.checkpoint).encode())
        return _initial_weights(self.init, seed, problem.n_features, problem.n_targets)

    def identity(self, solver: Solver) -> dict[str, Any]:
        """Return the parameters that the answer depends on, as in JSON."""
        return {
            **solver.identity(),
            "fit_intercept": self.fit_intercept,
            "l2": self.l2,
            "missing_chunks": self.missing_chunks,
            "nan_policy": self.nan_policy,
        }


def memory_limit_or_default(memory_limit: int | None) -> int:
    """Return the limit in bytes; by default half of what the process may still use."""
    return available_nbytes() // 2 if memory_limit is None else memory_limit


def _nbytes(name: str, size: object) -> int | None:
    return None if size is None else validate.parse_nbytes(size, name=name)


def _learning_rate(value: object) -> float | Literal["auto"]:
    if isinstance(value, str) and value == "auto":
        return "auto"
    return validate.number(
        "learning_rate",
        value,
        lambda rate: 0 < rate < np.inf,
        'a number above 0, or "auto" for the best step of each epoch',
    )


def _initial_weights(
    init: Any,  # noqa: ANN401  (whatever NumPy reads as numbers)
    random_state: Any,  # noqa: ANN401
    n_features: int,
    n_targets: int,
) -> Float64 | None:
    """Return w to start from, (D, K), in the user's units; ``None`` for zeros.

    Raises
    ------
    InputError
        ``init`` is neither ``"zeros"``, ``"random"`` nor an array of fitting shape.
    """
    if isinstance(init, str):
        if init == "zeros":
            return None
        if init == "random":
            normal = _normal(random_state, (n_features, n_targets))
            return np.asarray(normal / np.sqrt(n_features))
        raise InputError(
            given("init", init), ' must be "zeros" or "random"', PythonOnly(", or an array (D,)")
        )
    try:
        values = np.asarray(init, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            given("init", init), f' must be "zeros", "random" or numbers (D,): {error}'
        ) from error
    rows = values[None, :] if values.ndim == 1 else values
    if rows.shape not in {(1, n_features), (n_targets, n_features)}:
        either = f" or ({n_targets}, {n_features})" if n_targets > 1 else ""
        raise InputError(
            f"init has shape {values.shape} but the fit has {count(n_features, 'feature')} and "
            f"{count(n_targets, 'target')}; pass ({n_features},){either}"
        )
    if not np.isfinite(rows).all():
        raise InputError("init has NaN or inf; every starting weight must be finite")
    return np.broadcast_to(rows, (n_targets, n_features)).T.copy()


def _normal(random_state: Any, shape: tuple[int, int]) -> Float64:  # noqa: ANN401
    """Draw from scikit-learn's kinds of ``random_state``, and NumPy's generators."""
    if isinstance(random_state, np.random.RandomState | np.random.Generator):
        return np.asarray(random_state.standard_normal(shape))
    try:
        generator = np.random.default_rng(random_state)
    except (TypeError, ValueError) as error:
        raise InputError(
            given("random_state", random_state), f" seeds no generator: {error}"
        ) from error
    return generator.standard_normal(shape)
