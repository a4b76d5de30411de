"""The solvers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from streamreg.solvers.closed_form import ClosedForm
from streamreg.solvers.conjugate_gradient import ConjugateGradient
from streamreg.solvers.dual import Dual
from streamreg.solvers.gradient_descent import GradientDescent
from streamreg.solvers.qr import QR

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import Solver
    from streamreg.solvers.factor_solver import FactorSolver

AUTO = "auto"  # the solver is chosen by a plan


class SolverSettings(NamedTuple):
    """Parameters of a fit for solvers, already checked."""

    standardize: bool = True
    learning_rate: float | Literal["auto"] = "auto"
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None  # w at the start, (D, K) in the user's units
    inference: InferenceRequest | None = None
    precondition: int | Literal["auto"] | None = None  # directions of a preconditioner
    writes: bool = False  # whether weights of some targets may be written once they are found


# the name of each solver, and the function that builds it
SOLVERS: dict[str, Callable[[SolverSettings], Solver]] = {
    ClosedForm.name: lambda s: ClosedForm(s.inference, writes=s.writes),
    QR.name: lambda s: QR(s.inference),
    Dual.name: lambda _: Dual(),
    GradientDescent.name: lambda s: GradientDescent(
        s.standardize, s.max_epochs, s.tol, s.init, learning_rate=s.learning_rate
    ),
    ConjugateGradient.name: lambda s: ConjugateGradient(
        s.standardize,
        s.max_epochs,
        s.tol,
        s.init,
        s.inference,
        precondition=s.precondition if isinstance(s.precondition, int) else 0,
        adapts=s.precondition == AUTO,
    ),
}

# the names of those whose passes read sparse rows
SPARSE_SOLVERS = frozenset(
    each.name
    for each in (ClosedForm, QR, Dual, GradientDescent, ConjugateGradient)
    if each.reads_sparse
)

# the solver of each kind of statistics, by the value of the parameter ``kind``
SOLVER_OF_KIND: dict[str, type[FactorSolver]] = {
    each.statistic.kind: each for each in (ClosedForm, QR)
}
