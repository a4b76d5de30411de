"""The outcome of a fit, and the model that it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from streamreg.model import Model

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.errors import CheckpointError
    from streamreg.output.stored_coefficients import StoredCoefficients
    from streamreg.planning.plan import Plan
    from streamreg.schema import Schema
    from streamreg.solvers.base import Solution
    from streamreg.solvers.selection import Selection

# scores of penalties that a model file holds
_MOST_SCORES_KEPT = 100_000


class Described(Protocol):
    """What a model keeps of the data that were fitted."""

    @property
    def n_rows(self) -> int:
        """N, with rows that were left out."""

    @property
    def n_features(self) -> int:
        """D."""

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
    stored: StoredCoefficients | None = None  # the weights, if they were written to a file

    def model(self, dataset: Described) -> Model:
        """Return the weights with the names of the data that were fitted."""
        solution = self.solution
        coefficients: Float64 | StoredCoefficients | None = self.stored
        if coefficients is None and solution.coefficients is not None:
            coefficients = np.ascontiguousarray(solution.coefficients.T)
        if coefficients is None:
            raise TypeError("the solver returned no weights, and wrote none")
        return Model(
            coefficients,
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
