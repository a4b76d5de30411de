"""A model applied to rows that may not fit in memory: predictions, R² and residuals."""

from __future__ import annotations

import json
import zlib
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from streamreg.accumulators.base import power_of_two
from streamreg.accumulators.residual_histogram import ResidualHistogram
from streamreg.accumulators.score import Score
from streamreg.config import memory_limit_or_default
from streamreg.engines.blas import one_blas_thread
from streamreg.engines.partition import HOST, Blocks
from streamreg.engines.reader_pool import ReaderPool
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataCorruptionError, InputError, MemoryLimitError, Message, Remedy
from streamreg.formatting import count, format_nbytes
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.registry import best_kernels, load_kernels
from streamreg.kernels.scratch import predict_nbytes
from streamreg.machine import usable_cpus
from streamreg.output.staging import require_writable
from streamreg.output.table_writer import ENDINGS, new_table, require_writable_file
from streamreg.output.zarr_writer import CHUNK_NBYTES, RowAppender, new_array
from streamreg.planning.memory_model import process_term
from streamreg.planning.plan import itemised
from streamreg.planning.row_costs import RowCosts
from streamreg.planning.terms import Term, peak
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.sources.checks import finite_rows
from streamreg.sources.fingerprint import folder_state, identity
from streamreg.sources.kinds import open_source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Sequence

    import zarr

    from streamreg.accumulators.residual_histogram import ResidualHistogramResult
    from streamreg.blocks import Float64
    from streamreg.config import FitConfig
    from streamreg.engines.base import Reduction
    from streamreg.kernels.base import Kernel
    from streamreg.model import Model
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

# chunks in memory while an output is written: collected rows, and the copies that zarr makes
_CHUNKS_ALIVE = 4
_INGEST_LIKE = (
    ": predict from the table itself, or ingest it again with `streamreg ingest --like MODEL`"
)


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


def predict(
    model: Model,
    dataset: Dataset,
    config: FitConfig,
    progress: Progress = NO_PROGRESS,
) -> Float64:
    """Return predictions in memory, (N,) or (N, K).

    Rows with NaN or inf are an ``InputError``; with ``nan_policy="omit"`` their predictions are
    NaN. Predictions that do not fit are a ``MemoryLimitError``, before anything is read.
    """
    n_rows, k = dataset.n_rows, model.n_targets
    output = Term("predictions", 8 * n_rows * k, f"{n_rows:,} × {k:,} × 8 bytes")  # noqa: RUF001
    work = _Prediction(model, dataset, output, config)
    out = np.empty((n_rows, k))
    with closing(work.blocks(progress)) as blocks:
        for start, rows in blocks:
            out[start : start + len(rows)] = rows
    return out[:, 0] if model.one_target else out


def predict_to(
    model: Model,
    dataset: Dataset,
    out: str | os.PathLike[str],
    config: FitConfig,
    progress: Progress = NO_PROGRESS,
    *,
    overwrite: bool = False,
    inputs: Sequence[str | os.PathLike[str]] = (),
) -> Path:
    """Write predictions to a Zarr array, block by block; it appears whole or not at all.

    If ``out`` ends in .parquet or .csv, it is a table with a column for each target.

    If it is interrupted, or the system fails, what was written stays beside ``out``; called again
    with the same model and rows, it resumes. Rows in memory, or mapped, are predicted again from
    the first, because a fingerprint of them would cost as much as to predict them.

    Errors are those of :func:`predict`, and an ``InputError`` if ``out`` exists, cannot be written,
    or is inside one of the ``inputs`` or of the folders that X is read from.
    """
    inputs = [*inputs, *dataset.local_paths()]
    if Path(out).suffix.lower() in ENDINGS:
        return _predict_to_table(
            model,
            dataset,
            require_writable_file(Path(out), overwrite=overwrite, inputs=inputs),
            config,
            progress,
        )
    path = require_writable(out, overwrite=overwrite, inputs=inputs)
    ending = path.suffix[1:].lower()
    # that of preds_0.5 or run.2026-01 is a part of a name
    is_file_type = ending.isalnum() and not ending.isdigit()
    if is_file_type and ending != "zarr":
        raise InputError(
            f"predictions are written as a Zarr array, or as a table: name it '{path.stem}.zarr', "
            f"'{path.stem}.parquet' or '{path.stem}.csv', not {path.name!r}"
        )
    work = _Prediction(model, dataset, _output_term(model, dataset), config)
    shape = (dataset.n_rows,) if model.one_target else (dataset.n_rows, model.n_targets)
    identity = _identity(model, dataset)
    with new_array(path, shape, overwrite=overwrite, identity=identity) as array:
        done = _rows_written(array)
        appender = RowAppender(array, done)
        with closing(work.blocks(progress, done)) as blocks:
            for start, rows in blocks:
                new = rows[max(0, done - start) :]
                appender.append(new[:, 0] if model.one_target else new)
        appender.close()
    return path


def _predict_to_table(
    model: Model, dataset: Dataset, path: Path, config: FitConfig, progress: Progress
) -> Path:
    work = _Prediction(model, dataset, _output_term(model, dataset), config)
    names = model.target_names or [f"y{k}" for k in range(model.n_targets)]
    if model.one_target and model.target_names is None:
        names = ["y"]
    with new_table(path, names) as table, closing(work.blocks(progress)) as blocks:
        for _, rows in blocks:
            table.append(rows)
    return path


def score(
    model: Model,
    dataset: Dataset,
    config: FitConfig,
    progress: Progress = NO_PROGRESS,
) -> Scores:
    """Return R², RMSE and the correlation of each target, streamed.

    Rows with NaN or inf are an ``InputError``; with ``nan_policy="omit"`` they are left out, and it
    is an ``InputError`` if no row is left.
    """
    model = _in_order_of(dataset, model)
    weights = model.coefficients.T.copy(), model.intercept
    reduction, engine = _scored("score", Score(*weights), dataset, model, config, progress)
    result, n_rows = reduction.result, reduction.n_rows
    measures = result.r2, result.rmse, result.pearson_r
    evaluation = Evaluation(*measures, n_rows, engine.n_omitted)
    return Scores(evaluation, _warnings(reduction, engine))


class Residuals(NamedTuple):
    """How residuals of one target are distributed over fitted values."""

    histogram: ResidualHistogramResult
    n_omitted: int  # rows left out for NaN or inf
    warnings: list[str]  # for the user


def residuals(
    model: Model,
    dataset: Dataset,
    config: FitConfig,
    progress: Progress = NO_PROGRESS,
    *,
    target: int = 0,
) -> Residuals:
    """Return R² and RMSE of each target, and the residuals y - ŷ of one, counted in bins; streamed.

    One pass, and one more if squares of y leave float64's range. Errors are those of :func:`score`.
    """
    model = _in_order_of(dataset, model)
    weights = model.coefficients.T.copy(), model.intercept
    accumulator = ResidualHistogram(*weights, target=target)
    reduction, engine = _scored("report", accumulator, dataset, model, config, progress)
    result = reduction.result
    if not result.counts.size:
        raise InputError(
            f"predictions of {dataset.X.name} leave the range of float64, so that residuals cannot "
            "be counted; bring the columns to the units of the fit"
        )
    return Residuals(result, engine.n_omitted, _warnings(reduction, engine))


def _scored(
    what: str,
    accumulator: Score | ResidualHistogram,
    dataset: Dataset,
    model: Model,
    config: FitConfig,
    progress: Progress,
) -> tuple[Reduction[Any], ThreadsEngine]:
    """Run the pass that compares predictions with y; a second one if squares overflow."""
    _require_rows_of(what, model, dataset)
    if dataset.n_targets != model.n_targets:
        raise InputError(
            f"y has {count(dataset.n_targets, 'target')} but the model was fitted with "
            f"{model.n_targets:,}"
        )
    costs = RowCosts.of(dataset, HOST)

    def terms(n_threads: int) -> list[Term]:
        # one is merged into another while each thread fills its own
        states = n_threads + 2
        each = format_nbytes(accumulator.state_nbytes)
        made = Term("sums", states * accumulator.state_nbytes, f"{states} states, {each} each")
        return [*_terms(model, costs, scratch_nbytes, n_threads), made]

    scratch_nbytes = accumulator.scratch_nbytes
    if dataset.X.is_sparse:
        scratch_nbytes = accumulator.sparse_scratch_nbytes
    n_threads = _threads_that_fit(what, dataset, terms, config)
    with closing(progress), ThreadsEngine(dataset, n_threads, progress.rows) as engine:
        progress.begin_pass(dataset.n_rows)
        reduction: Reduction[Any] = engine.reduce(accumulator)
        y_scale = power_of_two(reduction.result.high)
        if (y_scale != 1).any():
            # squares of y left float64's range
            progress.begin_pass(dataset.n_rows)
            reduction = engine.reduce(replace(accumulator, y_scale=y_scale))
    dataset.require_unchanged()
    if reduction.n_rows == 0:
        raise InputError(
            f"none of the {dataset.n_rows:,} rows of {dataset.X.name} counts: all hold NaN or inf, "
            f"or have weight 0; there is nothing to {what}"
        )
    return reduction, engine


def _warnings(reduction: Reduction[Any], engine: ThreadsEngine) -> list[str]:
    warnings = engine.omission_warnings()
    if reduction.n_rows == 1:
        warnings.append("R² is not defined for one row, which has no spread; pass more rows")
    elif np.isnan(reduction.result.r2).any():
        warnings.append("R² is not defined where y is constant: its spread is 0")
    return warnings


class _Prediction:
    """Predictions of blocks of X, planned with as many threads as fit."""

    def __init__(self, model: Model, dataset: Dataset, output: Term, config: FitConfig) -> None:
        model = _in_order_of(dataset, model)
        _require_rows_of("predict", model, dataset)
        rows = replace(dataset, y=None, weight=None, target_names=None, nan_policy="raise")
        costs = RowCosts.of(rows, HOST)

        def terms(n_threads: int, output: Term = output) -> list[Term]:
            # blocks that are computed, wait for their turn, and are written
            ahead = 2 if n_threads == 1 else n_threads + 2
            scratch = 0 if rows.X.is_sparse else predict_nbytes(model.n_features)
            made_nbytes = ahead * 8 * model.n_targets * costs.block_rows
            made = Term("pending", made_nbytes, f"predictions of {ahead} blocks")
            return [output, *_terms(model, costs, scratch, n_threads), made]

        to_disk_nbytes = peak(terms(1, _output_term(model, dataset)))
        self._n_threads = _threads_that_fit("predict", rows, terms, config, to_disk_nbytes)
        self._rows = rows
        self._nan_policy = dataset.nan_policy
        self._coefficients = model.coefficients.T.copy()
        self._intercept = model.intercept
        self._kernel: Kernel = numpy_kernels.predict
        if rows.X.is_sparse:
            self._kernel = load_kernels(best_kernels()).by_kind["sparse"].find("predict")

    def blocks(
        self, progress: Progress, n_rows_done: int = 0
    ) -> Generator[tuple[int, Float64], None, None]:
        """Yield the first row and the predictions, (n, K), of blocks that are not done."""
        rows = self._rows
        blocks = Blocks.of(rows.X.grid, rows.row_nbytes)
        first = blocks.number_at(n_rows_done) if n_rows_done < blocks.n_rows else len(blocks)
        with (
            closing(progress),
            one_blas_thread(),
            ReaderPool(rows, blocks, self._n_threads, progress.rows) as pool,
        ):
            progress.begin_pass(rows.n_rows)
            if first:
                pool.report(blocks[first - 1][1])
            yield from pool.read_in_order(range(first, len(blocks)), self._predict)
        rows.require_unchanged()

    def _predict(self, reader: BlockReader, start: int, stop: int) -> tuple[int, Float64]:
        X = reader.read(start, stop).X
        predictions = self._kernel(X, self._coefficients, self._intercept)
        if not np.isfinite(predictions).all():
            if self._nan_policy == "omit":
                predictions[~finite_rows(X)] = np.nan
            else:
                # X has no NaN or inf if predictions overflow because weights are large
                error = reader.not_finite(start, stop)
                if error is not None:
                    raise error
        return start, predictions


def _threads_that_fit(
    what: str,
    dataset: Dataset,
    terms: Callable[[int], list[Term]],
    config: FitConfig,
    to_disk_nbytes: float = np.inf,
) -> int:
    """Return how many threads fit; ``terms`` returns the memory that a number of threads needs.

    If not even one fits, the error offers to write to disk, if that fits.
    """
    limit = memory_limit_or_default(config.memory_limit)
    for threads in range(config.n_threads or usable_cpus(), 0, -1):
        if peak(terms(threads)) <= limit:
            return threads
    remedies = []
    if to_disk_nbytes <= limit:
        needed = format_nbytes(int(to_disk_nbytes), up=True)
        to_disk = f" to write them to disk block by block: {needed}"
        remedies.append(Message("pass ", Remedy("out", "PATH"), to_disk))
    shape = f"N = {dataset.n_rows:,}, D = {dataset.n_features:,}; no data was read"
    raise MemoryLimitError(itemised(what, limit, shape, terms(1), remedies))


def _terms(model: Model, costs: RowCosts, scratch_nbytes: int, n_threads: int) -> list[Term]:
    d, k = model.n_features, model.n_targets
    return [
        *costs.terms(n_threads),
        Term("tiles", n_threads * scratch_nbytes, "float64 rows in use"),
        Term("weights", 8 * d * k, f"{d:,} × {k:,} × 8 bytes"),  # noqa: RUF001
        process_term(n_threads),
    ]


def _output_term(model: Model, dataset: Dataset) -> Term:
    chunk = min(CHUNK_NBYTES, 8 * dataset.n_rows * model.n_targets)
    return Term("output", _CHUNKS_ALIVE * chunk, f"{_CHUNKS_ALIVE} chunks being written")


def _in_order_of(dataset: Dataset, model: Model) -> Model:
    """Return the model with its columns in the order of a data set that was made of a table.

    A column of levels with another baseline is an ``InputError``, because its zeros mean another
    level.
    """
    if model.schema is None or dataset.schema is None or model.schema == dataset.schema:
        return model
    known = {feature.name: feature for feature in model.schema.features}
    for feature in dataset.schema.features:
        mine = known.get(feature.name, feature)
        if feature.names == mine.names and feature != mine:
            raise InputError(
                f"column {feature.name} of {dataset.X.name} has the baseline "
                f"{(feature.levels or ('',))[0]!r}, but the model was fitted with "
                f"{(mine.levels or ('',))[0]!r}{_INGEST_LIKE}"
            )
    if set(known.values()) != set(dataset.schema.features):
        return model
    names = model.schema.feature_names
    order = [names.index(name) for name in dataset.schema.feature_names]
    return replace(
        model,
        coefficients=np.ascontiguousarray(model.coefficients[:, order]),
        feature_names=dataset.schema.feature_names,
        schema=dataset.schema,
        inference=None,  # its columns are in the order of the model
    )


def _require_rows_of(what: str, model: Model, dataset: Dataset) -> None:
    """Refuse rows with other columns than the model, and rows on a GPU."""
    given, known = dataset.feature_names, model.feature_names
    if dataset.n_features != model.n_features:
        which = ""
        if given is not None and known is not None:
            which = (
                f". {dataset.X.name} lacks {_beyond(known, given)} of the model, and has "
                f"{_beyond(given, known)} that the model does not know. Pass the columns of the "
                "fit, in their order"
            )
            if dataset.schema is not None:
                which += _INGEST_LIKE
        # the first sentence is scikit-learn's
        raise InputError(
            f"X has {dataset.n_features} features, but LinearRegression is expecting "
            f"{model.n_features} features as input{which}"
        )
    if given is not None and known is not None and given != known:
        j = next(j for j in range(len(known)) if given[j] != known[j])
        raise InputError(
            f"column {j} of {dataset.X.name} is {given[j]!r}, but the model was fitted with "
            f"{known[j]!r} in its place; bring the columns into the order of the fit"
            f"{_INGEST_LIKE if dataset.schema is not None else ''}"
        )
    dataset.require_on_host(f"{what} runs on the processor. Pass ")


def _beyond(columns: Sequence[str], others: Sequence[str]) -> str:
    known = set(others)
    names = [repr(name) for name in columns if name not in known]
    more = f" and {len(names[3:]):,} more" if names[3:] else ""
    return ", ".join(names[:3]) + more if names else "no column"


def _identity(model: Model, dataset: Dataset) -> str:
    """Return what distinguishes these predictions from others; empty if they cannot be resumed."""
    if dataset.X.fingerprint_reads_all_rows:
        return ""
    weights = np.ascontiguousarray(model.coefficients), np.ascontiguousarray(model.intercept)
    # without stamps, the identity of X has the state of its files already
    paths = [] if dataset.X.stamps is None else dataset.X.local_paths()
    known = {
        "weights": [zlib.crc32(each.data) for each in weights],
        "X": identity(dataset.X),
        "files": [folder_state(path) for path in paths],
        "nan_policy": dataset.nan_policy,
    }
    return json.dumps(known)


def _rows_written(array: zarr.Array[Any]) -> int:
    """Return the rows of the leading chunks that were written whole."""
    written, done = open_source(array, array.name, missing_chunks="error"), 0
    # the first chunk that was not written whole is an error
    with closing(written.open()) as reader, suppress(DataCorruptionError):
        for chunk in range(len(written.grid)):
            start, stop = written.grid.rows(chunk)
            reader.read(start, stop)
            done = stop
    return done
