"""A fitted model: saved, loaded, and applied to rows that may not fit in memory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamreg.accumulators.score import Score
from streamreg.engines.threads import ThreadsEngine
from streamreg.errors import InputError, MemoryLimitError
from streamreg.kernels import cpu
from streamreg.layout import Blocks
from streamreg.memory import MIB, available_nbytes, format_nbytes, parse_nbytes, usable_cpus
from streamreg.output import RowAppender, new_array, require_writable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from streamreg.blocks import Block, Float64
    from streamreg.sources.dataset import DataSet

_FORMAT = "streamreg-model"
_VERSION = 1
_FIXED_NBYTES = 12 * MIB


@dataclass(frozen=True, eq=False)
class Model:
    """Weights in the user's units.

    Attributes
    ----------
    coefficients
        (K, D).
    intercept
        (K,).
    one_target
        Whether y was (N,), so that predictions are too.
    feature_names, target_names
        Where the data had names.
    details
        How the fit went: solver, status, epochs, loss; plain numbers and texts.
    """

    coefficients: Float64
    intercept: Float64
    one_target: bool = True
    feature_names: tuple[str, ...] | None = None
    target_names: tuple[str, ...] | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def n_features(self) -> int:
        """D."""
        return self.coefficients.shape[1]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to ``.json`` or ``.npz``, whole or not at all.

        Raises
        ------
        InputError
            The name ends otherwise, or its folder does not exist.
        """
        path = Path(path)
        if path.suffix not in {".json", ".npz"}:
            raise InputError(f"model files end in .json or .npz, not {path.suffix!r}: {path.name!r}")
        if not path.parent.is_dir():
            raise InputError(f"the folder {str(path.parent)!r} does not exist; create it first")
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            with partial.open("xb") as file:
                self._write(file, as_json=path.suffix == ".json")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Model:
        """Read a model; nothing in the file is ever run.

        Raises
        ------
        InputError
            There is no such file, or it is not a model.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"there is no model file at {str(path)!r}")
        try:
            if path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as arrays:
                    header = json.loads(arrays["header"].tobytes())
                    header["coefficients"] = arrays["coefficients"]
                    header["intercept"] = arrays["intercept"]
            else:
                header = json.loads(path.read_bytes())
            return cls._from_header(header)
        # whatever a damaged file makes json, zipfile and NumPy raise
        except Exception as error:
            raise InputError(
                f"{str(path)!r} is not a model of streamreg ({type(error).__name__}: {error}); "
                "save it again with model.save"
            ) from error

    @classmethod
    def _from_header(cls, header: dict[str, Any]) -> Model:
        if header.get("format") != _FORMAT:
            raise ValueError(f"its format is {header.get('format')!r}, not {_FORMAT!r}")
        if header.get("version") != _VERSION:
            raise ValueError(f"its version is {header.get('version')!r}, not {_VERSION}")
        coefficients = np.asarray(header["coefficients"], dtype=np.float64)
        intercept = np.asarray(header["intercept"], dtype=np.float64)
        if coefficients.ndim != 2 or intercept.shape != coefficients.shape[:1]:  # noqa: PLR2004
            raise ValueError(f"shapes {coefficients.shape} and {intercept.shape} do not fit")
        names = header["feature_names"]
        if names is not None and len(names) != coefficients.shape[1]:
            raise ValueError(f"{len(names)} feature names for {coefficients.shape[1]} features")
        return cls(
            coefficients, intercept, bool(header["one_target"]),
            None if names is None else tuple(names),
            None if header["target_names"] is None else tuple(header["target_names"]),
            dict(header["details"]),
        )  # fmt: skip

    def _header(self, **arrays: Any) -> str:  # noqa: ANN401
        return json.dumps(
            {
                "format": _FORMAT, "version": _VERSION, "one_target": self.one_target,
                "feature_names": self.feature_names, "target_names": self.target_names,
                "details": self.details, **arrays,
            },
            indent=1, allow_nan=False,
        )  # fmt: skip

    def _write(self, file: BinaryIO, *, as_json: bool) -> None:
        if as_json:
            lists = {
                "coefficients": self.coefficients.tolist(),
                "intercept": self.intercept.tolist(),
            }
            file.write(self._header(**lists).encode())
            return
        header = np.frombuffer(self._header().encode(), np.uint8)
        np.savez(
            file, header=header, coefficients=self.coefficients, intercept=self.intercept
        )


def predict(
    model: Model,
    dataset: DataSet,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
) -> Float64:
    """Return predictions in memory, (N,) or (N, K).

    Raises
    ------
    InputError
        X has other features than the model, or NaN or inf.
    MemoryLimitError
        The predictions do not fit; nothing was read.
    """
    k = len(model.intercept)
    with _engine(model, dataset, memory_limit, n_threads, extra=8 * k * dataset.n_rows) as engine:
        out = np.empty((dataset.n_rows, k))
        for start, rows in _predicted(model, engine):
            out[start : start + len(rows)] = rows
    return out[:, 0] if model.one_target else out


def predict_to(
    model: Model,
    dataset: DataSet,
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    inputs: Sequence[str | os.PathLike[str]] = (),
    on_rows: Callable[[int], None] | None = None,
) -> Path:
    """Write predictions to a Zarr array, block by block; it appears whole or not at all.

    Raises
    ------
    InputError
        ``out`` exists, cannot be written, or lies in one of the ``inputs``; or as for ``predict``.
    MemoryLimitError
        Not even one block fits; nothing was read.
    """
    k = len(model.intercept)
    shape = (dataset.n_rows,) if model.one_target else (dataset.n_rows, k)
    path = require_writable(out, overwrite=overwrite, inputs=inputs)
    with (
        _engine(model, dataset, memory_limit, n_threads, on_rows=on_rows) as engine,
        new_array(path, shape, overwrite=overwrite, inputs=inputs) as array,
    ):
        appender = RowAppender(array)
        for _, rows in _predicted(model, engine):
            appender.append(rows[:, 0] if model.one_target else rows)
        appender.close()
    return path


def score(
    model: Model,
    dataset: DataSet,
    *,
    memory_limit: int | str | None = None,
    n_threads: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Float64:
    """Return R² of each target, (K,), streamed; NaN for a constant target.

    Raises
    ------
    InputError
        X or y have other columns than the model.
    """
    if dataset.n_targets != len(model.intercept):
        raise InputError(
            f"y has {dataset.n_targets:,} targets but the model was fitted with "
            f"{len(model.intercept):,}"
        )
    with _engine(model, dataset, memory_limit, n_threads, on_rows=on_rows) as engine:
        return engine.reduce(Score(model.coefficients.T.copy(), model.intercept))


def _predicted(model: Model, engine: ThreadsEngine) -> Iterator[tuple[int, Float64]]:
    coefficients = model.coefficients.T.copy()

    def run(block: Block) -> tuple[int, Float64]:
        return block.start, cpu.predict(block.X, coefficients, model.intercept)

    for start, rows in engine.each_block(run):
        if not np.isfinite(rows).all():
            error = engine.not_finite(start)
            if error is not None:
                raise error
        yield start, rows


def _engine(
    model: Model,
    dataset: DataSet,
    memory_limit: int | str | None,
    n_threads: int | None,
    *,
    extra: int = 0,
    on_rows: Callable[[int], None] | None = None,
) -> ThreadsEngine:
    """Return an engine with as many threads as the limit allows."""
    _require_features(model, dataset)
    limit = available_nbytes() // 2 if memory_limit is None else parse_nbytes(memory_limit)
    blocks = Blocks.of(dataset.X.grid, dataset.row_nbytes)
    k = len(model.intercept)
    made = 8 * k * blocks.max_rows
    each = (
        dataset.reader_nbytes(blocks.max_rows)
        + cpu.predict_scratch_nbytes(model.n_features)
        + 2 * made
    )
    fixed = _FIXED_NBYTES + extra + model.coefficients.nbytes
    threads = n_threads or usable_cpus()
    if fixed + each > limit:
        remedy = 'pass out="PATH" to write them to disk block by block, or ' if extra else ""
        raise MemoryLimitError(
            f"predictions need {format_nbytes(fixed + each)} but memory_limit is "
            f"{format_nbytes(limit)} ({format_nbytes(extra + made)} for the predictions, the rest "
            f"for blocks of {dataset.X.name}; no data was read); {remedy}raise memory_limit"
        )
    return ThreadsEngine(dataset, max(1, min(threads, (limit - fixed) // each)), on_rows)


def _require_features(model: Model, dataset: DataSet) -> None:
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
