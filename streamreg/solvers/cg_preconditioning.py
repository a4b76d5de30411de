"""Whether conjugate gradients take a preconditioner, which one, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg.accumulators.column_gram import column_gram_nbytes
from streamreg.errors import Message, Parameter
from streamreg.solvers.base import Footprint, PassFootprint, gradient_pass
from streamreg.solvers.column_block import column_block, column_block_nbytes
from streamreg.solvers.nystrom import nystrom, nystrom_nbytes
from streamreg.solvers.preconditioner import NO_PRECONDITIONER, Found

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from streamreg.solvers.base import Problem
    from streamreg.solvers.standardization import Coordinates

# Directions of a preconditioner that a plan may choose, and columns of sparse rows. Where
# directions are kept, there is none: 40 columns of 12 factors took 26 epochs without, and 31 with
# 20 directions.
_DIRECTIONS, _COLUMNS = (64, 32), (1024, 256)
# A fit of many epochs: k directions leave about 1/(1 + k/32) of them, and k columns of sparse rows
# 1/(0.6·k^¼). Measured at D = 4,096: 64 directions left 0.3 of a spectrum i^-1.5 and of 50 factors,
# 32 left 0.4 and 1. Of words in phrases, D = 131,072, 256 and 1,024 columns left 0.29 and 0.16, and
# of seven one-hot columns, D = 21,899, 0.8 and 0.7.
MANY_EPOCHS, _HALVED_BY, _OF_COLUMNS = 200.0, 32.0, 0.6
# Of many directions, each takes half of the time that the columns of an epoch take. Measured:
# 64 directions take 15 times as long as the two of one target. Pairs of columns of hashed text take
# a few passes.
_DIRECTIONS_A_COLUMN, _COLUMNS_COST = 2.0, 4.0
# A plan's choice is tried after this many epochs, if the fit is then estimated to need more of them
# than this multiple of what the pass of the preconditioner costs.
_LEAST_TRIAL, _LEAST_SAVING = 8, 3.0
# A given number is tried earlier, and for a smaller multiple, because the first epochs promise too
# few: of 351, 13 were estimated to be left after the fourth one, and 19 after the eighth.
_LEAST_GIVEN, _LEAST_LEFT, _GIVEN_SAVING = 4, 12, 0.25
# A preconditioner is left out if the largest eigenvalue that it finds is so near to the least one
# that it saves no more than this factor of the epochs.
_LEAST_REDUCTION = 1.2


class Preconditioning(NamedTuple):
    """How many directions, or columns of sparse rows, a preconditioner has."""

    n_directions: int  # 0 for none
    adapts: bool  # a plan chooses them, and their pass runs only if many epochs are needed
    standardizes: bool  # coordinates have columns of equal variance

    def counts(self, problem: Problem) -> Iterable[int]:
        """Return the numbers that a plan may choose from: the largest first."""
        if not self.adapts or not self._exists(problem):
            return ()
        return _COLUMNS if problem.is_sparse else _DIRECTIONS

    def _exists(self, problem: Problem) -> bool:
        """Whether there is a preconditioner: sparse rows have none in the user's own units."""
        return self.standardizes or not problem.is_sparse

    def added_to(self, footprint: Footprint, problem: Problem) -> Footprint:
        """Return the footprint with the pass, the memory and the savings of a preconditioner."""
        if not self.n_directions or not self._exists(problem):
            return footprint
        d, k = problem.n_features, min(self.n_directions, problem.n_features)
        if problem.is_sparse:
            nbytes, what = column_block_nbytes(d, k), f"{k:,} columns"
            each = PassFootprint(column_gram_nbytes(k), 16 * d)
            saved = max(1.0, _OF_COLUMNS * k**0.25)
        else:
            nbytes, what = nystrom_nbytes(d, k), f"{k:,} directions"
            each = gradient_pass(problem, k, 0)
            saved = 1 + k / _HALVED_BY
        return footprint._replace(
            passes=(*footprint.passes, each),
            others=(*footprint.others, ("preconditioner", nbytes, f"{what}, beside their sums")),
            many_passes=MANY_EPOCHS / saved + self._cost(problem),
            preconditioner=f"{what}, to need about {1 + MANY_EPOCHS / saved:.0f} epochs instead of "
            f"{MANY_EPOCHS:.0f}",
        )

    def pays(self, problem: Problem, epoch: int, left: float) -> bool:
        """Whether its pass is next, after some epochs, if without it as many are left."""
        if not self.n_directions or not self._exists(problem):
            return False
        cost = self._cost(problem)
        if self.adapts:
            return epoch >= _LEAST_TRIAL and left > _LEAST_SAVING * cost
        return epoch >= _LEAST_GIVEN and left > max(_LEAST_LEFT, _GIVEN_SAVING * cost)

    def _cost(self, problem: Problem) -> float:
        """Return how many passes do the work of the preconditioner's, if reading costs nothing."""
        if problem.is_sparse:
            return _COLUMNS_COST
        n_directions = min(self.n_directions, problem.n_features)
        return 1 + n_directions / (_DIRECTIONS_A_COLUMN * (problem.n_targets + 1))

    def find(self, coordinates: Coordinates) -> Found:
        """Run its pass; there is no preconditioner if it would save few epochs."""
        find = column_block if coordinates.problem.is_sparse else nystrom
        found = find(coordinates, self.n_directions)
        if found.reduction < _LEAST_REDUCTION:
            return found._replace(preconditioner=NO_PRECONDITIONER)
        return found

    def factor_columns(self, coordinates: Coordinates) -> int:
        """Return the columns of its factor."""
        if not coordinates.problem.is_sparse:
            return len(coordinates.scale) + 1
        return min(self.n_directions, int(np.count_nonzero(np.isfinite(coordinates.scale))))

    def left_out(
        self, problem: Problem, *, keeps_all: bool, has_tried: bool, has_converged: bool
    ) -> Iterator[Message]:
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
        elif not self._exists(problem):
            raw = Parameter("standardize", value=False)
            yield Message(given, " of sparse rows was left out, because of ", raw)
        elif not has_tried:
            if has_converged:
                yield Message(given, " was left out, because few epochs were needed without it")
        elif problem.is_sparse:
            yield Message(
                given,
                " was left out, because the columns that most rows store are hardly correlated, "
                "depend on each other, or are not much more frequent than others",
            )
        else:
            yield Message(
                given,
                " would save few epochs, because the largest eigenvalues hardly differ, so it was "
                "left out",
            )
