"""What a solver is: it asks for passes over the data, and says when to stop.

A solver never sees a row. It is given ``reduce``, which runs one pass with an accumulator and
returns the statistic; ``report``, which takes each epoch's record; and the :class:`Problem`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from streamreg.errors import Message, Parameter, Remedy
from streamreg.solvers.losses import SquaredLoss
from streamreg.solvers.penalties import L2Penalty, Penalty

if TYPE_CHECKING:
    from streamreg.accumulators.base import Accumulator
    from streamreg.blocks import Float64

Result = TypeVar("Result")

_SQUARED_LOSS, _NO_PENALTY = SquaredLoss(), L2Penalty()
# float64's rounding: the step from 1 to the next number
EPS = sys.float_info.epsilon


class Reduce(Protocol):
    """Runs one pass over all rows."""

    def __call__(self, accumulator: Accumulator[Any, Result], /) -> Result:
        """Return the accumulator's statistic of all rows."""


@dataclass(frozen=True)
class Problem:
    """The objective, with sᵢ = 1 for rows without weights: the sum of a loss and a penalty.

        f(w, b) = 1/(2 Σsᵢ) · Σᵢ sᵢ (xᵢ·w + b - yᵢ)²  +  penalty(w)

    Attributes
    ----------
    n_features, n_targets
        D and K; the K problems are solved together.
    fit_intercept
        Whether b is free; otherwise it is 0. It is never penalised.
    loss
        The first term.
    penalty
        The second term.
    feature_names
        For messages.
    """

    n_features: int
    n_targets: int
    fit_intercept: bool = True
    loss: SquaredLoss = _SQUARED_LOSS
    penalty: Penalty = _NO_PENALTY
    feature_names: tuple[str, ...] | None = None

    def columns(self, numbers: list[int], most: int = 8) -> str:
        """Name columns for a message."""
        names = self.feature_names
        shown = [f"{j} ({names[j]!r})" if names else str(j) for j in sorted(numbers)[:most]]
        more = f" and {len(numbers) - most:,} more" if len(numbers) > most else ""
        return ("column " if len(numbers) == 1 else "columns ") + ", ".join(shown) + more


class Status(Enum):
    """Why a solver stopped; the value is a sentence for the user."""

    SOLVED = "The normal equations were solved."
    LEAST_NORM = (
        "Columns depend on each other; of all least-squares solutions the one of least norm was "
        "taken."
    )
    SMALL_GRADIENT = Message(
        "The gradient fell below ", Parameter("tol"), " of what it was at the start."
    )
    SMALL_DECREASE = Message(
        "The last epoch lowered the loss by less than ", Parameter("tol"), " of it."
    )
    EXACT_FIT = "The loss is zero to rounding."
    OUT_OF_EPOCHS = Message(
        Parameter("max_epochs"),
        " ran out before ",
        Parameter("tol"),
        " was reached; raise ",
        Remedy("max_epochs"),
        ", or ",
        Remedy("tol"),
        ".",
    )
    STALLED = Message(
        "Rounding hides what is left to gain. The answer is as good as these data allow with this "
        "solver; a larger ",
        Remedy("tol"),
        " stops here without a warning.",
    )

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self not in {Status.OUT_OF_EPOCHS, Status.STALLED}


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch did.

    Attributes
    ----------
    epoch
        1, 2, …
    loss
        f at its start, summed over targets.
    gradient_norm
        ‖∇f‖ after it, relative to the start of the fit, in the solver's coordinates; of several
        targets the largest. NaN where the solver has none.
    """

    epoch: int
    loss: float
    gradient_norm: float


Report = Callable[[EpochRecord], None]

Iterate = TypeVar("Iterate", bound=NamedTuple)


class IterateStore(Protocol):
    """Saves the iterates of a solver, so that a fit can be resumed.

    A resumed fit runs the solver again: saved passes are not run but return their results. A solver
    that saves iterates needs none of the passes between its first iterate and its last; a solver
    that saves none needs all of them.
    """

    def load(self, iterate: Iterate) -> Iterate:
        """Return the last saved iterate, or the given one if none was saved."""

    def save(self, iterate: Iterate) -> None:
        """Save an iterate: arrays in a named tuple, which the solver does not write to again."""


class NoIterateStore:
    """Saves nothing."""

    def load(self, iterate: Iterate) -> Iterate:
        """Return the iterate."""
        return iterate

    def save(self, iterate: Iterate) -> None:
        """Do nothing."""


NO_ITERATE_STORE = NoIterateStore()


@dataclass(frozen=True)
class Solution:
    """The answer, in the user's units."""

    coefficients: Float64  # (D, K)
    intercept: Float64  # (K,)
    status: Status
    n_epochs: int
    loss_history: list[float]
    # what deserves a look: constant or dependent columns, few digits
    warnings: list[str] = field(default_factory=list)


class PassFootprint(NamedTuple):
    """What a pass with one kind of accumulator keeps in memory, known without data."""

    state_nbytes: int
    scratch_nbytes: int  # of each thread
    earlier_nbytes: int = 0  # the state of an earlier pass
    n_parts: int = 1  # into which threads divide the work on a state that is kept once
    packs_panels: bool = False  # whether BLAS packs panels of matrices
    what: str = "sums"  # what the state is, and of what it consists, as a plan prints it
    why: str = ""


class Footprint(NamedTuple):
    """What a solver keeps in memory, known without data."""

    passes: tuple[PassFootprint, ...]  # of each kind that it may run, the main one first
    solver_nbytes: int  # vectors of the solver's own, and what it shares with every thread


class Work(NamedTuple):
    """What a solver computes, in floating-point operations: for rough estimates of time."""

    pass_flops: float
    solve_flops: float = 0.0


class Solver(ABC):
    """A way to minimise the objective, as frozen configuration.

    Attributes
    ----------
    name
        What the parameter ``solver`` calls it.
    summary
        What it is good for, in a few words.
    exact_pass_count
        The number of passes, if it does not depend on the data.
    uses_row_kernels
        Whether its passes reduce rows one after another, rather than multiply matrices.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    exact_pass_count: ClassVar[int | None] = None
    uses_row_kernels: ClassVar[bool] = True

    @abstractmethod
    def footprint(self, problem: Problem) -> Footprint:
        """Bytes that it needs beside the blocks."""

    @abstractmethod
    def work(self, problem: Problem, n_rows: int) -> Work:
        """Operations of one pass, and of what is computed between passes."""

    @abstractmethod
    def passes(self) -> int:
        """Return the number of passes: exact, or a typical one."""

    def identity(self) -> dict[str, Any]:
        """Return what its answer depends on, as in JSON: a checkpoint must agree on it."""
        return {"solver": self.name}

    @abstractmethod
    def solve(
        self,
        problem: Problem,
        reduce: Reduce,
        report: Report,
        iterates: IterateStore = NO_ITERATE_STORE,
    ) -> Solution:
        """Minimise the objective."""
