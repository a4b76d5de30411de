"""The choice of a penalty by the errors of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.errors import Message, Remedy
from streamreg.formatting import agree, count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Float64, Int64

# penalties of a grid from the data; the first one as a share of the smallest variance of a column,
# the last one of the sum of variances
GRID_SIZE = 25
_GRID_SHARES = 1e-8, 10.0
# errors that differ by less, relatively, are equal
_TIE = 1e-12
# errors are reported as rounded if they are not above this many times their rounding
_FEW_DIGITS = 1e3


@dataclass(frozen=True)
class SelectionRequest:
    """Which penalties are compared, and how."""

    l2s: tuple[float, ...] | None  # ascending; ``None``: a grid from the data
    n_folds: int  # F; 1 means generalised cross-validation of all rows
    folds_alternate: bool = False  # whether rows of a fold are not consecutive
    per_target: bool = False
    one_standard_error: bool = False
    folds_nbytes: int = 0  # the fold of each row
    making_nbytes: int = 0  # memory in which folds are made
    given: Float64 | None = None  # (K,) the penalty of each target, if none is chosen

    @property
    def folds_terms(self) -> tuple[tuple[str, int, str], ...]:
        """What the folds of rows take, as others of a :class:`Footprint`."""
        return (("folds", self.folds_nbytes, "the fold of each row"),) if self.folds_nbytes else ()

    @property
    def before(self) -> tuple[str, int, str]:
        """What is taken before the first pass: see :class:`Footprint`."""
        return "making folds", self.making_nbytes, "numbers of rows"

    @property
    def n_l2s(self) -> int:
        """L."""
        return GRID_SIZE if self.l2s is None else len(self.l2s)

    @property
    def cross_validates(self) -> bool:
        """Whether there are folds."""
        return self.n_folds > 1

    @property
    def chooses_by_target(self) -> bool:
        """Whether the penalty of a target does not depend on other targets."""
        return self.per_target or self.given is not None


class Selection(NamedTuple):
    """The scores of penalties, and the best."""

    l2s: Float64  # (L,) ascending
    scores: Float64  # (L, F, K) mean squared errors, or GCV with F = 1, times -1
    l2: Float64  # (K,) the best for each target: equal, if one is chosen for all
    best_score: Float64  # (K,) mean over folds of the scores of l2
    is_per_target: bool = False


def default_grid(variances: Float64) -> Float64:
    """Return 25 penalties, at equal ratios, for columns of these variances; zeros do not count.

    From 1e-8 of the smallest, which leaves every column as it is, to 10 times their sum: no
    eigenvalue of XᵀX/Σs is larger than the sum, so that every weight is shrunk to a tenth or less.
    """
    known = variances[variances > 0]
    if not len(known):
        known = np.ones(1)
    first, last = _GRID_SHARES
    return np.geomspace(first * known.min(), last * known.sum(), GRID_SIZE)


def choose(
    request: SelectionRequest, l2s: Float64, errors: Float64, rounding: Float64
) -> tuple[Selection, list[str]]:
    """Return the best penalties by errors (L, F, K), and warnings.

    Errors below their ``rounding`` (L, F, K) are raised to it. Of equal ones the larger penalty is
    taken; with ``one_standard_error``, the largest whose mean error is at most one standard error
    above the least [1]_.

    References
    ----------
    .. [1] Hastie, Tibshirani & Friedman (2009), The Elements of Statistical Learning, section 7.10.
    """
    # of singular equations both are infinite
    errors = np.maximum(errors, rounding)
    compared = errors if request.per_target else errors.mean(axis=2, keepdims=True)
    best = best_numbers(request, compared)
    n_targets = errors.shape[2]
    numbers = np.broadcast_to(best, (n_targets,))
    means = errors.mean(axis=1)
    score = -means[numbers, np.arange(n_targets)]
    selection = Selection(l2s, -errors, l2s[numbers], score, request.per_target)
    warnings = [
        *_singular_warnings(request, l2s, errors),
        *_rounding_warnings(errors, rounding, numbers),
        *_edge_warnings(request, l2s, best, compared.mean(axis=1)),
    ]
    return selection, warnings


def best_numbers(request: SelectionRequest, errors: Float64) -> Int64:
    """Return the number of the best penalty for each target, given errors (L, F, K)."""
    means = errors.mean(axis=1)
    least = means.min(axis=0)
    limit = least * (1 + _TIE)
    if request.one_standard_error:
        n_folds = errors.shape[1]
        of_best = np.take_along_axis(errors, means.argmin(axis=0)[None, None, :], axis=0)[0]
        limit = least + of_best.std(axis=0, ddof=1) / np.sqrt(n_folds)
    # the last one is the largest; if all are infinite, it is taken too
    allowed = (means <= limit)[::-1]
    return np.asarray(len(means) - 1 - allowed.argmax(axis=0))


def _singular_warnings(request: SelectionRequest, l2s: Float64, errors: Float64) -> Iterator[str]:
    singular = np.isinf(errors).any(axis=(1, 2))
    number = int(singular.sum())
    if number:
        largest = l2s[singular].max()
        where = "the training rows of a fold" if request.cross_validates else "the rows"
        yield (
            f"{count(number, 'penalty')} up to {largest:.3g} cannot be compared: columns depend "
            f"on others in {where}, or rows are too few, and the equations are singular with "
            f"{agree(number, 'this penalty. Its', 'these penalties. Their')} scores are -inf"
        )


def _rounding_warnings(errors: Float64, rounding: Float64, best: Int64) -> Iterator[str]:
    targets = np.arange(errors.shape[2])
    of_best, unit = errors[best, :, targets], rounding[best, :, targets]
    with np.errstate(invalid="ignore"):
        few = np.isfinite(of_best) & (unit > 0) & (of_best <= _FEW_DIGITS * unit)
    few = np.asarray(few.any(axis=1))
    if few.any():
        of = "" if len(few) == 1 else f" of {count(int(few.sum()), 'target')}"
        errors_are = agree(int(few.sum()), f"error{of} is", f"errors{of} are")
        yield (
            f"the least {errors_are} so small beside y that the sums of the pass leave fewer than "
            "3 digits; penalties that differ by less are taken as equal"
        )


def _edge_warnings(
    request: SelectionRequest, l2s: Float64, best: Int64, means: Float64
) -> Iterator[str]:
    """Warn of best penalties at the edge of the grid, if their errors (L, K) are the least."""
    last = len(l2s) - 1
    if not last:
        return
    edges = ((0, 1, "smallest", "smaller"), (last, last - 1, "largest", "larger"))
    for edge, inner, superlative, comparative in edges:
        # no penalty is below 0, and one standard error always allows a larger one
        if (edge == 0 and l2s[0] == 0) or (edge and request.one_standard_error):
            continue
        is_less = means[inner] > means[edge] * (1 + _TIE)
        at_edge = int(np.count_nonzero((best == edge) & is_less))
        if not at_edge:
            continue
        of = f" of {count(at_edge, 'target')}" if request.per_target and len(best) > 1 else ""
        yield Message(
            f"the best penalty{of}, {l2s[edge]:.3g}, is the {superlative} that was compared; a "
            f"{comparative} one may be better: extend ",
            Remedy("l2"),
        )
