"""Gradient descent, with a constant learning rate or an exact line search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from streamreg.errors import DivergenceError, Message, Parameter, Remedy, Verbatim
from streamreg.solvers.base import EPS, Footprint, Status, gradient_pass, moments_pass
from streamreg.solvers.iterative import IterativeSolver
from streamreg.solvers.line_search import Iterate, line_search

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Problem
    from streamreg.solvers.iterative import Start
    from streamreg.solvers.standardization import Coordinates

_LEAST_LANCZOS_STEPS, _MOST_LANCZOS_STEPS = 8, 40
_LANCZOS_TOLERANCE = 1e-3
# a fit that ends with a larger gradient than this share of the first one gets a warning
_LARGE_GRADIENT = 0.05
# arrays as large as θ: θ, ∇f, direction, ∇²f·d, coefficients [w, d], coordinates, temporaries
_VECTORS = 24


@dataclass(frozen=True, eq=False)
class GradientDescent(IterativeSolver):
    """Gradient descent, w ← w - α∇f; it stops when an epoch lowers f by less than ``tol``·f.

    Without a learning rate, α = ∇f·∇f / ∇f·∇²f·∇f: exact line search.

    A given α converges if α < 2/λ, with λ the largest eigenvalue of ∇²f. Since
    ∇f₊ = (I - α∇²f)∇f, the gradients of successive epochs show whether 2I - α∇²f is positive on
    their span. If it is not, α is too large, even before the loss rises: ``solve`` raises
    :class:`DivergenceError`.
    """

    name: ClassVar[str] = "gd"
    summary: ClassVar[str] = "O(D) state"
    reads_sparse: ClassVar[bool] = True
    typical_epochs: ClassVar[int] = 200
    learning_rate: float | Literal["auto"] = "auto"

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        # passes with a direction, without one, and the one before the first epoch
        return Footprint(
            (
                gradient_pass(problem, 2 * k, k),
                gradient_pass(problem, k, k),
                moments_pass(problem),
            ),
            solver_nbytes=8 * _VECTORS * (d + 1) * k,
            # one pass more, for the means and deviations
            n_passes=min(self.typical_epochs, self.max_epochs) + 1,
            # two products with X and two with Xᵀ: one each for the residual and a direction
            row_flops=8.0 * d * k,
        )

    def first(self, start: Start) -> Iterate:
        now = start.now
        norm = np.asarray(np.linalg.norm(now.gradient, axis=0))
        return Iterate(
            start.theta,
            now.gradient,
            direction=np.where(start.arrived, 0.0, -now.gradient),
            loss=now.loss,
            measured_loss=now.loss,
            decrease=now.loss,
            start_norm=start.norm,
            start_loss=start.loss,
            lowest_norm=norm,
            idle_epochs=0 * norm,
            arrived=start.arrived,
            stalled=np.zeros_like(start.arrived),
            losses=np.array([start.coordinates.user_loss(now.loss)]),
        )

    def status_at_start(self, start: Start, iterate: Iterate) -> Status | None:
        del iterate
        return Status.SMALL_GRADIENT if start.arrived.all() else None

    def status_at_end(self, last: Iterate) -> Status:
        del last
        return Status.OUT_OF_EPOCHS

    def answer(self, coordinates: Coordinates, last: Iterate) -> tuple[Float64, Float64]:
        return coordinates.to_user(last.theta)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "learning_rate": self.learning_rate}

    def advance(self, coordinates: Coordinates, iterate: Iterate) -> Iterate:
        if self.learning_rate == "auto":
            after = line_search(coordinates, iterate)
            return after._replace(direction=-after.gradient)
        return self._constant_step(coordinates, iterate, self.learning_rate)

    def _constant_step(self, coordinates: Coordinates, iterate: Iterate, rate: float) -> Iterate:
        before = iterate.gradient
        theta = iterate.theta - rate * before
        loss, gradient, _ = coordinates.evaluate(theta)
        decrease = 0.5 * rate * np.sum(before * (before + gradient), axis=0)
        after = iterate._replace(
            theta=theta,
            gradient=gradient,
            direction=-before,
            loss=loss,
            measured_loss=loss,
            decrease=decrease,
            # a decrease below the last digit of f is rounding
            stalled=decrease <= 4 * EPS * iterate.loss,
            losses=np.append(iterate.losses, coordinates.user_loss(loss)),
        )
        if not np.isfinite(loss).all() or _is_unstable(iterate, after):
            raise self._diverged(coordinates, iterate)
        return after

    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        start = after.measured_loss if self.learning_rate == "auto" else before.loss
        exact = after.fits_exactly
        small = exact | after.arrived | (after.decrease < self.tol * start)
        if small.all():
            return Status.EXACT_FIT if exact.all() else Status.SMALL_DECREASE
        return after.end_by_rounding if (small | after.stalled).all() else None

    def end_warnings(self, start: Start, last: Iterate, status: Status) -> list[str]:
        del start
        if status is not Status.SMALL_DECREASE or last.relative_norm < _LARGE_GRADIENT:
            return []
        if self.learning_rate == "auto":
            cure = Message("pass less than ", Parameter("tol", Verbatim(f"{self.tol:g}")))
        else:
            rate = Parameter("learning_rate", Verbatim(f"{self.learning_rate:g}"))
            cure = Message(rate, ' is small; pass more, or "auto"')
        share = f"{last.relative_norm:.0%} of what it was at the start"
        doubt = f"the last epoch hardly lowered the loss, but its gradient is still {share}"
        return [f"{doubt}: this is no minimum. " + cure]

    def _diverged(self, coordinates: Coordinates, last: Iterate) -> DivergenceError:
        eigenvalue = _largest_eigenvalue(coordinates, last)
        if not 0 < eigenvalue < np.inf:
            return self._out_of_range(last.epoch + 1)
        largest = 2 / eigenvalue
        # one percent less, because the eigenvalue is an estimate
        shown = float(f"{0.99 * largest:.2e}")
        units = "standardised columns" if self.standardize else "columns as they are"
        error = DivergenceError(
            f"the loss rises from epoch {last.epoch + 1}: ",
            Parameter("learning_rate", self.learning_rate),
            " is too large for these data. The largest stable one is about "
            f"{shown:.3g} ({units}); pass less, or ",
            Remedy("learning_rate", "auto"),
        )
        error.largest_stable = shown
        return error


def _is_unstable(before: Iterate, after: Iterate) -> bool:
    """Whether 2I - α∇²f is negative somewhere on the span of the last two gradients."""
    last, now = -before.direction, before.gradient
    # 2I - α∇²f times each of them; before the first epoch there is no last gradient
    last_image, now_image = (last + now) * bool(before.epoch), now + after.gradient
    a = np.sum(last * last_image, axis=0)
    b = np.sum(now * last_image, axis=0)
    c = np.sum(now * now_image, axis=0)
    squared = np.sum(now * now, axis=0)
    # rounding of sums over many rows; measured: 1e-12 of a gradient if all rows are equal
    rounding = 1e5 * EPS * before.start_norm / np.sqrt(squared)
    negative = c < -rounding * squared
    indefinite = a * c - b * b < -rounding * np.sum(last * last, axis=0) * squared
    return bool((negative | indefinite).any())


def _largest_eigenvalue(coordinates: Coordinates, last: Iterate) -> float:
    """Return an upper estimate of ∇²f's largest eigenvalue by the Lanczos method, a pass a step.

    It starts at the last gradient, in which too large a step amplified that eigenvector, with noise
    added. The result is the largest eigenvalue of the tridiagonal matrix plus its residual.
    """
    target = int(np.argmax(last.gradient_norm))
    q = last.gradient[:, target] / last.gradient_norm[target]
    noise = np.random.default_rng(0).standard_normal(len(q)) * (last.gradient != 0).any(axis=1)
    q = q + noise / np.linalg.norm(noise)
    q /= np.linalg.norm(q)
    before, direction = np.zeros_like(q), np.zeros_like(last.gradient)
    matrix = np.zeros((_MOST_LANCZOS_STEPS + 1, _MOST_LANCZOS_STEPS + 1))
    for step in range(_MOST_LANCZOS_STEPS):
        direction[:, target] = q
        product = coordinates.evaluate(last.theta, direction).curvature[:, target]
        if not np.isfinite(product).all():
            return np.inf
        matrix[step, step] = q @ product
        product = product - matrix[step, step] * q - matrix[step, step - 1] * before
        matrix[step, step + 1] = matrix[step + 1, step] = rest = np.linalg.norm(product)
        values, vectors = np.linalg.eigh(matrix[: step + 1, : step + 1])
        residual = rest * abs(vectors[-1, -1])
        small = residual <= _LANCZOS_TOLERANCE * values[-1]
        # some steps at least, because a smaller eigenvalue may converge first
        if (small and step >= _LEAST_LANCZOS_STEPS) or rest <= 1e-12 * values[-1]:
            break
        before, q = q, product / rest
    return float(values[-1] + residual)
