"""How well a model describes rows: R², RMSE, correlations and residuals, streamed."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.accumulators import score as scoring
from streamreg.accumulators.base import power_of_two
from streamreg.accumulators.residual_histogram import ResidualHistogram
from streamreg.accumulators.score import Score
from streamreg.engines.partition import HOST
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import InputError
from streamreg.formatting import count, format_nbytes
from streamreg.planning.memory_model import process_term
from streamreg.planning.row_costs import RowCosts
from streamreg.planning.terms import Term, peak
from streamreg.predict.batches import Batches, Costs, held_term, plan_batches
from streamreg.predict.held_rows import HeldRows
from streamreg.predict.weights import Weights
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.sources.column_range import column_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamreg.accumulators.residual_histogram import ResidualHistogramResult
    from streamreg.blocks import Float64
    from streamreg.config.fit_config import FitConfig
    from streamreg.engines.base import Reduction
    from streamreg.model import Model
    from streamreg.predict.weights import ReadWeights
    from streamreg.sources.dataset import Dataset


class Evaluation(NamedTuple):
    """How well predictions agree with y: one number for each target.

    Attributes
    ----------
    r2
        (K,) The coefficient of determination, 1 - Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ (yᵢ - ȳ)²; NaN where y is
        constant.
    rmse
        (K,) √(Σ sᵢ (yᵢ - ŷᵢ)² / Σ sᵢ), in the unit of y.
    pearson_r
        (K,) The correlation of y and ŷ; NaN where either is constant.
    n_rows, rows_omitted
        Rows that count, and rows left out for NaN or inf.
    """

    r2: Float64
    rmse: Float64
    pearson_r: Float64
    n_rows: int
    rows_omitted: int


class Scores(NamedTuple):
    """An evaluation, and what to tell the user of it."""

    evaluation: Evaluation
    warnings: list[str]


class Residuals(NamedTuple):
    """How residuals of one target are distributed over fitted values."""

    histogram: ResidualHistogramResult  # of one target
    n_omitted: int  # rows left out for NaN or inf
    warnings: list[str]  # for the user


def score(
    model: Model,
    dataset: Dataset,
    config: FitConfig,
    progress: Progress = NO_PROGRESS,
    on_plan: Callable[[Batches], None] = lambda _: None,
) -> Scores:
    """Return R², RMSE and the correlation of each target, streamed; O(K) numbers are kept.

    Rows with NaN or inf are an ``InputError``; with ``nan_policy="omit"`` they are left out, and it
    is an ``InputError`` if no row is left. If the weights of all targets do not fit in memory,
    targets are scored in batches; ``on_plan`` is called with them before anything is read.
    """
    work = _Comparison("score", model, dataset)
    batches = work.plan(scoring.scratch_nbytes, scoring.sparse_scratch_nbytes, config)
    on_plan(batches)
    r2, rmse, pearson_r = (np.empty(model.n_targets) for _ in range(3))
    warnings: dict[str, None] = {}
    n_rows = n_omitted = 0
    with closing(progress), work.weights.reading(batches.width) as read:
        held = work.hold(batches, progress)
        for targets in batches:
            compared = work.compare(held, targets, read, batches.n_threads, progress, Score)
            result = compared.reduction.result
            r2[targets], rmse[targets] = result.r2, result.rmse
            pearson_r[targets] = result.pearson_r
            n_rows, n_omitted = compared.reduction.n_rows, compared.engine.n_omitted
            warnings |= dict.fromkeys(compared.warnings)
    work.require_unchanged()
    return Scores(Evaluation(r2, rmse, pearson_r, n_rows, n_omitted), [*warnings])


def residuals(
    model: Model,
    dataset: Dataset,
    config: FitConfig,
    progress: Progress = NO_PROGRESS,
    *,
    target: int = 0,
) -> Residuals:
    """Return R² and RMSE of one target, and its residuals y - ŷ, counted in bins; streamed.

    One pass, and one more if squares of y leave float64's range. Errors are those of :func:`score`.
    """
    work = _Comparison("report", model, dataset, slice(target, target + 1))
    sample = ResidualHistogram(np.empty((model.n_features, 1)), np.empty(1))
    batches = work.plan(
        lambda _d, _k: sample.scratch_nbytes,
        lambda _d, _k: sample.sparse_scratch_nbytes,
        config,
        sample.state_nbytes,
    )
    with closing(progress), work.weights.reading(1) as read:
        compared = work.compare(
            dataset,
            slice(target, target + 1),
            read,
            batches.n_threads,
            progress,
            ResidualHistogram,
        )
    work.require_unchanged()
    result = compared.reduction.result
    if not result.counts.size:
        raise InputError(
            f"predictions of {dataset.X.name} leave the range of float64, so that residuals cannot "
            "be counted; bring the columns to the units of the fit"
        )
    return Residuals(result, compared.engine.n_omitted, compared.warnings)


class _Compared(NamedTuple):
    """What a pass found."""

    reduction: Reduction[Any]
    engine: ThreadsEngine

    @property
    def warnings(self) -> list[str]:
        warnings = self.engine.omission_warnings()
        if self.reduction.n_rows == 1:
            warnings.append("R² is not defined for one row, which has no spread; pass more rows")
        elif np.isnan(self.reduction.result.r2).any():
            warnings.append("R² is not defined where y is constant: its spread is 0")
        return warnings


class _Comparison:
    """Predictions compared with y, for some of the targets."""

    def __init__(
        self, what: str, model: Model, dataset: Dataset, targets: slice = slice(None)
    ) -> None:
        # a row is left out for NaN in any target
        self._reads_whole_y = dataset.nan_policy == "omit"
        if self._reads_whole_y:
            dataset = replace(dataset, whole_row_nbytes=dataset.row_nbytes)
        self._what = what
        self._model = model
        self._dataset = dataset
        self.weights = Weights.of(what, model, dataset)
        if dataset.n_targets != model.n_targets:
            raise InputError(
                f"y has {count(dataset.n_targets, 'target')} but the model was fitted with "
                f"{model.n_targets:,}"
            )
        self._targets = range(model.n_targets)[targets]

    def plan(
        self,
        scratch_nbytes: Callable[[int, int], int],
        sparse_scratch_nbytes: Callable[[int, int], int],
        config: FitConfig,
        state_nbytes: int = 0,
    ) -> Batches:
        """Return the batches that fit; the functions take D and the targets of a batch."""
        dataset, d = self._dataset, self._dataset.n_features
        held = HeldRows(dataset.X)

        def costs_of(width: int) -> Costs:
            first = self._targets.start
            rows = self._rows_of(dataset, slice(first, first + width))
            scratch = sparse_scratch_nbytes if dataset.X.is_sparse else scratch_nbytes
            state = state_nbytes or Score(np.empty((0, 0)), np.empty(width)).state_nbytes
            # y as float64 has been counted; results are kept for all targets
            results = 8 * 3 * (width + len(self._targets))

            def terms(n_threads: int, holds: bool) -> list[Term]:  # noqa: FBT001
                reading = RowCosts.of(replace(rows, y=None, target_names=None), HOST)
                costs = RowCosts.of(replace(rows, X=held) if holds else rows, HOST)
                # one is merged into another while each thread fills its own
                states = n_threads + 2
                each = format_nbytes(state)
                computing = [
                    *costs.terms(n_threads),
                    Term("tiles", n_threads * scratch(d, width), "float64 rows in use"),
                    *self.weights.terms(width),
                    Term("sums", states * state + results, f"{states} states, {each} each"),
                ]
                if not holds:
                    return [*computing, process_term(n_threads)]
                read = reading.terms(n_threads)
                terms = read if peak(read) > peak(computing) else computing
                return [*terms, held_term(held.nbytes), process_term(n_threads)]

            return Costs(terms, 0 if rows.y is None else rows.y.pass_nbytes)

        step = self.weights.step
        if dataset.y is not None and len(dataset.y.shape) > 1:
            # a chunk of several targets, if not whole rows are read
            read = dataset.y.around_columns(0, 1)[0].shape[1]
            step = read if read < dataset.y.shape[1] else step
        return plan_batches(
            self._what,
            dataset,
            len(self._targets),
            costs_of,
            config,
            step=step,
            weights_step=self.weights.step,
        )

    def hold(self, batches: Batches, progress: Progress) -> Dataset:
        """Return the data set, with X in memory if the plan says so."""
        if not batches.holds_rows:
            return self._dataset
        held = HeldRows(self._dataset.X)
        held.fill(batches.n_threads, progress)
        return replace(self._dataset, X=held)

    def compare(
        self,
        dataset: Dataset,
        targets: slice,
        read: ReadWeights,
        n_threads: int,
        progress: Progress,
        accumulator: type[Score | ResidualHistogram],
    ) -> _Compared:
        """Run the pass for some targets; a second one if squares overflow."""
        w, b = read(targets)
        compared = accumulator(w, b, y_columns=targets if self._reads_whole_y else None)
        rows = self._rows_of(dataset, targets)
        with ThreadsEngine(rows, n_threads, progress.rows) as engine:
            progress.begin_pass(rows.n_rows)
            reduction: Reduction[Any] = engine.reduce(compared)
            y_scale = power_of_two(reduction.result.high)
            if (y_scale != 1).any():
                # squares of y left float64's range
                progress.begin_pass(rows.n_rows)
                reduction = engine.reduce(replace(compared, y_scale=y_scale))
        if reduction.n_rows == 0:
            raise InputError(
                f"none of the {rows.n_rows:,} rows of {rows.X.name} counts: all hold NaN or inf, "
                f"or have weight 0; there is nothing to {self._what}"
            )
        return _Compared(reduction, engine)

    def require_unchanged(self) -> None:
        """Raise if rows or weights changed while they were read."""
        self._dataset.require_unchanged()
        if self._model.stored is not None:
            self._model.stored.require_unchanged()

    def _rows_of(self, dataset: Dataset, targets: slice) -> Dataset:
        """Return the rows with some targets only, unless NaN in another one leaves out a row."""
        n_targets = targets.stop - targets.start
        if self._reads_whole_y or dataset.y is None or n_targets == self._model.n_targets:
            return dataset
        some = column_range(dataset.y, targets.start, targets.stop)
        return replace(dataset, y=some, target_names=None)
