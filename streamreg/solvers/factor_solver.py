"""Base class of solvers that factorise second moments of the rows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from streamreg.solvers.base import Solver
from streamreg.solvers.sums import reduce_sums

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.base import Accumulator
    from streamreg.accumulators.second_moments import SecondMoments
    from streamreg.inference.request import InferenceRequest
    from streamreg.solvers.base import IterateStore, Problem, Reduce, Report, Solution
    from streamreg.solvers.sums import Sums


@dataclass(frozen=True)
class FactorSolver(Solver):
    """A solver that reads the rows once, and perhaps again to correct what it found.

    With :meth:`solve_sums` it solves sums of rows that were read before.
    """

    request: InferenceRequest | None = None

    statistic: ClassVar[type[SecondMoments[Any]]]

    @property
    def infers(self) -> bool:
        return self.request is not None

    # values outside float64's range are checked for
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        del iterates  # because a resumed fit needs the results of all its few passes
        sums = reduce_sums(self.accumulator(problem), problem, reduce)
        return self.solve_sums(problem, sums, report)

    def accumulator(self, problem: Problem) -> Callable[..., Accumulator[Any, Any]]:
        """Return what makes the statistic, of (D, K), whether it is centred, and a scaling."""
        del problem
        return self.statistic

    @abstractmethod
    def solve_sums(self, problem: Problem, sums: Sums, report: Report) -> Solution:
        """Minimise the objective, given the sums; their arrays are overwritten."""
