"""Interface of solvers. A solver never sees a row; it calls ``reduce`` for each pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np

from streamreg.accumulators.gradient import gradient_nbytes
from streamreg.accumulators.moments import Moments
from streamreg.accumulators.residuals import copied_nbytes, residuals_nbytes
from streamreg.accumulators.sparse_gradient import sparse_gradient_nbytes
from streamreg.accumulators.sparse_moments import SparseMoments
from streamreg.blocks import ROWS, View
from streamreg.errors import Message, Parameter, Remedy
from streamreg.solvers.losses import SquaredLoss
from streamreg.solvers.penalties import L2Penalty, Penalty

if TYPE_CHECKING:
    from streamreg.accumulators.base import Accumulator
    from streamreg.accumulators.gradient import Gradient
    from streamreg.accumulators.sparse_gradient import SparseGradient
    from streamreg.blocks import Float64
    from streamreg.inference.result import Inference
    from streamreg.solvers.selection import Selection

    Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
    Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]

Result = TypeVar("Result")

EPS = float(np.finfo(float).eps)
LEAST_SQUARES = f"{SquaredLoss.name}, with {L2Penalty.name}"
_SQUARED_LOSS, _NO_PENALTY = SquaredLoss(), L2Penalty()
_FLOAT64 = np.dtype(np.float64)


class Reduce(Protocol):
    """Runs one pass over all rows and returns the accumulator's statistic."""

    def __call__(self, accumulator: Accumulator[Any, Result], /) -> Result:
        """Run the pass."""


class TargetWriter(Protocol):
    """Takes the weights of some targets."""

    def write(self, first_target: int, block: Float64) -> None:
        """Take weights (k, D) of k targets."""


@dataclass(frozen=True)
class Problem:
    """The objective, f(w, b) = loss(w, b) + penalty(w).

    The K targets are solved together. Without an intercept b is 0; it is never penalised.
    """

    n_features: int  # D
    n_targets: int  # K
    fit_intercept: bool = True
    loss: SquaredLoss = _SQUARED_LOSS
    penalty: Penalty = _NO_PENALTY
    feature_names: tuple[str, ...] | None = None
    n_rows: int = 0  # N, with rows that are left out; 0 if it is not known
    dtype: np.dtype[Any] = _FLOAT64  # of X, as blocks hold it
    is_sparse: bool = False  # whether blocks hold sparse rows
    column_step: int = 0  # columns of X that are read together, without the others; 0: rows are
    row_pairs: float = 0.0  # pairs of stored values of a sparse row, on average

    @property
    def gradient(self) -> type[Gradient | SparseGradient]:
        """Return the accumulator of the loss and its derivatives."""
        return self.loss.sparse_accumulator if self.is_sparse else self.loss.accumulator

    @property
    def moments(self) -> type[Moments | SparseMoments]:
        """Return the accumulator of first and second moments."""
        return SparseMoments if self.is_sparse else Moments

    def columns(self, numbers: Numbers) -> str:
        """Name columns for a message."""
        most = 8
        names = self.feature_names
        shown = [f"{j} ({names[j]!r})" if names else str(j) for j in sorted(numbers)[:most]]
        more = f" and {len(numbers) - most:,} more" if len(numbers) > most else ""
        return ("column " if len(numbers) == 1 else "columns ") + ", ".join(shown) + more


class Status(Enum):
    """Why a solver stopped; the value is a sentence for the user."""

    SOLVED = "The least-squares problem was solved."
    LEAST_NORM = (
        "Columns depend on each other; of all least-squares solutions the one of least norm was "
        "taken."
    )
    SMALL_GRADIENT = Message(
        "The norm of the gradient fell below ", Parameter("tol"), " times that at the start."
    )
    SMALL_DECREASE = Message(
        "The last epoch lowered the loss by less than ", Parameter("tol"), " times the loss."
    )
    EXACT_FIT = "The loss is zero to rounding."
    COARSE_GRAM = Message(
        "XᵀX does not keep the digits that the weights of these columns, or their standard errors, "
        "need; pass ",
        Remedy("solver", "qr"),
        ".",
    )
    COARSE_FOLDS = Message(
        "XᵀX does not keep the digits that the weights of these columns need; fit them with the "
        "best penalty by LinearRegression and ",
        Remedy("solver", "qr"),
        ".",
    )
    COARSE_STATISTICS = Message(
        "XᵀX does not keep the digits that the weights of these columns, or their standard errors, "
        "need, and statistics keep no rows to correct them; gather them with ",
        Remedy("kind", "qr"),
        ", or fit the data.",
    )
    COARSE_TARGETS = Message(
        "XᵀX does not keep six digits of the weights of some targets, which are too many to be "
        "corrected by passes; pass a larger ",
        Remedy("l2"),
        ", leave out columns that nearly depend on others, or fit few targets by ",
        Remedy("solver", "qr"),
        ".",
    )
    NEEDS_ROWS = (
        "The rows are needed to correct the weights, and statistics keep none; fit the data."
    )
    COARSE_PRODUCTS = Message(
        "XXᵀ does not keep the digits that the weights of these rows need, because some rows "
        "nearly depend on others; pass a larger ",
        Remedy("l2"),
        ", or ",
        Remedy("solver", "qr"),
        ".",
    )
    TOO_DEPENDENT = (
        "The columns are so nearly dependent that float64 does not keep the digits that their "
        "weights need."
    )
    TOO_FEW_DIGITS = (
        "Rounding leaves fewer than 10 right digits of the largest weights, for example because "
        "the first row is far from the others."
    )
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
    UNCHECKED = Message(
        "The gradient fell below ",
        Parameter("tol"),
        ", but a second right-hand side, whose answer is known, shows that digits of the weights "
        "are missing; raise ",
        Remedy("max_epochs"),
        ", or pass ",
        Remedy("solver", "qr"),
        ".",
    )
    UNCONFIRMED = Message(
        "The gradient fell below ",
        Parameter("tol"),
        ", but ",
        Parameter("max_epochs"),
        " ran out before a pass measured it and corrected the weights, of which digits may be "
        "missing; raise ",
        Remedy("max_epochs"),
        ".",
    )
    STALLED = Message(
        "The rest of the gradient is rounding. The answer is as good as these data allow with this "
        "solver; with a larger ",
        Remedy("tol"),
        " the fit ends without a warning.",
    )

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self not in {
            Status.OUT_OF_EPOCHS,
            Status.STALLED,
            Status.UNCHECKED,
            Status.UNCONFIRMED,
            Status.COARSE_GRAM,
            Status.COARSE_FOLDS,
            Status.COARSE_STATISTICS,
            Status.COARSE_TARGETS,
            Status.NEEDS_ROWS,
            Status.COARSE_PRODUCTS,
            Status.TOO_DEPENDENT,
            Status.TOO_FEW_DIGITS,
        }


@dataclass(frozen=True)
class EpochRecord:
    """Progress of one epoch.

    ``gradient_norm`` is ‖∇f‖ after the epoch, relative to the start of the fit, in the solver's
    coordinates: the largest of all targets, or NaN if the solver has none.
    """

    epoch: int  # 1, 2, …
    loss: float  # f at the start of the epoch, summed over targets
    gradient_norm: float


Report = Callable[[EpochRecord], None]

Iterate = TypeVar("Iterate", bound=NamedTuple)


class IterateStore:
    """Saves the iterates of a solver, so that a fit can be resumed; this one saves nothing.

    A resumed fit runs the solver again, and saved passes return their saved results. A solver that
    saves iterates skips the passes between its first iterate and its last.
    """

    def load(self, iterate: Iterate) -> Iterate:
        """Return the last saved iterate, or the given one if none was saved."""
        return iterate

    def save(self, iterate: Iterate) -> None:
        """Save a named tuple of arrays, which the solver does not write to again."""
        del iterate


NO_ITERATE_STORE = IterateStore()


@dataclass(frozen=True)
class Solution:
    """The solution in the user's units."""

    coefficients: Float64 | None  # (D, K); ``None`` if the solver wrote them: ``writing_to``
    intercept: Float64  # (K,)
    status: Status
    n_epochs: int
    loss_history: list[float]
    warnings: list[str] = field(default_factory=list)
    # (D, K) trusted digits of the coefficients, NaN where the data determine none; None: unknown
    digits: Float64 | None = None
    # κ₂ of the centred columns, scaled by powers of two to deviations of ½ to 1; if some depend on
    # others, a lower bound
    condition: float | None = None
    inference: Inference | None = None  # standard errors, if the fit was asked for them
    selection: Selection | None = None  # of the penalty, if the fit chose it

    def followed_by(self, later: Solution) -> Solution:
        """Return the solution of a solver that ran after this one, with the epochs of both."""
        return replace(
            later,
            n_epochs=self.n_epochs + later.n_epochs,
            loss_history=[*self.loss_history, *later.loss_history[1:]],
        )


class PassFootprint(NamedTuple):
    """Memory of a pass with one kind of accumulator, known without data."""

    state_nbytes: int
    scratch_nbytes: int  # of each thread
    earlier_nbytes: int = 0  # the state of an earlier pass
    n_parts: int = 1  # parts of one shared state, on which different threads work
    multiplies_matrices: bool = False  # by BLAS, which packs panels; else row kernels run
    tile_rows: int = 0  # rows that are read at a time from files; 0: as the compiled loops do
    fixed_nbytes: int = 0  # of the scratch memory, whatever the rows of a block are
    row_nbytes: int = 0  # of the scratch memory, for each row of a tile
    part_nbytes: int = 0  # of the scratch memory, of each thread that works on a part
    part_row_nbytes: int = 0  # likewise, for each row of a tile
    in_order: bool = False  # whether one thread reads all rows, in their order
    view: View = ROWS  # what the rows of blocks are
    what: str = "sums"  # name of the state, as a plan prints it
    why: str = ""  # how its size is computed, as a plan prints it


def gradient_pass(problem: Problem, n_columns: int, n_targets: int) -> PassFootprint:
    """Return the footprint of a pass of the loss and its derivatives, with M columns."""
    d = problem.n_features
    if problem.is_sparse:
        return PassFootprint(*sparse_gradient_nbytes(d, n_columns, n_targets))
    return PassFootprint(*gradient_nbytes(d, n_columns, n_targets))


def moments_pass(problem: Problem) -> PassFootprint:
    """Return the footprint of a pass of first and second moments."""
    moments = problem.moments(problem.n_features, problem.n_targets)
    return PassFootprint(moments.state_nbytes, moments.scratch_nbytes)


def residuals_pass(problem: Problem, n_columns: int) -> PassFootprint:
    """Return the footprint of a pass of residuals in two floats, with M columns."""
    d = problem.n_features
    state_nbytes, scratch_nbytes = residuals_nbytes(d, n_columns)
    if problem.is_sparse:
        scratch_nbytes = copied_nbytes(d, n_columns)
    return PassFootprint(state_nbytes, scratch_nbytes)


class Footprint(NamedTuple):
    """Memory and work of a solver, known without data."""

    passes: tuple[PassFootprint, ...]  # one for each kind of pass, the main one first
    solver_nbytes: int  # the solver's own vectors, and arrays that all threads share
    n_passes: int  # exact, or a typical number
    row_flops: float  # operations of one pass, for each row
    solve_flops: float = 0.0  # operations between passes
    is_exact: bool = False  # whether ``n_passes`` does not depend on the data
    # of a fit that takes many passes: as many ordinary ones cost about as much
    many_passes: float = 1.0
    counts_pairs: bool = False  # whether ``row_flops`` is of the stored values of sparse rows
    # what else the solver keeps: name, bytes, and how they are computed, as a plan prints them
    others: tuple[tuple[str, int, str], ...] = ()
    # taken before the first pass, and freed: what takes it, bytes, and how they are computed
    before: tuple[str, int, str] = ("", 0, "")
    # what a preconditioner has, and about what it saves, as a plan prints it
    preconditioner: str = ""


class Solver(ABC):
    """A way to minimise the objective, as frozen configuration."""

    name: ClassVar[str]  # value of the parameter ``solver``
    summary: ClassVar[str]  # its strength, in a few words
    more_digits: ClassVar[str | None] = None  # the solver to run if this one ends with too few
    runs_on_device: ClassVar[bool] = True  # whether a GPU has its kernels
    reads_sparse: ClassVar[bool] = False  # whether its passes are planned for sparse rows
    runs_on_cluster: ClassVar[bool] = True  # whether its passes can be divided among workers

    @property
    def infers(self) -> bool:
        """Whether it gives the standard errors that it is asked for."""
        return False

    def penalty(self, l2: float) -> Penalty:
        """Return the penalty of the objective: l2, unless a solver overrides this method."""
        return L2Penalty(l2)

    @property
    def objective(self) -> str:
        """What the solver minimises; a plan compares only solvers that minimise the same."""
        return f"{SquaredLoss.name}, with {self.penalty(0.0).name}"

    def panel_counts(self, problem: Problem) -> Iterable[int]:
        """Return in how many panels, one pass each, it can compute its state: the fewest first."""
        del problem
        return (1,)

    def with_panels(self, n_panels: int) -> Solver:
        """Return the same solver, with its state computed in this many panels."""
        del n_panels
        return self

    def direction_counts(self, problem: Problem) -> Iterable[int]:
        """Return how many directions of a preconditioner spare memory may buy: the most first."""
        del problem
        return ()

    def with_directions(self, n_directions: int) -> Solver:
        """Return the same solver, with this many directions of a preconditioner."""
        del n_directions
        return self

    def writing_to(self, writer: TargetWriter) -> Solver:  # noqa: ARG002
        """Return the same solver, which may write weights of some targets once they are found."""
        return self

    def targets_of_pass(self, problem: Problem) -> int:
        """Return the most targets that a pass reads."""
        return problem.n_targets

    @abstractmethod
    def footprint(self, problem: Problem) -> Footprint:
        """Return the memory, the passes and the operations that the solver needs."""

    def identity(self) -> dict[str, Any]:
        """Return the settings that a checkpoint must agree on, as JSON values."""
        return {"solver": self.name}

    @abstractmethod
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        """Minimise the objective."""
