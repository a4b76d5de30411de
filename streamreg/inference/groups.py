"""Groups of rows whose errors may be correlated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamreg.blocks import Int64


@dataclass(frozen=True, eq=False)
class Groups:
    """How the rows of groups are stored."""

    # (G,) the numbers of the groups, in ascending order; None if the rows of each are consecutive
    numbers: Int64 | None = None
