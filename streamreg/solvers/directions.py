"""Conjugate directions: pᵢ·∇²f·pⱼ = 0, with the images ∇²f·p that passes computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.solvers.base import EPS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streamreg.blocks import Float64

# products of this size are formed at a time
_PRODUCTS_NBYTES = 1 << 18
# a direction that keeps less of its length, once it is conjugate to others, is rounding
_LEAST_LENGTH = 1e-10
# a direction whose ‖Xp‖ loses more than this share, as it is made conjugate, is not exact enough
_LEAST_SHARE = 1e-3


class Directions(NamedTuple):
    """m directions of length 1, conjugate to each other; ∇²f is about P⁻ᵀ C P⁻¹ on their span.

    Sums are NumPy's, not BLAS's, so that bits do not depend on BLAS.
    """

    vectors: Float64  # (m, D + 1) pᵢ
    images: Float64  # (m, D + 1) ∇²f·pᵢ
    curvatures: Float64  # (m,) pᵢ·∇²f·pᵢ

    @classmethod
    def none(cls, size: int) -> Directions:
        """Return no directions of this length."""
        return cls(np.empty((0, size)), np.empty((0, size)), np.empty(0))

    @classmethod
    def zeros(cls, m: int, size: int) -> Directions:
        """Return m rows of 0, which no vector has a share in."""
        return cls(np.zeros((m, size)), np.zeros((m, size)), np.ones(m))

    def part(self, row: int) -> Directions:
        """Return one row."""
        return Directions(*(each[row : row + 1] for each in self))

    def copy(self) -> Directions:
        """Return a copy."""
        return Directions(*(each.copy() for each in self))

    def with_one(self, vector: Float64, image: Float64, curvature: float) -> Directions:
        """Return these and one more."""
        return Directions(
            np.concatenate([self.vectors, vector[None]]),
            np.concatenate([self.images, image[None]]),
            np.append(self.curvatures, curvature),
        )

    def conjugated(self, vector: Float64) -> Float64:
        """Return a vector (D + 1,) less its share in these directions: (I - PC⁻¹Pᵀ∇²f)v."""
        return vector - total(self.vectors, dots(self.images, vector) / self.curvatures)

    def both_conjugated(self, vector: Float64, image: Float64) -> tuple[Float64, Float64]:
        """Return a vector and its image, less their shares in these directions."""
        shares = dots(self.vectors, image) / self.curvatures
        return vector - total(self.vectors, shares), image - total(self.images, shares)

    def steps(self, gradient: Float64) -> Float64:
        """Return -C⁻¹Pᵀ∇f, (m,): the steps to the least f on the span, of a ∇f (D + 1,)."""
        return -dots(self.vectors, gradient) / self.curvatures


def dots(rows: Float64, vector: Float64) -> Float64:
    """Return the dot product of each row with a vector."""
    out = np.empty(len(rows))
    for part in _parts(rows):
        np.sum(rows[part] * vector, axis=1, out=out[part])
    return out


def total(rows: Float64, factors: Float64) -> Float64:
    """Return the sum of rows times factors."""
    out = np.zeros(rows.shape[1])
    for part in _parts(rows):
        out += np.sum(rows[part] * factors[part, None], axis=0)
    return out


def _parts(rows: Float64) -> Iterator[slice]:
    step = max(1, _PRODUCTS_NBYTES // (8 * rows.shape[1]))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def next_direction(vector: Float64, others: Directions) -> Float64 | None:
    """Return a direction of length 1 along a vector, conjugate to others; ``None`` if none is left.

    The others are subtracted twice, because the first time leaves rounding of their images.
    """
    for _ in range(2):
        size = np.linalg.norm(vector)
        if not 0 < size < np.inf:
            return None
        vector = others.conjugated(vector / size)
        if not np.linalg.norm(vector) > _LEAST_LENGTH:
            return None
    return np.asarray(vector / np.linalg.norm(vector))


def accepted(
    vector: Float64, image: Float64, others: Directions, least: float
) -> tuple[Float64, Float64, float] | None:
    """Return a direction that a pass multiplied, its image and curvature; ``None`` if unusable.

    ``least`` is the curvature below which all is rounding.
    """
    before = float(np.sum(vector * image))
    for _ in range(2):
        vector, image = others.both_conjugated(vector, image)
    size = float(np.linalg.norm(vector))
    if not size > _LEAST_LENGTH:
        return None
    vector, image = vector / size, image / size
    curvature = float(np.sum(vector * image))
    if not curvature > max(least, _LEAST_SHARE**2 * before / size**2):
        return None
    return vector, image, curvature


def rounding_of_columns(n_features: int) -> float:
    """Return ‖Xp‖/‖X‖ of length 1 that is rounding."""
    return 4 * max(n_features, 16) * EPS
