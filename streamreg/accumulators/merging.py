"""Steps of ``merge`` that accumulators share: a state has a row count ``n``; a is overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.kernels.states import (
        GramState,
        MomentsState,
        SparseGramState,
        SparseMomentsState,
    )


def merge_if_empty(a: Any, b: Any) -> bool:  # noqa: ANN401  (a state of any kind)
    """Merge if a or b has no rows; return whether that was so, and a is complete."""
    if a.n and b.n:
        return False
    if b.n:
        copy_fields(a, b)
    return True


def copy_fields(a: Any, b: Any) -> None:  # noqa: ANN401
    """Overwrite the fields of a by those of b."""
    for mine, other in zip(a, b, strict=True):
        mine[...] = other


def add_fields(a: Any, b: Any) -> None:  # noqa: ANN401
    """Add the fields of b to those of a."""
    for mine, other in zip(a, b, strict=True):
        np.add(mine, other, out=mine)


def merge_means(
    a: MomentsState | GramState, b: MomentsState | GramState
) -> tuple[Float64, Float64, Float64] | None:
    """Add the counts and means of b to those of a: Chan, Golub & LeVeque (1983).

    Returns nₐ n_b / n, δ = x̄_b - x̄ₐ and y's δ; ``None`` if a or b had no rows: a is complete.
    """
    if merge_if_empty(a, b):
        return None
    share = b.s / (a.s + b.s)
    ratio = a.s * share
    # in this order, because the difference of similar origins is exact
    delta = (b.origin - a.origin) + (b.mean - a.mean)
    y_delta = (b.y_origin - a.y_origin) + (b.y_mean - a.y_mean)
    np.add(a.mean, share * delta, out=a.mean)
    np.add(a.y_mean, share * y_delta, out=a.y_mean)
    np.add(a.n, b.n, out=a.n)
    np.add(a.s, b.s, out=a.s)
    return ratio, delta, y_delta


def merge_target_moments(
    a: SparseGramState | SparseMomentsState, b: SparseGramState | SparseMomentsState
) -> None:
    """Add the counts of b, and the means and squares of y, to those of a; a and b have rows."""
    # in this order, because the difference of similar origins is exact
    delta = (b.y_origin - a.y_origin) + (b.y_mean - a.y_mean)
    share = b.s / (a.s + b.s)
    np.add(a.y_m2, b.y_m2 + a.s * share * delta * delta, out=a.y_m2)
    np.add(a.y_mean, share * delta, out=a.y_mean)
    np.add(a.n, b.n, out=a.n)
    np.add(a.s, b.s, out=a.s)


def merge_varies(a: Any, b: Any, *, targets: bool = True) -> None:  # noqa: ANN401
    """Mark columns of a that differ from their origin in b, or whose origin differs."""
    np.maximum(a.varies, np.maximum(b.varies, b.origin != a.origin), out=a.varies)
    if targets:
        np.maximum(a.y_varies, np.maximum(b.y_varies, b.y_origin != a.y_origin), out=a.y_varies)
