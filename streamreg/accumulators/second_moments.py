"""Second moments of (X, y), from which least squares is solved without the rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from streamreg.accumulators.base import Accumulator, State

if TYPE_CHECKING:
    from streamreg.accumulators.base import Scaling
    from streamreg.blocks import Float64

    Mask = np.ndarray[tuple[int], np.dtype[np.bool_]]
    Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]

# smaller squares, times weights of 1e-120, may have lost digits to underflow
_SMALLEST_SQUARE = 2.0**-600


class SecondMomentsResult(Protocol):
    """What all second moments tell, of columns multiplied by ``Scaling`` if the pass had one."""

    @property
    def n(self) -> int:
        """Rows."""

    @property
    def s(self) -> float:
        """Σ sᵢ."""

    @property
    def updates(self) -> int:
        """Additions to the square array, each of which rounds."""

    @property
    def origin(self) -> Float64:
        """(D,) the first row; zeros where nothing is centred."""

    @property
    def offset(self) -> Float64:
        """(D,) x̄ less the origin; zeros where nothing is centred."""

    @property
    def varies(self) -> Float64:
        """(D,) 1 where a column is not constant (not zero, if not centred)."""

    @property
    def y_origin(self) -> Float64:
        """(K,) the first y; zeros where nothing is centred."""

    @property
    def y_offset(self) -> Float64:
        """(K,) ȳ less the origin; zeros where nothing is centred."""

    @property
    def variances(self) -> Float64:
        """(D + K,) of X and y, about the mean where the pass is centred."""

    @property
    def may_vary(self) -> Mask:
        """(D + K,) whether a column of X and y is not known to be constant."""


class Products(NamedTuple):
    """Sums of products about the means."""

    xx: Float64  # (D, D) Σ sᵢ (xᵢ - x̄)(xᵢ - x̄)ᵀ
    xy: Float64  # (D, K) Σ sᵢ (xᵢ - x̄)(yᵢ - ȳ)ᵀ
    yy: Float64  # (K,)   Σ sᵢ (yᵢ - ȳ)²


def require_sums(state: Any, squares: Float64) -> None:  # noqa: ANN401  (a named tuple)
    """Raise ``ValueError`` if counts, flags or sums of squares of a file are impossible."""
    if not (state.n >= 1 and state.s > 0 and state.updates >= 1):
        raise ValueError(f"its sums are of {float(state.n)} rows of weight {float(state.s)}")
    flags = np.concatenate([state.varies, getattr(state, "y_varies", state.varies)])
    if not np.isin(flags, (0.0, 1.0)).all() or (squares < 0).any():
        raise ValueError("its sums of squares are negative")


@dataclass(frozen=True, eq=False)
class SecondMoments(Accumulator[State, Any]):
    """Second moments, of rows that need not be read again.

    A state of centred sums gives that of any subset of the columns, and that about zero, of a fit
    without intercept.
    """

    kind: ClassVar[str]  # value of the parameter ``kind`` of statistics
    symbol: ClassVar[str]  # what keeps the digits
    squares_condition: ClassVar[bool]  # whether its condition number is that of X squared

    n_features: int  # D
    n_targets: int  # K
    centred: bool = True  # about the means; False: about zero, for a fit without intercept
    scaling: Scaling | None = None

    @classmethod
    @abstractmethod
    def select(cls, state: State, columns: Numbers, targets: Numbers) -> State:
        """Return the state of some columns and targets, in this order; the state stays."""

    @classmethod
    @abstractmethod
    def rescale(cls, state: State, x: Float64, y: Float64) -> None:
        """Multiply columns by powers of two, (D,) and (K,), in place."""

    @classmethod
    @abstractmethod
    def uncentre(cls, state: State) -> None:
        """Turn sums about the means into sums about zero, in place."""

    @classmethod
    @abstractmethod
    def products(cls, state: State) -> Products:
        """Return sums of products about the means; they may share memory with the state."""

    @classmethod
    @abstractmethod
    def settle(cls, state: State) -> None:
        """Write what a pass leaves open, in place: equal sums are then equal bytes."""

    @classmethod
    @abstractmethod
    def require_consistent(cls, state: State) -> None:
        """Raise ``ValueError`` if finite numbers of a file cannot be the state of any rows."""


def is_out_of_range(result: SecondMomentsResult) -> bool:
    """Whether squares of the data left float64's range."""
    variances = result.variances
    too_small = result.may_vary & (variances < _SMALLEST_SQUARE)
    return bool((~np.isfinite(variances) | too_small).any())
