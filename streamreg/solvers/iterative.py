"""The loop of epochs that gradient descent and conjugate gradients share."""

from __future__ import annotations

import zlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from streamreg.errors import DivergenceError, InputError, Parameter, Part, Remedy
from streamreg.solvers.base import (
    EPS,
    EpochRecord,
    Solution,
    Solver,
    Status,
)
from streamreg.solvers.standardization import Coordinates, standardise

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.inference.result import Inference
    from streamreg.solvers.base import IterateStore, Mask, Numbers, Problem, Reduce, Report
    from streamreg.solvers.standardization import Evaluation


class Start(NamedTuple):
    """Where a fit starts."""

    coordinates: Coordinates
    theta: Float64  # (D + 1, K)
    now: Evaluation  # at θ
    norm: Float64  # (K,) ‖∇f‖ there, or at w = 0 if it is larger there
    loss: Float64  # (K,) f there, or at w = 0 if it is larger there
    arrived: Mask  # (K,) targets whose gradient is rounding
    has_enough_rows: bool  # to determine all weights
    duplicates: list[Numbers]  # groups of columns that are multiples of each other
    warnings: list[str]

    def without_vectors(self) -> Start:
        """Return this without θ and ∇f, which only the first iterate needs."""
        none = np.empty((0, self.theta.shape[1]))
        now = self.now._replace(gradient=none, curvature=none)
        return self._replace(theta=none, now=now)


@dataclass(frozen=True, eq=False)
class IterativeSolver(Solver):
    """One pass an epoch, O(D) state."""

    typical_epochs: ClassVar[int]

    standardize: bool = True  # work in centred, scaled coordinates
    max_epochs: int = 1000
    tol: float = 1e-8
    init: Float64 | None = None  # w at the start, (D, K) in the user's units; ``None`` for zeros

    @abstractmethod
    def first(self, start: Start) -> Any:  # noqa: ANN401  (a named tuple of the solver's own)
        """Return the iterate before the first epoch."""

    @abstractmethod
    def status_at_start(self, start: Start, iterate: Any) -> Status | None:  # noqa: ANN401
        """Return why no epoch is needed, or ``None``."""

    @abstractmethod
    def advance(self, coordinates: Coordinates, iterate: Any) -> Any:  # noqa: ANN401
        """Run one epoch."""

    @abstractmethod
    def verdict(self, before: Any, after: Any) -> Status | None:  # noqa: ANN401
        """Return why the fit stops after the epoch between the two, or ``None``."""

    @abstractmethod
    def status_at_end(self, last: Any) -> Status:  # noqa: ANN401
        """Return the status of a fit that ran out of epochs."""

    @abstractmethod
    def answer(self, coordinates: Coordinates, last: Any) -> tuple[Float64, Float64]:  # noqa: ANN401
        """Return w (D, K) and b (K,) in the user's units."""

    @abstractmethod
    def end_warnings(self, start: Start, last: Any, status: Status) -> list[str]:  # noqa: ANN401
        """Return warnings about the answer."""

    def infer(
        self,
        start: Start,
        last: Any,  # noqa: ANN401
        w: Float64,
        b: Float64,
    ) -> tuple[Inference | None, list[str]]:
        """Return standard errors, if they are asked for, and warnings about them."""
        del start, last, w, b
        return None, []

    def identity(self) -> dict[str, Any]:
        start = None if self.init is None else np.ascontiguousarray(self.init)
        return {
            **super().identity(),
            "standardize": self.standardize,
            "tol": self.tol,
            "init": "zeros" if start is None else f"{zlib.crc32(start.data):08x}",
        }

    # values outside float64's range are checked for and reported
    @np.errstate(all="ignore")
    def solve(
        self, problem: Problem, reduce: Reduce, report: Report, iterates: IterateStore
    ) -> Solution:
        start = self._begin(problem, reduce)
        coordinates, iterate = start.coordinates, self.first(start)
        self._require_finite(iterate)
        status = self.status_at_start(start, iterate)
        # frees its vectors
        start = start.without_vectors()
        iterate = iterates.load(iterate)
        if iterate.epoch > self.max_epochs:
            raise InputError(
                Parameter("max_epochs", self.max_epochs),
                f" but the checkpoint is of a fit that has run {iterate.epoch} epochs; pass "
                "more, or remove the checkpoint to start again",
            )
        while status is None and iterate.epoch < self.max_epochs:
            iterates.save(iterate)
            before, iterate = iterate, self.advance(coordinates, iterate)
            self._require_finite(iterate)
            report(EpochRecord(iterate.epoch, float(iterate.losses[-2]), iterate.relative_norm))
            status = self.verdict(before, iterate)
            # frees its vectors before the next epoch
            del before
        status = status or self.status_at_end(iterate)
        warnings = start.warnings + self.end_warnings(start, iterate, status)
        w, b = self.answer(coordinates, iterate)
        inference, more = self.infer(start, iterate, w, b)
        return Solution(
            w,
            b,
            status,
            iterate.epoch,
            iterate.losses.tolist(),
            warnings + more,
            inference=inference,
        )

    def _begin(self, problem: Problem, reduce: Reduce) -> Start:
        theta = np.zeros((problem.n_features + 1, problem.n_targets))
        at_zero: Evaluation | None = None
        warnings: list[str] = []
        duplicates: list[Numbers] = []
        has_enough_rows = True
        if self.standardize:
            coordinates, at_zero, warnings, has_enough_rows, duplicates = standardise(
                problem, reduce
            )
        else:
            coordinates = Coordinates.raw(problem, reduce)
        if self.init is not None:
            theta[:-1] = coordinates.weights_from_user(self.init)
        now = at_zero
        if now is None or self.init is not None:
            now = coordinates.evaluate(theta)
        norms = [np.linalg.norm(e.gradient, axis=0) for e in (now, at_zero or now)]
        start_loss = np.maximum(now.loss, (at_zero or now).loss)
        # y is fitted already, or does not depend on X: the gradient is rounding
        arrived = norms[0] <= 4 * EPS * np.sqrt(2 * start_loss * len(theta))
        return Start(
            coordinates=coordinates,
            theta=theta,
            now=now,
            norm=np.maximum(*norms),
            loss=start_loss,
            arrived=arrived,
            has_enough_rows=has_enough_rows,
            duplicates=duplicates,
            warnings=warnings,
        )

    def _require_finite(self, iterate: Any) -> None:  # noqa: ANN401
        if not iterate.is_finite:
            raise self._out_of_range(iterate.epoch)

    def _out_of_range(self, epoch: int) -> DivergenceError:
        standardize = Remedy("standardize", value=True)
        cure: list[Part] = [] if self.standardize else [", or pass ", standardize]
        return DivergenceError(
            f"the loss became inf or NaN in epoch {epoch} of {self.name}: values in the "
            "data, or in ",
            Parameter("init"),
            ", have squares beyond 1e308; store them in other units",
            *cure,
        )
