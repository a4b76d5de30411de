"""A model applied to rows that may not fit in memory: predictions, and R²."""

from __future__ import annotations

import json
import zlib
from contextlib import closing, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamreg import validate
from streamreg.accumulators.base import power_of_two
from streamreg.accumulators.score import Score
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import DataCorruptionError, InputError, MemoryLimitError
from streamreg.formatting import count, format_nbytes, left_out
from streamreg.kernels import numpy as numpy_kernels
from streamreg.machine import usable_cpus
from streamreg.output.staging import require_writable
from streamreg.output.zarr_writer import CHUNK_NBYTES, RowAppender, new_array
from streamreg.planning.memory_model import limit_nbytes, peak, process_term
from streamreg.planning.plan import itemised
from streamreg.planning.row_costs import Rows
from streamreg.planning.terms import Term
from streamreg.progress import NoProgress, Progress
from streamreg.sources.fingerprint import folder_state, identity
from streamreg.sources.kinds import open_source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    import zarr

    from streamreg.blocks import Block, Float64
    from streamreg.model import Model
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

# of an output, while one is written: rows gathered, and what zarr makes of them
_CHUNKS_ALIVE = 4


class Scores(NamedTuple):
    """How well predictions agree with y."""

    r2: Float64  # (K,) of each target; NaN where it is constant
    n_omitted: int  # rows left out for NaN or inf
    warnings: list[str]  # what deserves a look


def predict(
    model: Model,
    dataset: Dataset,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Float64:
    """Return predictions in memory, (N,) or (N, K).

    Raises
    ------
    InputError
        X has other features than the model, or NaN or inf; with ``nan_policy="omit"`` NaN is
        predicted for such rows.
    MemoryLimitError
        The predictions do not fit; nothing was read.
    """
    n_rows, k = dataset.n_rows, model.n_targets
    output = Term("predictions", 8 * n_rows * k, f"{n_rows:,} × {k:,} × 8 bytes")  # noqa: RUF001
    with _predictor(model, dataset, output, memory_limit, n_threads, progress) as engine:
        out = np.empty((n_rows, k))
        for start, rows in _predicted(model, dataset, engine):
            out[start : start + len(rows)] = rows
    return out[:, 0] if model.one_target else out


def predict_to(
    model: Model,
    dataset: Dataset,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    progress: Progress | None = None,
) -> Path:
    """Write predictions to a Zarr array, block by block; it appears whole or not at all.

    Interrupted or failed by the system, it leaves what was written beside ``out``; called again
    with the same model and rows, it goes on from there.

    Raises
    ------
    InputError
        ``out`` exists, cannot be written, or lies in one of the ``inputs``
        or where the rows of X do; or as for ``predict``.
    MemoryLimitError
        Not even one block fits; nothing was read.
    """
    inputs = [*inputs, *dataset.inputs()]
    path = require_writable(out, overwrite=overwrite, inputs=inputs)
    output = _written(model, dataset)
    shape = (dataset.n_rows,) if model.one_target else (dataset.n_rows, model.n_targets)
    with (
        _predictor(model, dataset, output, memory_limit, n_threads, progress) as engine,
        new_array(
            path,
            shape,
            overwrite=overwrite,
            inputs=inputs,
            identity=_identity(model, dataset),
        ) as (array, is_resumed),
    ):
        done = _rows_written(array) if is_resumed else 0
        appender = RowAppender(array, done)
        for start, rows in _predicted(model, dataset, engine, done):
            new = rows[max(0, done - start) :]
            appender.append(new[:, 0] if model.one_target else new)
        appender.close()
    return path


def score(
    model: Model,
    dataset: Dataset,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Scores:
    """Return R² of each target, streamed; NaN for a constant target.

    Raises
    ------
    InputError
        X or y have other columns than the model, or NaN or inf; with ``nan_policy="omit"`` such
        rows are left out, unless that leaves none.
    MemoryLimitError
        Not even one block fits; nothing was read.
    """
    _require_features(model, dataset)
    dataset.require_on_host("score runs on the processor. Pass ")
    if dataset.n_targets != model.n_targets:
        raise InputError(
            f"y has {count(dataset.n_targets, 'target')} but the model was fitted with "
            f"{model.n_targets:,}"
        )
    accumulator = Score(model.coefficients.T.copy(), model.intercept)

    def terms(workers: int) -> list[Term]:
        return _terms(model, dataset, accumulator.scratch_nbytes, workers)

    workers = _workers("score", dataset, terms, memory_limit, n_threads)
    progress = progress or NoProgress()
    with closing(progress), ThreadsEngine(dataset, workers, progress.rows) as engine:
        progress.begin_pass("score", dataset.n_rows)
        result = engine.reduce(accumulator)
        y_scale = power_of_two(result.high)
        if (y_scale != 1).any():
            # squares of y left float64's range
            progress.begin_pass("score", dataset.n_rows)
            result = engine.reduce(replace(accumulator, y_scale=y_scale))
    if result.n == 0:
        raise InputError(
            f"none of the {dataset.n_rows:,} rows of {dataset.X.name} counts: all hold NaN or inf, "
            "or have weight 0; there is nothing to score"
        )
    warnings = left_out(engine.n_omitted, dataset.n_rows)
    if result.n == 1:
        warnings.append("R² is not defined for one row, which has no spread; pass more rows")
    elif np.isnan(result.r2).any():
        warnings.append("R² is not defined where y is constant: its spread is 0")
    return Scores(result.r2, engine.n_omitted, warnings)


@contextmanager
def _predictor(
    model: Model,
    dataset: Dataset,
    output: Term,
    memory_limit: int | str | None,
    n_threads: int | None,
    progress: Progress | None,
) -> Iterator[ThreadsEngine]:
    """Yield an engine over the rows of X, none left out, with as many threads as fit."""
    _require_features(model, dataset)
    dataset.require_on_host("predict runs on the processor. Pass ")
    rows = replace(dataset, y=None, weight=None, target_names=None, nan_policy="raise")
    k, block_rows = model.n_targets, Rows.of(rows).block_rows

    def terms(workers: int, output: Term = output) -> list[Term]:
        # being made, waiting for their turn, and being written
        ahead = 2 if workers == 1 else workers + 2
        scratch = numpy_kernels.predict_scratch_nbytes(model.n_features)
        made = Term("made", ahead * 8 * k * block_rows, f"predictions of {ahead} blocks")
        return [output, *_terms(model, rows, scratch, workers), made]

    on_disk = peak(terms(1, _written(model, dataset)))
    remedy = (
        f'pass out="PATH" to write them to disk block by block: {format_nbytes(on_disk, up=True)}'
    )
    remedies = {remedy: on_disk} if output.what == "predictions" else {}
    workers = _workers("predict", rows, terms, memory_limit, n_threads, remedies)
    progress = progress or NoProgress()
    with closing(progress), ThreadsEngine(rows, workers, progress.rows) as engine:
        progress.begin_pass("predict", rows.n_rows)
        yield engine


def _workers(
    what: str,
    dataset: Dataset,
    terms: Callable[[int], list[Term]],
    memory_limit: int | str | None,
    n_threads: int | None,
    remedies: Mapping[str, int] = MappingProxyType({}),
) -> int:
    """Return how many threads fit, given what so many need, and remedies with what those need.

    Raises
    ------
    MemoryLimitError
        Not even one fits; nothing was read.
    """
    limit = limit_nbytes(memory_limit)
    for workers in range(validate.threads(n_threads) or usable_cpus(), 0, -1):
        if peak(terms(workers)) <= limit:
            return workers
    fitting = [remedy for remedy, nbytes in remedies.items() if nbytes <= limit]
    raise MemoryLimitError(
        itemised(
            what, limit, f"N = {dataset.n_rows:,}, D = {dataset.n_features:,}", terms(1), fitting
        )
    )


def _terms(model: Model, dataset: Dataset, scratch_nbytes: int, workers: int) -> list[Term]:
    d, k = model.n_features, model.n_targets
    return [
        *Rows.of(dataset).terms(workers),
        Term("tiles", workers * scratch_nbytes, "float64 rows in work"),
        Term("weights", 8 * d * k, f"{d:,} × {k:,} × 8 bytes"),  # noqa: RUF001
        process_term(workers),
    ]


def _written(model: Model, dataset: Dataset) -> Term:
    chunk = min(CHUNK_NBYTES, 8 * dataset.n_rows * model.n_targets)
    return Term("output", _CHUNKS_ALIVE * chunk, f"{_CHUNKS_ALIVE} chunks being written")


def _predicted(
    model: Model, dataset: Dataset, engine: ThreadsEngine, done: int = 0
) -> Iterator[tuple[int, Float64]]:
    """Yield the first row and the predictions, (n, K), of blocks that are not done."""
    coefficients = model.coefficients.T.copy()

    def run(reader: BlockReader, block: Block) -> tuple[int, Float64]:
        made = numpy_kernels.predict(block.X, coefficients, model.intercept)
        if not np.isfinite(made).all():
            if dataset.nan_policy == "omit":
                made[~np.isfinite(block.X).all(axis=1)] = np.nan
            else:
                # none where weights so large that they overflow are to blame
                error = reader.not_finite(block.start, block.start + len(made))
                if error is not None:
                    raise error
        return block.start, made

    return engine.each_block(run, done)


def _require_features(model: Model, dataset: Dataset) -> None:
    if dataset.n_features != model.n_features:
        raise InputError(
            f"X has {dataset.n_features} features, but LinearRegression is expecting "
            f"{model.n_features} features as input"
        )
    given, known = dataset.feature_names, model.feature_names
    if given is not None and known is not None and given != known:
        j = next(j for j in range(len(known)) if given[j] != known[j])
        raise InputError(
            f"column {j} of {dataset.X.name} is {given[j]!r}, but the model was fitted with "
            f"{known[j]!r} there; bring the columns into the order of the fit"
        )


def _identity(model: Model, dataset: Dataset) -> str:
    """Return what tells these predictions from others."""
    weights = np.ascontiguousarray(model.coefficients), np.ascontiguousarray(model.intercept)
    known = {
        "weights": [zlib.crc32(each.data) for each in weights],
        "X": identity(dataset.X),
        "files": [folder_state(path) for path in dataset.X.inputs()],
        "nan_policy": dataset.nan_policy,
    }
    return json.dumps(known)


def _rows_written(array: zarr.Array[Any]) -> int:
    """Return the rows of the chunks, from the first on, that were written whole."""
    written = open_source(array, array.name, missing_chunks="error")
    reader, done = written.open(), 0
    try:
        for chunk in range(len(written.grid)):
            start, stop = written.grid.rows(chunk)
            reader.read(start, stop)
            done = stop
    except DataCorruptionError:
        pass  # the first that is not
    finally:
        reader.close()
    return done
