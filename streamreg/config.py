"""Everything about a fit but its data."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from streamreg import validate
from streamreg.cluster.workers import require_client
from streamreg.errors import InputError
from streamreg.formatting import count, shown
from streamreg.solvers.registry import SolverSettings
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem
    from streamreg.sources.dataset import NanPolicy


@dataclass(frozen=True, eq=False)
class FitConfig:
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
    device_memory_limit: int | str | None = None
    client: Any = None
    checkpoint: Any = None
    missing_chunks: str = "error"
    nan_policy: NanPolicy = "raise"

    def __post_init__(self) -> None:
        validate.choice("device", self.device, ("cpu", "cuda"))
        if self.device_memory_limit is not None and self.device != "cuda":
            raise InputError(
                'device_memory_limit is of a GPU, and device="cpu" uses none: pass device="cuda", '
                "or leave it out"
            )
        if self.device_memory_limit is not None:
            parse_nbytes(self.device_memory_limit, name="device_memory_limit")
        if self.client is not None:
            require_client(self.client)
            if self.device == "cuda" and self.device_memory_limit is None:
                raise InputError(
                    'device="cuda" with client needs device_memory_limit: what a fit may take of '
                    "the GPU of each worker"
                )
        if self.checkpoint is not None:
            validate.path_text("checkpoint", self.checkpoint)
        validate.choice("missing_chunks", self.missing_chunks, ("error", "fill"))
        validate.choice("nan_policy", self.nan_policy, ("raise", "omit"))
        validate.flag("fit_intercept", self.fit_intercept)
        validate.number("l2", self.l2, lambda l2: 0 <= l2 < np.inf, "a finite number, 0 or more")
        validate.threads(self.n_threads)
        if self.memory_limit is not None:
            parse_nbytes(self.memory_limit)
        self.solver_settings()

    def solver_settings(self, init: Float64 | None = None) -> SolverSettings:
        """Return what concerns the solver."""
        return SolverSettings(
            self.solver, self.standardize, self.learning_rate, self.max_epochs, self.tol, init
        )

    def initial_weights(self, problem: Problem) -> Float64 | None:
        """Return w to start from, (D, K), in the user's units; ``None`` for zeros."""
        seed = self.random_state
        if seed is None and self.checkpoint is not None:
            # the same when the fit is gone on with
            seed = zlib.crc32(os.path.realpath(self.checkpoint).encode())
        return _initial_weights(self.init, seed, problem.n_features, problem.n_targets)

    def identity(self, solver: str, init: Float64 | None) -> dict[str, Any]:
        """Return what a solver's answer depends on, as JSON knows it."""
        names = ["fit_intercept", "l2", "missing_chunks", "nan_policy"]
        known: dict[str, Any] = {"solver": solver}
        if solver != "closed_form":
            names += ["standardize", "tol", *(["learning_rate"] if solver == "gd" else [])]
            start = None if init is None else np.ascontiguousarray(init)
            known["init"] = "zeros" if start is None else f"{zlib.crc32(start.data):08x}"
        for name in names:
            value = getattr(self, name)
            known[name] = value if isinstance(value, str | bool) else float(value)
        return known


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
        raise InputError(f'init={shown(init)} must be "zeros", "random" or an array (D,)')
    try:
        values = np.asarray(init, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f'init={shown(init)} must be "zeros", "random" or numbers (D,): {error}'
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
            f"random_state={shown(random_state)} seeds no generator: {error}"
        ) from error
    return generator.standard_normal(shape)
