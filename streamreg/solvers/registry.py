"""The solvers by name, and the parameters that they share."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from streamreg.errors import InputError
from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.gradient_descent import ConstantStepDescent, SteepestDescent

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Solver

NAMES = ("closed_form", "gd", "cg")


@dataclass(frozen=True, eq=False)
class SolverSettings:
    """What a user may choose about a solver.

    Raises
    ------
    InputError
        A value that no solver can use.
    """

    solver: str = "auto"
    standardize: bool = True
    learning_rate: float | Literal["auto"] = "auto"
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None

    def __post_init__(self) -> None:
        if self.solver not in (*NAMES, "auto"):
            known = ", ".join(repr(name) for name in ("auto", *NAMES))
            raise InputError(f"solver={self.solver!r} is not known; choose one of {known}")
        rate = self.learning_rate
        if rate != "auto" and not (_is_number(rate) and math.isfinite(rate) and rate > 0):
            raise InputError(
                f'learning_rate={rate!r} must be a number above 0, or "auto" for the best step '
                "of each epoch"
            )
        if not (_is_number(self.max_epochs) and self.max_epochs >= 1 and self.max_epochs % 1 == 0):
            raise InputError(f"max_epochs={self.max_epochs!r} must be a whole number, at least 1")
        if not (_is_number(self.tol) and 0 <= self.tol < 1):
            raise InputError(f"tol={self.tol!r} must be a number from 0 to below 1")

    def build(self, name: str) -> Solver:
        """Return the solver of that name with these settings."""
        if name == "closed_form":
            return ClosedForm()
        if name == "cg":
            return ConjugateGradient(self.standardize, int(self.max_epochs), self.tol, self.init)
        if self.learning_rate == "auto":
            return SteepestDescent(self.standardize, int(self.max_epochs), self.tol, self.init)
        return ConstantStepDescent(
            self.standardize, int(self.max_epochs), self.tol, self.init,
            learning_rate=float(self.learning_rate),
        )  # fmt: skip


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
