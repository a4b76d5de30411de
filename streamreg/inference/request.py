"""What a fit is asked to compute beside the coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from streamreg.inference.result import CHOSEN_TYPES, CLUSTER, NONROBUST

if TYPE_CHECKING:
    from streamreg.inference.groups import Groups


@dataclass(frozen=True)
class InferenceRequest:
    """The covariance of the coefficients that a fit is asked for, as frozen configuration."""

    cov_type: str  # of COV_TYPES
    groups: Groups | None = None  # of "cluster", once they are known
    columns: tuple[int, ...] | None = None  # those whose standard errors are wanted, if not all

    @property
    def is_robust(self) -> bool:
        """Whether the covariance needs a pass over the residuals."""
        return self.cov_type != NONROBUST

    @property
    def is_clustered(self) -> bool:
        """Whether residuals are added up by groups."""
        return self.cov_type == CLUSTER

    @property
    def is_diagonal(self) -> bool:
        """Whether it needs neither leverages nor groups."""
        return self.cov_type in CHOSEN_TYPES

    @property
    def leverage_power(self) -> int:
        """Return p of the weights s r²/(1 - h)ᵖ: 1 for HC2, 2 for HC3, else 0."""
        return {"HC2": 1, "HC3": 2}.get(self.cov_type, 0)
