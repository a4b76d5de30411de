"""Whether conjugate gradients take a preconditioner, which one, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.column_gram import column_gram_nbytes
from streamreg.errors import Message, Parameter
from streamreg.solvers.base import Footprint, PassFootprint, gradient_pass
from streamreg.solvers.column_block import column_block, column_block_nbytes
from streamreg.solvers.nystrom import nystrom, nystrom_nbytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.solvers.base import Problem
    from streamreg.solvers.preconditioner import Preconditioner
    from streamreg.solvers.standardization import Coordinates

# Directions of a preconditioner that a plan may choose, and columns of sparse rows. Where
# directions are kept, there is none: 40 columns of 12 factors took 26 epochs without, and 31 with
# 20 directions.
_DIRECTIONS, _COLUMNS = (64, 32), (1024, 256)
# A fit of many epochs: k directions leave about 1/(1 + k/32) of them, and k columns of sparse rows
# 1/(0.6·k^¼). Measured at D = 4,096: 64 directions left 0.3 of a spectrum i^-1.5 and of 50 factors,
# 32 left 0.4 and 1. Of words in phrases, D = 131,072, 256 and 1,024 columns left 0.27 and 0.15.
MANY_EPOCHS, _HALVED_BY, _OF_COLUMNS = 200.0, 32.0, 0.6
# Of many directions, each takes half of the time that the columns of an epoch take. Measured:
# 64 directions take 15 times as long as the two of one target. Pairs of columns of hashed text take
# a few passes.
_DIRECTIONS_A_COLUMN, _COLUMNS_COST = 2.0, 4.0
# A plan's choice is tried after this many epochs, if the fit is then estimated to need more of them
# than this multiple of what the pass of the preconditioner costs.
_LEAST_TRIAL, _LEAST_SAVING = 8, 3.0
# A preconditioner is left out if the largest eigenvalue that it finds is so near to the least one
# that it saves no more than this factor of the epochs.
_LEAST_REDUCTION = 1.2


class Preconditioning(NamedTuple):
    """How many directions, or columns of sparse rows, a preconditioner has."""

    n_directions: int  # 0 for none
    adapts: bool  # a plan chooses them, and their pass runs only if many epochs are needed

    def counts(self, problem: Problem) -> Iterable[int]:
        """Return the numbers that a plan may choose from: the largest first."""
        if not self.adapts:
            return ()
        return _COLUMNS if problem.is_sparse else _DIRECTIONS

    def added_to(self, footprint: Footprint, problem: Problem) -> Footprint:
        """Return the footprint with the pass, the memory and the savings of a preconditioner."""
        d, k = problem.n_features, min(self.n_directions, problem.n_features)
        if problem.is_sparse:
            nbytes, why = column_block_nbytes(d, k), f"{k:,} columns, beside their sums"
            each = PassFootprint(column_gram_nbytes(k), 16 * d)
            saved = max(1.0, _OF_COLUMNS * k**0.25)
        else:
            nbytes, why = nystrom_nbytes(d, k), f"{k:,} directions, beside their sums"
            each = gradient_pass(problem, k, 0)
            saved = 1 + k / _HALVED_BY
        return footprint._replace(
            passes=(*footprint.passes, each),
            others=(*footprint.others, ("preconditioner", nbytes, why)),
            many_passes=MANY_EPOCHS / saved + self._cost(problem),
        )

    def pays(self, problem: Problem, epoch: int, left: float) -> bool:
        """Whether its pass is next, after some epochs, if without it as many are left."""
        if not self.n_directions or not self.adapts:
            return self.n_directions > 0
        return epoch >= _LEAST_TRIAL and left > _LEAST_SAVING * self._cost(problem)

    def _cost(self, problem: Problem) -> float:
        """Return how many passes do the work of the preconditioner's, if reading costs nothing."""
        if problem.is_sparse:
            return _COLUMNS_COST
        return 1 + self.n_directions / (_DIRECTIONS_A_COLUMN * (problem.n_targets + 1))

    def find(self, coordinates: Coordinates) -> Preconditioner | None:
        """Run its pass; ``None`` if it would save few epochs."""
        find = column_block if coordinates.problem.is_sparse else nystrom
        found = find(coordinates, self.n_directions)
        return found.preconditioner if found.reduction >= _LEAST_REDUCTION else None

    def factor_columns(self, coordinates: Coordinates) -> int:
        """Return the columns of its factor."""
        if not coordinates.problem.is_sparse:
            return len(coordinates.scale) + 1
        return min(self.n_directions, int(np.count_nonzero(np.isfinite(coordinates.scale))))

    def left_out(self, problem: Problem, *, keeps_all: bool, has_tried: bool) -> Iterator[Message]:
        """Say why a preconditioner that was asked for is not used."""
        if not self.n_directions or self.adapts:
            return
        given = Parameter("precondition", self.n_directions)
        if keeps_all:
            yield Message(
                given,
                f" would save no epochs of {problem.n_features:,} columns, all of whose directions "
                "are kept, so it was left out",
            )
        elif has_tried:
            what = "variances of columns" if problem.is_sparse else "eigenvalues"
            yield Message(
                given,
                f" would save few epochs, because the largest {what} hardly differ, so it was left "
                "out",
            )
