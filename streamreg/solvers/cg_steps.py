"""The steps of conjugate gradients: from one iterate to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamreg.solvers.base import EPS
from streamreg.solvers.directions import (
    accepted,
    dots,
    next_direction,
    rounding_of_columns,
    total,
)

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.solvers.cg_iterate import Iterate
    from streamreg.solvers.standardization import Coordinates

# no smaller share of a gradient is right if it follows from products of directions
LEAST_TOL = 1e-14
# smaller weights, relative to the largest, do not ask for more epochs
_LEAST_WEIGHT = 1e-3
# ‖Xp‖/‖X‖ that is rounding if directions are not kept: with 381 columns of which one is the sum of
# two, 3e-13 were accepted, and weights grew to 160,000; with a difference of 1e-9 it is 3e-10
LEAST_CURVED = 1e-11
# a direction is dropped if less of it is left beside the others of an epoch
_LEAST_PART = 1e-6


def choose_first(iterate: Iterate) -> Float64:
    """Return the directions of the next epoch; the first one multiplies the known weights too."""
    directions = choose(iterate)
    if directions.any() and not iterate.has_right_hand_side:
        directions[:, -1:] = iterate.error
    return directions


def choose(iterate: Iterate) -> Float64:
    """Return the directions of the next epoch, (D + 1, K + 1); zeros for those that have none."""
    out = np.zeros_like(iterate.gradient)
    chosen: list[Float64] = []
    is_open = iterate.norms > iterate.goal
    is_open[-1] &= not iterate.is_checked
    opposite = -iterate.preconditioner.applied(iterate.gradient)
    for at in np.flatnonzero(is_open).tolist():
        direction = next_direction(opposite[:, at], iterate.of(at))
        if direction is None:
            continue
        # directions that are not kept serve one column each, so that they need not differ
        for _ in range(2 * (not len(iterate.last_curvatures))):
            for other in chosen:
                direction = direction - np.sum(other * direction) * other
        size = np.linalg.norm(direction)
        if size > _LEAST_PART:
            out[:, at] = direction / size
            chosen.append(out[:, at])
    return out


def multiplied(coordinates: Coordinates, before: Iterate) -> Iterate:
    """Run a pass with the directions, and go to the least f along them.

    A kept direction serves all columns; one that is not kept serves its own.
    """
    directions = before.directions
    used = np.flatnonzero(directions.any(axis=0))
    # not a copy, if all are used
    images = coordinates.products(
        directions if len(used) == directions.shape[1] else directions[:, used]
    )
    kept, last = before.kept, before.last.copy()
    size, k = len(before.gradient), len(before.loss)
    if used[-1] == k and not before.has_right_hand_side:
        # the known weights are no direction: their image is the right-hand side
        before = _with_right_hand_side(before, images[:, -1])
        used = used[:-1]
    moves, gradient = np.zeros_like(before.gradient), before.gradient.copy()
    decrease, largest, least = 0 * before.loss, float(before.largest), float(before.least)
    goal, squares, is_barren = before.goal.copy(), before.column_squares.copy(), True
    for at, column in enumerate(used.tolist()):
        share = LEAST_CURVED if len(last.curvatures) else rounding_of_columns(size - 1)
        rounding = share**2 * largest
        others = last.part(column) if len(last.curvatures) else kept
        found = accepted(directions[:, column], images[:, at], others, rounding)
        if found is None:
            if len(last.curvatures):
                # until ∇f is measured
                goal[column] = np.inf
            continue
        is_barren = False
        vector, image, curvature = found
        largest, least = max(largest, curvature), min(least, curvature)
        if column == k or not len(last.curvatures):
            squares += image * image / curvature
        if len(last.curvatures):
            last.vectors[column], last.images[column], last.curvatures[column] = found
            served = slice(column, column + 1)
        else:
            kept, served = kept.with_one(*found), slice(None)
        step = np.zeros(k + 1)
        step[served] = -dots(gradient.T[served], vector) / curvature
        moves[:, served] += vector[:, None] * step[served]
        gradient[:, served] += image[:, None] * step[served]
        decrease = decrease + 0.5 * curvature * step[:k] ** 2
    if not len(last.curvatures):
        before = before._replace(step=_relative_step(coordinates, before, moves[:-1, :k]))
    # frees (D + 1, K + 1) numbers
    del images
    after = _moved(coordinates, before._replace(goal=goal), moves, gradient)
    if is_barren:
        # until ∇f is measured
        after = after._replace(goal=np.maximum(after.goal, after.norms))
    # more than it is by rounding, so that a measured loss is not above it
    loss = np.minimum(before.loss, np.maximum(before.loss - decrease, 0) + EPS * before.start_loss)
    return after.with_groups(kept, last)._replace(
        loss=loss,
        largest=np.asarray(largest),
        least=np.asarray(least),
        column_squares=squares,
        barren=(before.barren + 1) * is_barren,
        change=np.full((), np.inf),
        left=np.full((), np.inf),
        losses=np.append(before.losses, min(before.losses[-1], coordinates.user_loss(loss))),
    )


def _relative_step(coordinates: Coordinates, iterate: Iterate, moves: Float64) -> Float64:
    """Return the largest move of a weight, relative to the weight, of moves (D, K)."""
    sizes = np.abs(iterate.w[0] * _finite_scale(coordinates)[:, None] + moves)
    least = np.maximum(_LEAST_WEIGHT * np.max(sizes, axis=0), iterate.rounding_of_weights)
    least = np.maximum(sizes, least)
    return np.asarray(np.max(np.abs(moves) / np.where(least > 0, least, 1.0), axis=0))


def _finite_scale(coordinates: Coordinates) -> Float64:
    return np.where(np.isfinite(coordinates.scale), coordinates.scale, 0.0)


def _with_right_hand_side(iterate: Iterate, image: Float64) -> Iterate:
    """Begin the check, from weights of 0: ∇f is minus the image of its error."""
    gradient, goal, known = iterate.gradient.copy(), iterate.goal.copy(), iterate.error
    gradient[:, -1] = -image
    goal[-1] = LEAST_TOL * np.linalg.norm(image)
    if image.any():
        # columns of zeros, which only standardised coordinates know before, have no weight to find
        known = np.where(image[:, None] != 0, known, 0.0)
    return iterate._replace(gradient=gradient, goal=goal, error=known)


def _moved(coordinates: Coordinates, before: Iterate, moves: Float64, gradient: Float64) -> Iterate:
    """Return the iterate after moves of θ, with the ∇f after them, (D + 1, K + 1) each."""
    if coordinates.is_centred:
        # to the best intercept: ∇²f is 1 for it, and rounding between it and the weights
        moves[-1] -= gradient[-1]
        gradient[-1] = 0.0
    point = before.point.moved(coordinates, moves[:, :-1])
    return before._replace(
        w=np.stack(point.w),
        b=np.stack(point.b),
        error=before.error - moves[:, -1:],
        gradient=gradient,
    )


def corrected(coordinates: Coordinates, before: Iterate) -> tuple[Iterate, float, float]:
    """Go to the least f on the span of all directions.

    Returns the largest move of a weight, relative to the largest weight, and that of the check.
    """
    moves, gradient = np.zeros_like(before.gradient), before.gradient.copy()
    for at in range(before.gradient.shape[1] - before.is_checked):
        group = before.of(at)
        steps = group.steps(before.gradient[:, at])
        moves[:, at] = total(group.vectors, steps)
        gradient[:, at] += total(group.images, steps)
    scale = _finite_scale(coordinates)[:, None]
    weights = np.max(np.abs(before.w[0] * scale), axis=0)
    weights = np.maximum(weights, before.rounding_of_weights)
    largest = np.max(np.abs(moves[:-1]), axis=0)
    change = np.max(np.where(weights > 0, largest[:-1] / np.where(weights > 0, weights, 1), 0))
    return _moved(coordinates, before, moves, gradient), float(change), float(largest[-1])


def dependence(coordinates: Coordinates, iterate: Iterate) -> float:
    """Return ‖Xe‖/Σ|eⱼ|·‖xⱼ‖ of the error e of the check, whose ∇f is -∇²f·e."""
    squared = -float(np.sum(iterate.error[:, 0] * iterate.gradient[:, -1]))
    scale = coordinates.scale
    far = np.where(np.isfinite(scale), np.abs(coordinates.centre) / scale, 0.0)
    sizes = np.sqrt(iterate.column_squares)
    sizes[:-1] += far
    largest = float(np.sum(np.abs(iterate.error[:, 0]) * sizes))
    return float(np.sqrt(max(squared, 0.0))) / largest if largest > 0 else np.inf
