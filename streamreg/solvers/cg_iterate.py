"""What conjugate gradients keep from one epoch to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.kernels.two_float import TwoFloats
from streamreg.solvers.base import EPS
from streamreg.solvers.directions import Directions
from streamreg.solvers.exact_gradient import ExactPoint
from streamreg.solvers.preconditioner import Preconditioner

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.base import Mask


class Iterate(NamedTuple):
    """All that the next epoch needs. Columns: K targets, then the check."""

    w: Float64  # (2, D, K) weights in two floats, as in ExactPoint
    b: Float64  # (2, K)
    error: Float64  # (D + 1, 1) of the check, whose right answer is known
    gradient: Float64  # (D + 1, K + 1) ∇f, as it follows from the last measured one
    goal: Float64  # (K + 1,) norms of gradients at which no more directions are sought
    directions: Float64  # (D + 1, K + 1) of the next epoch; all 0: it measures ∇f in two floats
    loss: Float64  # (K,) f, likewise
    start_norm: Float64  # (K,) ‖∇f‖ at the start, or at w = 0 if it is larger there
    start_loss: Float64  # (K,) f at the start, or at w = 0 if it is larger there
    largest: Float64  # () largest curvature of a direction so far
    least: Float64  # () least curvature
    barren: Float64  # () passes since a direction was accepted
    step: Float64  # (K,) largest change of a weight in the last epoch with directions, relative
    change: Float64  # () of the last correction, relative to the largest weight; else inf
    wanted: Float64  # () error of the check at which it is met
    left: Float64  # () error that it leaves, likewise
    is_dependent: Float64  # () 1 if the error of the check is a dependence of columns
    share: Float64  # () ‖Xe‖/Σ|eⱼ|·‖xⱼ‖ of the error e of the check, when it was last measured
    column_squares: Float64  # (D + 1,) Σ (∇²f·p)ⱼ²/(p·∇²f·p), at most about ‖xⱼ‖²
    is_settled: Float64  # () 1 if corrections would change nothing
    losses: Float64  # (epochs + 1,) Σ f over targets at each epoch's start and now, in users' units
    vectors: Float64  # (m, D + 1) kept directions
    images: Float64  # (m, D + 1)
    curvatures: Float64  # (m,)
    # if none are kept, the last direction of each column, or 0 with curvature 1
    last_vectors: Float64  # (K + 1, D + 1)
    last_images: Float64  # (K + 1, D + 1)
    last_curvatures: Float64  # (K + 1,)
    # of the preconditioner; no rows before its pass, or if it is left out
    factor: Float64  # (k, D + 1), or (k, k) of chosen columns
    columns: Float64  # (k,) chosen columns, else (0,)
    has_tried: Float64  # () 1 once one was sought

    @property
    def epoch(self) -> int:
        """Completed epochs."""
        return len(self.losses) - 1

    @property
    def kept(self) -> Directions:
        """The kept directions."""
        return Directions(self.vectors, self.images, self.curvatures)

    @property
    def last(self) -> Directions:
        """The last direction of each column, if none are kept."""
        return Directions(self.last_vectors, self.last_images, self.last_curvatures)

    @property
    def preconditioner(self) -> Preconditioner:
        """What makes directions of gradients."""
        return Preconditioner(self.factor, self.columns)

    def with_preconditioner(self, preconditioner: Preconditioner) -> Iterate:
        """Return this with a preconditioner; what follows is conjugate to kept directions only."""
        none = Directions.zeros(*self.last_vectors.shape)
        return self._replace(**preconditioner._asdict()).with_groups(self.kept, none)

    def of(self, column: int) -> Directions:
        """Return the directions that a column's next one must be conjugate to."""
        return self.last.part(column) if len(self.last_curvatures) else self.kept

    def with_groups(self, kept: Directions, last: Directions) -> Iterate:
        """Return this with other directions."""
        return self._replace(
            vectors=kept.vectors,
            images=kept.images,
            curvatures=kept.curvatures,
            last_vectors=last.vectors,
            last_images=last.images,
            last_curvatures=last.curvatures,
        )

    @property
    def point(self) -> ExactPoint:
        """The weights."""
        return ExactPoint(TwoFloats(*self.w), TwoFloats(*self.b))

    @property
    def norms(self) -> Float64:
        """‖∇f‖ of each target, and of the check, (K + 1,)."""
        return np.asarray(np.linalg.norm(self.gradient, axis=0))

    @property
    def steps_left(self) -> Float64:
        """Relative changes of weights that further epochs would make, (K,), estimated.

        Each epoch leaves the share q of an error, so that a step s is followed by s·q/(1 - q).
        """
        start = np.where(self.start_norm > 0, self.start_norm, 1.0)
        shares = np.minimum(self.norms[:-1] / start, 1.0) ** (1 / max(self.epoch, 1))
        left = self.step * shares / np.maximum(1 - shares, EPS)
        return np.asarray(np.where(np.isfinite(self.goal[:-1]), left, 0.0))

    def epochs_left(self, least: Float64) -> float:
        """Return how many epochs it takes to ‖∇f‖ ≤ least, (K,), at the rate of those so far."""
        norms = self.norms[:-1]
        # of logarithms
        done = np.log(np.where(norms < self.start_norm, self.start_norm / norms, 1.0))
        open_ = np.log(np.where(norms > least, norms / least, 1.0))
        left = np.where(open_ > 0, self.epoch * open_ / np.where(done > 0, done, EPS), 0.0)
        return float(np.max(left))

    @property
    def rounding_of_weights(self) -> Float64:
        """Weights below which no prediction changes by more than y's last digit, (K,)."""
        norm = np.sqrt(self.largest) if self.largest > 0 else np.inf
        return np.asarray(EPS * np.sqrt(2 * self.start_loss) / norm)

    @property
    def relative_norm(self) -> float:
        """‖∇f‖ relative to the start, the largest of all targets."""
        start = np.where(self.start_norm > 0, self.start_norm, 1.0)
        return float(np.max(self.norms[:-1] / start))

    @property
    def has_right_hand_side(self) -> bool:
        """Whether a pass multiplied the known weights of the check."""
        return bool(self.gradient[:, -1].any())

    @property
    def is_finite(self) -> bool:
        """Whether nothing left float64's range."""
        return bool(np.isfinite(self.loss).all() and np.isfinite(self.norms).all())

    @property
    def fits_exactly(self) -> Mask:
        """Targets whose loss is the squared rounding of D + 1 terms that cancel."""
        rounding = (16 * EPS) ** 2 * len(self.gradient)
        return np.asarray(self.loss <= rounding * self.start_loss)

    @property
    def is_checked(self) -> bool:
        """Whether the known weights were found, but for dependences between columns.

        Also true if none were given, because rows are too few.
        """
        return self.is_checked_to(float(self.wanted))

    def is_checked_to(self, wanted: float) -> bool:
        """Whether the known weights were found to this error."""
        return bool(np.max(np.abs(self.error)) <= wanted) or bool(self.is_dependent)
