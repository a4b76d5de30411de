"""Least squares of many targets, some at a time, in the memory of XᵀY.

Of more than 2²⁰ weights no second array is made: the weights overwrite XᵀY. No pass corrects them,
and their digits are estimated for each target, not kept for each weight. If XᵀY does not fit
either, y is read in batches of targets, one pass each; XᵀX comes from the first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.accumulators.base import Scaling
from streamreg.accumulators.second_moments import is_out_of_range
from streamreg.errors import InputError
from streamreg.formatting import MIB, agree, count
from streamreg.kernels.numpy import target_width
from streamreg.kernels.two_float import TwoFloats, product
from streamreg.solvers.base import EpochRecord, Solution, Status
from streamreg.solvers.standardization import user_loss

if TYPE_CHECKING:
    from collections.abc import Iterable

    from streamreg.accumulators.gram import GramResult
    from streamreg.blocks import Float64
    from streamreg.kernels.states import GramState
    from streamreg.solvers.base import Numbers, Problem, Report
    from streamreg.solvers.selection import Selection

# more weights are solved for in place
_MOST_AT_ONCE = 1 << 20
# Memory of the weights that are solved for at once, and the fewest of them: each time the factor is
# read. Arrays of this size that are alive at once.
_AT_ONCE_NBYTES, _LEAST_AT_ONCE, _ARRAYS_ALIVE = 8 * MIB, 16, 5
# the same of weights whose intercepts are computed in two floats
_FEW_NBYTES, _FEW_ALIVE = MIB, 24
# numbers that are kept of each target
_VECTORS = 24
# The least XᵀY of a batch: smaller ones save little memory, and each costs a pass. Larger states
# than 32 MiB are one segment of rows, so that batches change no bit of XᵀX.
_BATCH_NBYTES = 40 * MIB
_MOST_BATCHES = 64


class TargetRows:
    """Weights (K, D) in memory."""

    def __init__(self, n_targets: int, n_features: int) -> None:
        self.values = np.empty((n_targets, n_features))

    def write(self, first_target: int, block: Float64) -> None:
        """Copy the weights (k, D) of k targets."""
        self.values[first_target : first_target + len(block)] = block


def has_many(n_features: int, n_targets: int) -> bool:
    """Whether weights are solved for in the memory of XᵀY."""
    return n_targets > 1 and n_features * n_targets > _MOST_AT_ONCE


def width_at_once(n_features: int, n_targets: int) -> int:
    """Return how many targets are solved for at once: a power of two, or all."""
    return min(n_targets, _power(max(_LEAST_AT_ONCE, _AT_ONCE_NBYTES // (8 * n_features))))


def _power(number: int) -> int:
    """Return the largest power of two that is not above a number."""
    return 1 << (number.bit_length() - 1)


def few_at_once(n_features: int, n_targets: int) -> int:
    """Return of how many targets the intercepts are computed at once."""
    return min(n_targets, max(1, _FEW_NBYTES // (8 * n_features)))


def at_once_nbytes(n_features: int, n_targets: int) -> int:
    """Bytes that are taken by the targets that are solved for at once, and by all."""
    d, k = n_features, n_targets
    columns = _ARRAYS_ALIVE * width_at_once(d, k) + _FEW_ALIVE * few_at_once(d, k)
    return 8 * d * columns + 8 * _VECTORS * k


def batch_width(n_features: int, n_targets: int, n_batches: int) -> int:
    """Return the targets of a batch: whole ranges of those that are computed at once.

    All products then have the operands that they have without batches, and the same bits.
    """
    d, k = n_features, n_targets
    width = max(target_width(d, k), width_at_once(d, k))
    return min(n_targets, -(-n_targets // (n_batches * width)) * width)


def target_batches(n_features: int, n_targets: int, n_batches: int) -> list[slice]:
    """Return the targets of each batch."""
    width = batch_width(n_features, n_targets, n_batches)
    return [slice(at, min(at + width, n_targets)) for at in range(0, n_targets, width)]


def batch_counts(n_features: int, n_targets: int) -> list[int]:
    """Return into how many batches the targets may be divided, the fewest first."""
    most = min(_MOST_BATCHES, 8 * n_features * n_targets // _BATCH_NBYTES)
    counts = {1: 1}
    for wanted in range(2, most + 1):
        counts.setdefault(len(target_batches(n_features, n_targets, wanted)), wanted)
    return [*counts]


def require_in_range(moments: GramResult) -> None:
    """Raise :class:`InputError` for squares outside float64."""
    if is_out_of_range(moments):
        raise InputError(
            "squares of X or y leave the range of float64, in which penalties and many targets are "
            "computed; store these columns in other units"
        )


def require_targets_in_range(moments: GramResult) -> None:
    """Raise :class:`InputError` for squares of y outside float64."""
    if not np.isfinite(moments.y_variance).all():
        raise InputError(
            "squares of y leave the range of float64; store these targets in other units"
        )


def require_rows_in_folds(folds: list[GramState]) -> None:
    """Raise :class:`InputError` for folds without rows."""
    empty = [number for number, fold in enumerate(folds) if not fold.n]
    if empty:
        have = agree(len(empty), "has", "have")
        raise InputError(
            f"{count(len(empty), 'fold')} of {len(folds):,} {have} no row that counts (fold "
            f"{empty[0]}, counted from 0), because rows have weight 0, or were left out; use "
            "fewer folds"
        )


def spread_of(folds: list[GramState]) -> tuple[Float64, Float64]:
    """Return the variances and means of the columns over all rows, (D,) each."""
    weights = np.array([fold.s for fold in folds])
    means = np.array([(fold.origin - folds[0].origin) + fold.mean for fold in folds])
    within = sum(fold.gram.diagonal() for fold in folds)
    mean = weights @ means / weights.sum()
    variances = (within + weights @ (means - mean) ** 2) / weights.sum()
    return variances, folds[0].origin + mean


def intercepts(moments: GramResult, w: Float64, targets: slice | Numbers) -> Float64:
    """Return ȳ - x̄·w (k,) of weights w (D, k) of some targets, with unrounded means."""
    mean = TwoFloats.of(moments.origin).plus(TwoFloats.of(moments.offset))
    y_mean = TwoFloats.of(moments.y_origin[targets]).plus(TwoFloats.of(moments.y_offset[targets]))
    columns = TwoFloats(mean.high[:, None], mean.low[:, None])
    width = few_at_once(*w.shape)
    parts = [
        product(columns, TwoFloats.of(w[:, first : first + width]))
        for first in range(0, w.shape[1], width)
    ]
    at_mean = TwoFloats(*(np.concatenate(halves) for halves in zip(*parts, strict=True)))
    return np.asarray(y_mean.plus(-at_mean).rounded())


class Found:
    """What is found of each target."""

    def __init__(self, n_targets: int) -> None:
        self.intercept = np.zeros(n_targets)
        self.start = np.zeros(n_targets)  # f of w = 0
        self.loss = np.zeros(n_targets)  # f of the solution
        self.least_digits = 16.0  # of any weight, if columns nearly depend on others
        self.is_exact = True  # whether the largest weights have the digits that they need

    def solution(
        self,
        problem: Problem,
        coefficients: Float64 | None,
        status: Status,
        warnings: Iterable[str],
        condition: float,
        report: Report,
        units: Scaling | None = None,
        selection: Selection | None = None,
    ) -> Solution:
        """Return the solution; ``coefficients`` are ``None`` if they were written."""
        units = units or Scaling(np.ones(problem.n_features), np.ones(problem.n_targets))
        losses = [user_loss(units, loss) for loss in (self.start, np.maximum(self.loss, 0.0))]
        report(EpochRecord(1, losses[0], float("nan")))
        return Solution(
            coefficients,
            self.intercept,
            status if self.is_exact else Status.COARSE_TARGETS,
            1,
            losses,
            list(warnings),
            condition=condition,
            selection=selection,
        )
