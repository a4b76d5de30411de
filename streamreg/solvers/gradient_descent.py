"""Gradient descent: with the learning rate that is given, or the best one for each epoch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamreg.errors import DivergenceError
from streamreg.solvers.base import Status
from streamreg.solvers.descent import Descent, Iterate, line_search

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Reduce
    from streamreg.solvers.coordinates import Coordinates

_TYPICAL_EPOCHS = 200
# f is computed with rounding: a rise of less than this part of it is none
_ROUNDING = 1e-9
_POWER_ITERATIONS = 8
_POWER_TOLERANCE = 1e-3


def _small_decrease(before: Iterate, after: Iterate, tol: float) -> Status | None:
    decrease = before.loss - after.loss
    return Status.SMALL_DECREASE if (decrease < tol * before.loss).all() else None


@dataclass(frozen=True, eq=False)
class SteepestDescent(Descent):
    """Gradient descent with exact line search: no learning rate to choose.

    Each epoch takes, with one pass, w ← w - α∇f with α = ∇f·∇f / ∇f·∇²f·∇f, the least loss along
    the gradient. It stops when an epoch lowers the loss by less than ``tol`` of it.
    """

    name: ClassVar[str] = "gd"

    def passes(self) -> int:
        return min(_TYPICAL_EPOCHS, self.max_epochs) + 1

    def advance(self, coordinates: Coordinates, reduce: Reduce, iterate: Iterate) -> Iterate:
        after = line_search(coordinates, reduce, iterate)
        return replace(after, direction=-after.gradient)

    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        return _small_decrease(before, after, self.tol)


@dataclass(frozen=True, eq=False)
class ConstantStepDescent(Descent):
    """The textbook update w ← w - α∇f with a given learning rate α.

    It converges if α < 2/λ, with λ the largest eigenvalue of ∇²f, and then the loss falls in every
    epoch; so a loss that rises tells that α is too large.

    Raises
    ------
    DivergenceError
        From ``solve``: the loss rose, or left the finite numbers.
    """

    name: ClassVar[str] = "gd"
    learning_rate: float = 0.1

    def passes(self) -> int:
        return min(_TYPICAL_EPOCHS, self.max_epochs) + 1

    def advance(self, coordinates: Coordinates, reduce: Reduce, iterate: Iterate) -> Iterate:
        theta = iterate.theta - self.learning_rate * iterate.gradient
        loss, gradient, _ = coordinates.evaluate(reduce, theta)
        # written so that NaN, too, counts as a rise
        if not (loss <= iterate.loss * (1 + _ROUNDING)).all():
            raise self._diverged(coordinates, reduce, iterate)
        return replace(
            iterate, theta=theta, gradient=gradient, loss=loss, epoch=iterate.epoch + 1
        )

    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        return _small_decrease(before, after, self.tol)

    def _diverged(
        self, coordinates: Coordinates, reduce: Reduce, last: Iterate
    ) -> DivergenceError:
        largest = 2 / _largest_eigenvalue(coordinates, reduce, last)
        # rounded down: the eigenvalue is approached from below
        shown = float(f"{0.995 * largest:.2e}")
        units = "standardised columns" if self.standardize else "columns as they are"
        error = DivergenceError(
            f"the loss rose in epoch {last.epoch + 1}: learning_rate={self.learning_rate!r} is "
            f"too large for these data. The largest stable one is about {shown:.3g} ({units}); "
            'pass less, or learning_rate="auto"'
        )
        error.largest_stable = shown
        return error


def _largest_eigenvalue(coordinates: Coordinates, reduce: Reduce, last: Iterate) -> float:
    """Return λ of ∇²f by power iteration from the last finite gradient; a pass each."""
    d: Float64 = last.gradient
    largest = 0.0
    for _ in range(_POWER_ITERATIONS):
        d = d / np.maximum(np.linalg.norm(d, axis=0), np.finfo(float).tiny)
        product = coordinates.evaluate(reduce, last.theta, d).curvature
        before, largest = largest, float(np.max(np.linalg.norm(product, axis=0)))
        if largest - before <= _POWER_TOLERANCE * largest:
            break
        d = product
    return largest
