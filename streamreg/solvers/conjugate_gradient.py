"""Conjugate gradients: O(D) state, and about as many epochs as the condition number of X."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.solvers.base import (
    EPS,
    Footprint,
    Status,
    gradient_pass,
    moments_pass,
    residuals_pass,
)
from streamreg.solvers.cg_iterate import Iterate
from streamreg.solvers.cg_preconditioning import MANY_EPOCHS, Preconditioning
from streamreg.solvers.cg_steps import (
    LEAST_CURVED,
    LEAST_TOL,
    choose,
    choose_first,
    corrected,
    dependence,
    multiplied,
)
from streamreg.solvers.contrasts import Fitted, infer_contrasts, with_contrasts
from streamreg.solvers.diagnostics import dependent_column_warnings, near_dependence_warnings
from streamreg.solvers.directions import Directions, rounding_of_columns
from streamreg.solvers.exact_gradient import ExactPoint, measure_exactly
from streamreg.solvers.iterative import IterativeSolver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.blocks import Float64
    from streamreg.inference.request import InferenceRequest
    from streamreg.inference.result import Inference
    from streamreg.solvers.base import Mask, Problem, Solver
    from streamreg.solvers.iterative import Start
    from streamreg.solvers.preconditioner import Preconditioner
    from streamreg.solvers.standardization import Coordinates

# a smaller one still leads to digits, which the last pass confirms: that pass is then the only one
_LEAST_FULL_TOL = 1e-15
# Kept directions, with their images: all (D ≤ 361), or none, because directions that are not kept
# lose what the kept ones gain. A function of D alone: bits must not depend on ``memory_limit``.
_KEPT_NBYTES = 2 << 20
# With this tol or a smaller one, and fewer columns, a fit goes on until more epochs would change no
# weight by more than _LAST_CHANGE of it. A small gradient alone left 5 to 8 digits of the weights
# of independent columns: 20 to 127 took 11 to 19 passes, and now take 16 to 33. From D = 128 on,
# tables took up to 2.9 times the passes. A function of D and tol alone, because bits must be.
_FULL_TOL, _FULL_FEATURES, _LAST_CHANGE = 1e-8, 128, 5e-13
# the check is met by this error of the known weights, of which the largest is 1.5
_CHECKED = 1e-3
# and by this one, if it costs few passes more
_COMPLETE = 1e-12
# after a correction, this error of the weights is left, of the largest
_SETTLED = 1e-13
# a larger error is reported
_NEEDED = 1e-10
# corrections end when they hardly shrink
_LEAST_GAIN = 0.1
# A smaller ‖Xe‖/Σ|eⱼ|·‖xⱼ‖, of the error e of a check, is a dependence of values as they are
# stored. Measured: rounding leaves 0.3 to 4 EPS. More than 6 hides what kept directions still find.
_DEPENDENT = 6 * EPS
# of the error of a check, a correction leaves more of a dependence
_LEAST_STAYING = 0.5
# Where no directions are kept, the fit ends if it is smaller than this, and hardly shrinks between
# two measurements. Of 381 columns, one a sum of two and a difference of 1e-8 to 1e-10, it found all
# weights to 8 digits in 189 to 229 epochs; of 1e-11 and less, it found none.
_NEARLY_DEPENDENT = 1e-7
# no more directions are sought after this many epochs without one that is more than rounding
_MOST_BARREN = 2
# arrays as large as θ, for each target and for the check
_VECTORS = 18


@dataclass(frozen=True, eq=False)
class ConjugateGradient(IterativeSolver):
    """Conjugate gradients on the normal equations of the standardised columns [1]_, [2]_.

    Each epoch takes one pass, which multiplies ∇²f with some directions p: one for each of the K
    targets, and one for a check, a right-hand side ∇²f·v of known random weights v. All K + 1
    solutions go to the least f along all of these directions if D ≤ 361, and each along its own if
    not. The next ones are gradients, made conjugate to all that came before, or to the last one of
    their own. If D > 361, they may be multiplied by a preconditioner first, which takes a pass.

    When every target has ‖∇f‖ ≤ tol·‖∇f at the start‖ and the check found v, a pass measures ∇f in
    two floats, and the directions correct the weights. The fit ends there if both still hold, but
    for dependences between columns; if not, it goes on. If tol ≤ 1e-8 and D < 128, it also goes on
    until more epochs would leave 12 digits of the weights as they are.

    References
    ----------
    .. [1] Hestenes & Stiefel (1952), J. Res. Natl. Bur. Stand. 49(6), 409-436.
    .. [2] O'Leary (1980), Linear Algebra Appl. 29, 293-322: directions that serve all columns.
    """

    name: ClassVar[str] = "cg"
    summary: ClassVar[str] = "O(D) state, few passes"
    reads_sparse: ClassVar[bool] = True
    typical_epochs: ClassVar[int] = 40

    request: InferenceRequest | None = None  # chosen standard errors
    precondition: int = 0  # directions of the preconditioner; 0 for none
    adapts: bool = False  # a plan chooses them, and their pass runs only if many epochs are needed

    @property
    def _preconditioning(self) -> Preconditioning:
        return Preconditioning(self.precondition, self.adapts, self.standardize)

    def direction_counts(self, problem: Problem) -> Iterable[int]:
        # where all directions are kept, there is none
        return () if _most_kept(problem.n_features) else self._preconditioning.counts(problem)

    def with_directions(self, n_directions: int) -> Solver:
        return replace(self, precondition=n_directions)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "precondition": self.precondition, "adapts": self.adapts}

    @property
    def infers(self) -> bool:
        request = self.request
        return request is not None and request.columns is not None and request.is_diagonal

    def footprint(self, problem: Problem) -> Footprint:
        d, k = problem.n_features, problem.n_targets
        kept_nbytes = 16 * (d + 1) * _most_kept(d)
        footprint = Footprint(
            (
                # products with directions, ∇f at the start, ∇f in two floats, and moments
                gradient_pass(problem, k + 1, 0),
                gradient_pass(problem, 2 * k, k),
                residuals_pass(problem, k + 1),
                moments_pass(problem),
            ),
            # directions are copied as one is added
            solver_nbytes=8 * _VECTORS * (d + 1) * (k + 1) + 2 * kept_nbytes,
            n_passes=min(self.typical_epochs, self.max_epochs) + 1,
            row_flops=4.0 * d * (k + 1),
            many_passes=MANY_EPOCHS,
        )
        if not _most_kept(d):
            footprint = self._preconditioning.added_to(footprint, problem)
        return with_contrasts(footprint, problem, self.request, self.max_epochs)

    def first(self, start: Start) -> Iterate:
        coordinates, theta = start.coordinates, start.theta
        size, k = theta.shape
        point = ExactPoint.of(coordinates, theta)
        known = _known_weights(coordinates, start)
        start_norm = start.norm
        least_tol = _LEAST_FULL_TOL if self._is_full(size - 1) else LEAST_TOL
        goal = np.append(least_tol * start_norm, 0.0)
        now_norm = np.linalg.norm(start.now.gradient, axis=0)
        goal[:-1][start.arrived | (now_norm <= self._met(start_norm))] = np.inf
        none = Directions.none(size)
        last = none if _most_kept(size - 1) else Directions.zeros(k + 1, size)
        zero = np.zeros(())
        iterate = Iterate(
            w=np.stack(point.w),
            b=np.stack(point.b),
            error=known,
            gradient=np.hstack([start.now.gradient, 0 * known]),
            goal=goal,
            directions=np.zeros((size, k + 1)),
            loss=start.now.loss,
            start_norm=start_norm,
            start_loss=start.loss,
            largest=zero,
            least=zero + np.inf,
            barren=zero,
            step=np.full(k, np.inf),
            change=zero + np.inf,
            left=zero + np.inf,
            wanted=zero + _CHECKED,
            is_dependent=zero,
            share=zero + np.inf,
            column_squares=np.zeros(size),
            is_settled=zero,
            losses=np.array([coordinates.user_loss(start.now.loss)]),
            vectors=none.vectors,
            images=none.images,
            curvatures=none.curvatures,
            last_vectors=last.vectors,
            last_images=last.images,
            last_curvatures=last.curvatures,
            factor=np.empty((0, self._preconditioning.factor_columns(coordinates))),
            columns=np.empty(0),
            has_tried=zero,
        )
        return iterate._replace(directions=choose_first(iterate))

    def status_at_start(self, start: Start, iterate: Iterate) -> Status | None:
        # standard errors need the check, which tells whether columns depend on each other
        needs_check = self.infers and iterate.error.any()
        return Status.SMALL_GRADIENT if start.arrived.all() and not needs_check else None

    def advance(self, coordinates: Coordinates, iterate: Iterate) -> Iterate:
        if not iterate.directions.any():
            return self._measured(coordinates, iterate)
        if self._is_due(coordinates.problem, iterate):
            found = self._preconditioning.find(coordinates)
            iterate = iterate._replace(has_tried=np.ones(()))
            if found.n_passes:
                return self._preconditioned(iterate, found.preconditioner)
        after = multiplied(coordinates, iterate)
        directions = choose(after)
        # targets take part until the check is met too
        is_met = self._is_met(after) | (after.norms[:-1] <= after.goal[:-1])
        if is_met.all() and after.is_checked:
            directions[...] = 0.0
        return after._replace(directions=directions)

    def _is_due(self, problem: Problem, iterate: Iterate) -> bool:
        """Whether a preconditioner is sought next."""
        if iterate.has_tried or _most_kept(problem.n_features):
            return False
        left = iterate.epochs_left(self._met(iterate.start_norm))
        return self._preconditioning.pays(problem, iterate.epoch, left)

    def _preconditioned(self, before: Iterate, found: Preconditioner) -> Iterate:
        """Return what follows the pass of a preconditioner, which changes no weight."""
        after = before._replace(losses=np.append(before.losses, before.losses[-1]))
        if not len(found.factor):
            return after
        after = after.with_preconditioner(found)
        return after._replace(directions=choose_first(after))

    def _met(self, start_norm: Float64) -> Float64:
        """Return the ‖∇f‖ that meet the tolerance, (K,)."""
        return max(self.tol, LEAST_TOL) * start_norm

    def _is_met(self, iterate: Iterate) -> Mask:
        """Which targets meet the tolerance, and have digits that more epochs would not change."""
        is_met = np.asarray(iterate.norms[:-1] <= self._met(iterate.start_norm))
        if not self._is_full(len(iterate.gradient) - 1):
            return is_met
        return is_met & (iterate.steps_left <= _LAST_CHANGE)

    def _is_full(self, n_features: int) -> bool:
        """Whether 12 digits are sought, not a small gradient alone."""
        return self.tol <= _FULL_TOL and n_features < _FULL_FEATURES

    def _measured(self, coordinates: Coordinates, before: Iterate) -> Iterate:
        """Run a pass in two floats, and correct the weights."""
        checks = not before.is_checked
        measured = measure_exactly(coordinates, before.point, before.error if checks else None)
        gradient = before.gradient.copy()
        gradient[:, :-1] = measured.gradient
        share, is_dependent = np.inf, bool(before.is_dependent)
        if checks:
            gradient[:, -1:] = -measured.image
        loss = measured.loss
        after = before._replace(gradient=gradient, loss=loss)
        if checks:
            share = dependence(coordinates, after)
        after, change, check_change = corrected(coordinates, after)
        if checks:
            if np.max(np.abs(after.error)) > _LEAST_STAYING * np.max(np.abs(before.error)):
                # without the rounding of the known weights, which the correction removes
                share = min(share, dependence(coordinates, after))
            is_dependent = share <= _DEPENDENT
        # of successive corrections
        ratio = change / before.change if np.isfinite(before.change) else 0.0
        condition = np.sqrt(after.largest / after.least) if after.least > 0 else 1.0
        left = change * min(1.0, max(rounding_of_columns(len(gradient)) * condition, ratio))
        is_settled = left <= _SETTLED and check_change <= _CHECKED
        now = coordinates.user_loss(loss)
        after = after._replace(
            change=np.asarray(change),
            left=np.asarray(left),
            is_dependent=np.asarray(float(is_dependent)),
            share=np.asarray(share),
            is_settled=np.asarray(float(is_settled or ratio > _LEAST_GAIN)),
            losses=np.append(np.maximum(before.losses, now), now),
        )
        if self._completing_pays(coordinates, after):
            after = after._replace(wanted=np.asarray(_COMPLETE))
        is_met = self._is_met(after)
        is_hopeless = after.barren >= _MOST_BARREN or (
            len(after.last_curvatures) and _LEAST_GAIN * before.share < share < _NEARLY_DEPENDENT
        )
        if (is_met.all() and after.is_checked) or is_hopeless:
            return after._replace(directions=0 * gradient)
        # further, because a small gradient does not show that the weights are right
        goal = LEAST_TOL * after.norms
        if len(after.last_curvatures) and share < LEAST_CURVED:
            # along a dependence, more directions would only add rounding to the weights
            goal[:-1][is_met] = np.inf
        after = after._replace(goal=goal)
        return after._replace(directions=choose(after))

    def _completing_pays(self, coordinates: Coordinates, iterate: Iterate) -> bool:
        """Whether all directions take no more epochs than conjugate gradients without them.

        Those take about ½ κ ln(2/tol), where κ is the condition number of X.
        """
        size, n_columns = iterate.gradient.shape
        if _most_kept(size - 1) < size or not iterate.error.any() or not iterate.least > 0:
            return False
        n_all = np.count_nonzero(np.isfinite(coordinates.scale))
        n_missing = max(0, n_all - len(iterate.curvatures))
        kappa = np.sqrt(iterate.largest / iterate.least)
        usual = 0.5 * kappa * np.log(2 / max(self.tol, LEAST_TOL))
        return bool(iterate.epoch + n_missing / n_columns <= usual)

    def verdict(self, before: Iterate, after: Iterate) -> Status | None:
        if before.directions.any() or after.directions.any():
            return None
        if not after.is_settled:
            return None
        if after.left > _NEEDED or not after.is_checked_to(_CHECKED):
            return Status.TOO_DEPENDENT
        if after.fits_exactly.all():
            return Status.EXACT_FIT
        # no tol below 16·EPS is met, because weights are rounded
        is_met = self.tol > 16 * EPS and after.relative_norm <= max(self.tol, LEAST_TOL)
        return Status.SMALL_GRADIENT if is_met else Status.STALLED

    def status_at_end(self, last: Iterate) -> Status:
        if last.relative_norm > self.tol:
            return Status.OUT_OF_EPOCHS
        if not last.is_checked:
            return Status.UNCHECKED
        # infinite after an epoch that did not measure ∇f: its ∇f follows from products
        return Status.SMALL_GRADIENT if last.left <= _NEEDED else Status.UNCONFIRMED

    def end_warnings(self, start: Start, last: Iterate, status: Status) -> list[str]:
        problem, error = start.coordinates.problem, last.error[:-1, 0]
        warnings: list[str] = []
        if not len(last.factor):
            keeps_all = bool(_most_kept(problem.n_features))
            warnings += self._preconditioning.left_out(
                problem,
                keeps_all=keeps_all,
                has_tried=bool(last.has_tried),
                has_converged=status.converged,
            )
        if last.is_dependent:
            warnings += dependent_column_warnings(problem, error, start.duplicates)
        elif status is Status.TOO_DEPENDENT and not last.is_checked:
            warnings += near_dependence_warnings(problem, error)
        return warnings

    def infer(
        self, start: Start, last: Iterate, w: Float64, b: Float64
    ) -> tuple[Inference | None, list[str]]:
        if self.request is None:
            return None, []
        theta = last.point.theta(start.coordinates)
        is_full_rank = (
            start.has_enough_rows
            and not start.duplicates
            and last._replace(wanted=np.asarray(_CHECKED)).is_checked
            and not last.is_dependent
        )
        fitted = Fitted(w, b, theta, last.loss, is_full_rank=bool(is_full_rank))
        return infer_contrasts(start.coordinates, fitted, self.request, self.max_epochs)

    def answer(self, coordinates: Coordinates, last: Iterate) -> tuple[Float64, Float64]:
        point = last.point
        return coordinates.in_user_units(point.w.rounded(), point.b.rounded())


def _most_kept(n_features: int) -> int:
    size = n_features + 1
    return size if 16 * size * size <= _KEPT_NBYTES else 0


def _known_weights(coordinates: Coordinates, start: Start) -> Float64:
    """Return random weights for the check, (D + 1, 1).

    They are 0 if rows are too few, and no penalty is given: then many weights fit.
    """
    size = len(start.theta)
    generator = np.random.default_rng(0)
    # not all of the same size, because equal columns with equal weights check nothing
    known = generator.choice([-1.0, 1.0], size) * generator.uniform(0.5, 1.5, size)
    known[:-1][~np.isfinite(coordinates.scale)] = 0.0
    if coordinates.is_centred or not coordinates.problem.fit_intercept:
        known[-1] = 0.0
    if not (start.has_enough_rows or coordinates.problem.penalty.strength):
        known[...] = 0.0
    return known[:, None]
