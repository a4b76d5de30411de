"""The solvers by name, and the choice that ``solver="auto"`` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.gradient_descent import ConstantStepDescent, SteepestDescent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from streamreg.blocks import Float64
    from streamreg.solvers.base import Solver

AUTO = "auto"
# an iterative solver takes a typical number of passes, which the data may well exceed; the closed
# form, which has more digits, is given up only for one estimated to be faster by this factor
_CLEARLY_FASTER = 3.0


class SolverSettings(NamedTuple):
    """The parameters of a fit that solvers share, checked."""

    standardize: bool = True
    learning_rate: float | Literal["auto"] = "auto"
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None  # w to start from, (D, K) in the user's units


def _gradient_descent(settings: SolverSettings) -> Solver:
    shared = settings.standardize, settings.max_epochs, settings.tol, settings.init
    if settings.learning_rate == "auto":
        return SteepestDescent(*shared)
    return ConstantStepDescent(*shared, learning_rate=settings.learning_rate)


def _conjugate_gradient(settings: SolverSettings) -> Solver:
    return ConjugateGradient(settings.standardize, settings.max_epochs, settings.tol, settings.init)


# a solver is one entry: its name, and how it is made from the settings
SOLVERS: dict[str, Callable[[SolverSettings], Solver]] = {
    ClosedForm.name: lambda _: ClosedForm(),
    SteepestDescent.name: _gradient_descent,
    ConjugateGradient.name: _conjugate_gradient,
}


class Estimate(Protocol):
    """What a plan says of a solver."""

    @property
    def fits(self) -> bool:
        """Whether it fits the memory limit."""

    @property
    def seconds(self) -> float:
        """A rough estimate of its time."""


def choose(estimates: Mapping[str, Estimate]) -> str:
    """Return the solver for ``"auto"``: the closed form if it fits, unless cg is clearly faster."""
    exact, iterative = estimates[ClosedForm.name], estimates[ConjugateGradient.name]
    if not exact.fits:
        return ConjugateGradient.name
    is_slow = iterative.fits and exact.seconds > _CLEARLY_FASTER * iterative.seconds
    return ConjugateGradient.name if is_slow else ClosedForm.name
