"""Predictions of rows that may not fit in memory: to memory, to Zarr or to a table."""

from __future__ import annotations

import json
import zlib
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.engines.blas import one_blas_thread
from streamreg.engines.partition import HOST, Blocks
from streamreg.engines.reader_pool import ReaderPool
from streamreg.errors import DataCorruptionError, InputError, Message, Remedy
from streamreg.formatting import format_nbytes
from streamreg.kernels import numpy as numpy_kernels
from streamreg.kernels.registry import best_kernels, load_kernels
from streamreg.kernels.scratch import predict_nbytes
from streamreg.output.staging import require_writable
from streamreg.output.table_writer import ENDINGS, new_table, require_writable_file
from streamreg.output.zarr_writer import (
    BATCH_CHUNK_NBYTES,
    CHUNK_NBYTES,
    RowAppender,
    new_array,
)
from streamreg.planning.memory_model import process_term
from streamreg.planning.row_costs import RowCosts
from streamreg.planning.terms import Term, peak
from streamreg.predict.batches import Batches, Costs, held_term, plan_batches
from streamreg.predict.held_rows import HeldRows
from streamreg.predict.weights import Weights
from streamreg.progress import NO_PROGRESS, Progress
from streamreg.sources.checks import finite_rows
from streamreg.sources.column_range import column_range
from streamreg.sources.fingerprint import folder_state, identity
from streamreg.sources.kinds import open_source

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Iterator, Sequence

    import zarr

    from streamreg.blocks import Float64
    from streamreg.config.fit_config import FitConfig
    from streamreg.kernels.base import Kernel
    from streamreg.model import Model
    from streamreg.sources.block_reader import BlockReader
    from streamreg.sources.dataset import Dataset

    # the first row of each block, and its predictions (n, k)
    Predicted = Generator[tuple[int, Float64], None, None]
    _PassOf = Callable[[slice, int], Predicted]

# chunks in memory while an output is written: collected rows, and the copies that zarr makes
_CHUNKS_ALIVE = 4
# Of wide predictions a block has fewer rows, but enough for fast products of matrices: a row
# counts with at most these bytes of predictions, by which 256 rows make a block of 16 MiB.
_MOST_COUNTED_NBYTES = 64 << 10


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
    work = _Prediction(model, dataset, lambda _: output, config)
    out = np.empty((n_rows, k))
    with work.running(progress) as pass_of:
        for targets in work.batches:
            with closing(pass_of(targets, 0)) as blocks:
                for start, rows in blocks:
                    out[start : start + len(rows), targets] = rows
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
    on_plan: Callable[[Batches], None] = lambda _: None,
) -> Path:
    """Write predictions to a Zarr array, block by block; it appears whole or not at all.

    If ``out`` ends in .parquet or .csv, it is a table with a column for each target. If the
    weights of all targets do not fit in memory, a Zarr array is written in batches of targets, a
    column of chunks each. ``on_plan`` is called with the batches before anything is read.

    If it is interrupted, or the system fails, what was written stays beside ``out``; called again
    with the same model, rows and batches, it resumes. Rows in memory, or mapped, are predicted
    again from the first, because a fingerprint of them would cost as much as to predict them.

    Errors are those of :func:`predict`, and an ``InputError`` if ``out`` exists, cannot be written,
    or is inside one of the ``inputs`` or of the folders that X and the weights are read from.
    """
    inputs = [*inputs, *dataset.local_paths()]
    if model.stored is not None:
        inputs.append(model.stored.path)
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
    work = _Prediction(model, dataset, partial(_output_term, model, dataset), config)
    on_plan(work.batches)
    shape = (dataset.n_rows,) if model.one_target else (dataset.n_rows, model.n_targets)
    width = work.batches.width if work.batches.n_batches > 1 else None
    identity = _identity(model, dataset, width)
    with (
        new_array(path, shape, overwrite=overwrite, identity=identity, width=width) as array,
        work.running(progress) as pass_of,
    ):
        appender = RowAppender(array, work.batches.width)
        for targets in work.batches:
            done = _rows_written(array, targets)
            appender.move_to(done, targets)
            with closing(pass_of(targets, done)) as blocks:
                for start, rows in blocks:
                    new = rows[max(0, done - start) :]
                    appender.append(new[:, 0] if model.one_target else new)
            appender.close()
    return path


def _predict_to_table(
    model: Model, dataset: Dataset, path: Path, config: FitConfig, progress: Progress
) -> Path:
    output = partial(_output_term, model, dataset)
    work = _Prediction(model, dataset, output, config, divides=False)
    names = model.target_names or [f"y{k}" for k in range(model.n_targets)]
    if model.one_target and model.target_names is None:
        names = ["y"]
    (targets,) = work.batches
    with (
        new_table(path, names) as table,
        work.running(progress) as pass_of,
        closing(pass_of(targets, 0)) as blocks,
    ):
        for _, rows in blocks:
            table.append(rows)
    return path


class _Prediction:
    """Predictions of blocks of X, planned with as many targets and threads as fit."""

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        output: Callable[[int], Term],
        config: FitConfig,
        *,
        divides: bool = True,
    ) -> None:
        self._weights = Weights.of("predict", model, dataset)
        rows = replace(dataset, y=None, weight=None, target_names=None, nan_policy="raise")
        self._rows = rows
        self._nan_policy = dataset.nan_policy
        held = HeldRows(rows.X)
        self.batches = plan_batches(
            "predict",
            rows,
            model.n_targets,
            lambda width: Costs(
                lambda n, holds: self._terms(output(width), width, n, held, holds=holds)
            ),
            config,
            divides=divides,
            step=self._weights.step,
            weights_step=self._weights.step,
            remedy=lambda limit: self._to_disk(
                "PATH" if divides else "PATH.zarr", _output_term(model, dataset, 1), limit, held
            ),
        )
        self._held = held if self.batches.holds_rows else None
        self._kernel: Kernel = numpy_kernels.predict
        if rows.X.is_sparse:
            self._kernel = load_kernels(best_kernels()).by_kind["sparse"].find("predict")

    @contextmanager
    def running(self, progress: Progress) -> Iterator[_PassOf]:
        """Yield a function that predicts some targets, after the rows that are done.

        It yields the first row and the predictions, (n, k), of each block.
        """
        rows, stored = self._rows, self._weights.model.stored
        with closing(progress), one_blas_thread():
            if self._held is not None:
                self._held.fill(self.batches.n_threads, progress)
                rows = replace(rows, X=self._held)
            blocks = Blocks.of(rows.X.grid, _counted_nbytes(rows, self.batches.width))
            with (
                ReaderPool(rows, blocks, self.batches.n_threads, progress.rows) as pool,
                self._weights.reading(self.batches.width) as read_weights,
            ):

                def pass_of(targets: slice, n_rows_done: int) -> Predicted:
                    progress.begin_pass(blocks.n_rows)
                    first = len(blocks)
                    if n_rows_done < blocks.n_rows:
                        first = blocks.number_at(n_rows_done)
                    if first:
                        pool.report(blocks[first - 1][1])
                    if first < len(blocks):
                        w, b = read_weights(targets)
                        read = partial(self._predict, w, b)
                        yield from pool.read_in_order(range(first, len(blocks)), read)

                yield pass_of
        self._rows.require_unchanged()
        if stored is not None:
            stored.require_unchanged()

    def _predict(
        self, w: Float64, b: Float64, reader: BlockReader, start: int, stop: int
    ) -> tuple[int, Float64]:
        X = reader.read(start, stop).X
        predictions: Float64 = self._kernel(X, w, b)
        if not np.isfinite(predictions).all():
            if self._nan_policy == "omit":
                predictions[~finite_rows(X)] = np.nan
            else:
                # X has no NaN or inf if predictions overflow because weights are large
                error = reader.not_finite(start, stop)
                if error is not None:
                    raise error
        return start, predictions

    def _terms(
        self, output: Term, width: int, n_threads: int, held: HeldRows, *, holds: bool
    ) -> list[Term]:
        rows, d = self._rows, self._rows.n_features
        reading: list[Term] = []
        if holds:
            # while X is read there are no weights and no predictions
            reading = RowCosts.of(rows, HOST).terms(n_threads)
            rows = replace(rows, X=held)
        costs = RowCosts.of(rows, HOST, _counted_nbytes(rows, width))
        # blocks that are computed, wait for their turn, and are written
        ahead = 2 if n_threads == 1 else n_threads + 2
        scratch = 0 if rows.X.is_sparse else predict_nbytes(d, width)
        pending = ahead * 8 * width * costs.block_rows
        # which of the predictions that are computed now are finite
        pending += n_threads * width * costs.block_rows if width > 1 else 0
        computing = [
            output,
            *costs.terms(n_threads),
            Term("tiles", n_threads * scratch, "float64 rows in use"),
            *self._weights.terms(width),
            Term("pending", pending, f"predictions of {ahead} blocks"),
        ]
        terms = reading if peak(reading) > peak(computing) else computing
        return [*terms, *([held_term(held.nbytes)] if holds else []), process_term(n_threads)]

    def _to_disk(self, path: str, output: Term, limit: int, held: HeldRows) -> Message | None:
        """Offer to write predictions to disk, if that works with the memory limit."""
        needed = peak(self._terms(output, 1, 1, held, holds=False))
        if needed > limit:
            return None
        text = f" to write them to disk block by block: {format_nbytes(needed, up=True)}"
        return Message("pass ", Remedy("out", path), text)


def _counted_nbytes(rows: Dataset, width: int) -> int:
    """Return the bytes of a row and its predictions, by which blocks are made."""
    # of few targets blocks are those of X
    few = numpy_kernels.FEW_TARGETS
    return rows.row_nbytes + (min(_MOST_COUNTED_NBYTES, 8 * width) if width > few else 0)


def _output_term(model: Model, dataset: Dataset, width: int) -> Term:
    """Return the memory of chunks while targets are written in batches of this width."""
    is_whole = width == model.n_targets
    n_chunks, nbytes = _CHUNKS_ALIVE, CHUNK_NBYTES
    if not is_whole:
        n_chunks, nbytes = 2 * _CHUNKS_ALIVE, BATCH_CHUNK_NBYTES
    chunk = min(nbytes, 8 * dataset.n_rows * width)
    freed = "" if is_whole else " or freed by zarr's threads"
    return Term("output", n_chunks * chunk, f"{n_chunks} chunks being written{freed}")


def _identity(model: Model, dataset: Dataset, width: int | None) -> str:
    """Return what distinguishes these predictions from others; empty if they cannot be resumed."""
    if dataset.X.fingerprint_reads_all_rows:
        return ""
    intercept = zlib.crc32(np.ascontiguousarray(model.intercept).data)
    # without stamps, the identity of X has the state of its files already
    paths = [] if dataset.X.stamps is None else dataset.X.local_paths()
    known: dict[str, Any] = {
        "weights": [_weights_identity(model), intercept],
        "X": identity(dataset.X),
        "files": [folder_state(path) for path in paths],
        "nan_policy": dataset.nan_policy,
    }
    if width is not None:
        known["targets"] = width
    return json.dumps(known)


def _weights_identity(model: Model) -> int | str:
    if model.stored is not None:
        return model.stored.identity
    return zlib.crc32(np.ascontiguousarray(model.weights_of(0, model.n_targets)).data)


def _rows_written(array: zarr.Array[Any], targets: slice) -> int:
    """Return the rows of the leading chunks, of some targets, that were written whole."""
    source, done = open_source(array, array.name, missing_chunks="error"), 0
    written = column_range(source, targets.start, targets.stop)
    # the first chunk that was not written whole is an error
    with closing(written.open()) as reader, suppress(DataCorruptionError):
        for chunk in range(len(written.grid)):
            start, stop = written.grid.rows(chunk)
            reader.read(start, stop)
            done = stop
    return done
