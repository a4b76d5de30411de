"""Penalties: the part of the objective that depends on the weights alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from streamreg.errors import InputError

if TYPE_CHECKING:
    from streamreg.blocks import Float64

# the largest root: its square is finite, and a larger one would hold a coefficient at 0 as well
_MOST_ROOT = 2.0**500


@dataclass(frozen=True)
class Penalty(ABC):
    """λ times a convex function of the weights w; the intercept is never penalised.

    If the columns of X were multiplied by ``x_scale``, their weights are w / x_scale.
    """

    name: ClassVar[str]  # as in "least squares, with l2"

    strength: float = 0.0  # λ; if it is 0, the rows alone determine the weights

    @abstractmethod
    def value(self, w: Float64, x_scale: Float64 | float = 1.0) -> Float64:
        """Return the penalty of each target, (K,), at x_scale·w, (D, K)."""

    def root(self, x_scale: Float64 | float) -> Float64:  # noqa: ARG002
        """Return √λ·x_scale of a penalty λ/2·‖x_scale·w‖².

        Raises
        ------
        InputError
            The penalty has another form, so that no linear equations give the minimum.
        """
        raise InputError(f"{self.name} is not a quadratic penalty; this solver needs one, like l2")


@dataclass(frozen=True)
class L2Penalty(Penalty):
    """λ/2·‖w‖², of ridge regression."""

    name: ClassVar[str] = "l2"

    def value(self, w: Float64, x_scale: Float64 | float = 1.0) -> Float64:
        return np.asarray(0.5 * np.sum((self.root(x_scale) * w) ** 2, axis=0))

    def root(self, x_scale: Float64 | float) -> Float64:
        return np.asarray(np.minimum(np.sqrt(self.strength) * x_scale, _MOST_ROOT))
