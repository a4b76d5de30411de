"""Penalties: the part of the objective that depends on the weights alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from streamreg.errors import InputError


class Penalty(ABC):
    """A convex function of the weights w; the intercept is never penalised."""

    @property
    @abstractmethod
    def is_zero(self) -> bool:
        """Whether it is 0 for all weights, so that the data alone determine them."""

    @property
    def curvature(self) -> float:
        """Its second derivative λ, if the penalty is λ/2·‖w‖².

        Raises
        ------
        InputError
            The penalty is not quadratic, so that no linear equations give the minimum.
        """
        raise InputError(
            f"{type(self).__name__} is not a quadratic penalty; this solver needs one, such as l2"
        )


@dataclass(frozen=True)
class L2Penalty(Penalty):
    """λ/2·‖w‖², of ridge regression; λ = 0 is ordinary least squares."""

    strength: float = 0.0

    @property
    def is_zero(self) -> bool:
        return self.strength == 0

    @property
    def curvature(self) -> float:
        return self.strength
