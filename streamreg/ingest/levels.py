"""Columns of categories as zeros and ones: a column for each level but the first."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from streamreg.blocks import Array, Float64


def sorted_levels(levels: set[str]) -> list[str]:
    """Return texts in alphabetical order, or in numerical order if all are numbers."""
    ordered = sorted(levels)
    with suppress(ValueError):
        ordered.sort(key=float)
    return ordered


def labels(name: str, levels: list[str] | None) -> list[str]:
    """Return the names of the columns of X that one column gives."""
    return [name] if levels is None else [f"{name}={level}" for level in levels[1:]]


def one_hot(values: Float64, levels: list[str] | None) -> Array:
    """Return the columns of X that one column gives, (n, 1), of numbers or indices of levels."""
    return values if levels is None else values == np.arange(1, len(levels))
