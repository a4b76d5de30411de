"""The solvers by name, and the parameters that they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from streamreg import validate
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
        validate.choice("solver", self.solver, ("auto", *NAMES))
        validate.flag("standardize", self.standardize)
        if not isinstance(self.learning_rate, str) or self.learning_rate != "auto":
            validate.number(
                "learning_rate", self.learning_rate, lambda rate: 0 < rate < math.inf,
                'a number above 0, or "auto" for the best step of each epoch',
            )  # fmt: skip
        validate.whole("max_epochs", self.max_epochs)
        validate.number("tol", self.tol, lambda tol: 0 <= tol < 1, "a number from 0 to below 1")

    def build(self, name: str) -> Solver:
        """Return the solver of that name with these settings."""
        if name == "closed_form":
            return ClosedForm()
        shared = bool(self.standardize), int(self.max_epochs), float(self.tol), self.init
        if name == "cg":
            return ConjugateGradient(*shared)
        if self.learning_rate == "auto":
            return SteepestDescent(*shared)
        return ConstantStepDescent(*shared, learning_rate=float(self.learning_rate))
