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
# cg is chosen instead of the closed form, which has more digits, only if it is estimated to be
# faster by this factor, because the data may need more passes than the typical number
_CLEARLY_FASTER = 3.0


class SolverSettings(NamedTuple):
    """Parameters of a fit for solvers, already checked."""

    standardize: bool = True
    learning_rate: float | Literal["auto"] = "auto"
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None  # w at the start, (D, K) in the user's units


def _gradient_descent(settings: SolverSettings) -> Solver:
    shared = settings.standardize, settings.max_epochs, settings.tol, settings.init
    if settings.learning_rate == "auto":
        return SteepestDescent(*shared)
    return ConstantStepDescent(*shared, learning_rate=settings.learning_rate)


# each solver is one entry: its name, and the function that builds it
SOLVERS: dict[str, Callable[[SolverSettings], Solver]] = {
    ClosedForm.name: lambda _: ClosedForm(),
    SteepestDescent.name: _gradient_descent,
    ConjugateGradient.name: lambda s: ConjugateGradient(s.standardize, s.max_epochs, s.tol, s.init),
}


class Estimate(Protocol):
    """A solver's part of a plan: whether it fits the memory limit, and a rough time."""

    @property
    def fits(self) -> bool: ...

    @property
    def seconds(self) -> float: ...

    @property
    def passes(self) -> int: ...


def choose(estimates: Mapping[str, Estimate]) -> str:
    """Return the solver for ``"auto"``: the closed form if it fits, unless cg is clearly faster."""
    exact, iterative = estimates[ClosedForm.name], estimates[ConjugateGradient.name]
    if not exact.fits:
        return ConjugateGradient.name
    # ``max_epochs`` may allow fewer passes than a fit usually takes
    may_converge = iterative.passes > ConjugateGradient.typical_epochs
    is_slow = exact.seconds > _CLEARLY_FASTER * iterative.seconds
    if iterative.fits and may_converge and is_slow:
        return ConjugateGradient.name
    return ClosedForm.name
