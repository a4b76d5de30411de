"""``streamreg demo``: the main job from end to end, on data larger than its memory limit."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import numpy as np
import typer

from streamreg import fit as fitting
from streamreg import predict as prediction
from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.cli.demo_fit import Run, fit_in_process
from streamreg.config import FitConfig
from streamreg.errors import InputError, MemoryLimitError
from streamreg.formatting import format_nbytes
from streamreg.output.zarr_writer import RowAppender, create_array, new_group
from streamreg.progress import progress_of
from streamreg.sources.open import open_dataset
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from streamreg.blocks import Float64
    from streamreg.sources.dataset import Dataset

Made = TypeVar("Made")

_SOLVERS = ("closed_form", "gd", "cg")
# with these tolerances the weights of cg agree with the closed form's to nine digits, gd's to four
_TOLERANCES = {"closed_form": 1e-8, "gd": 1e-9, "cg": 1e-11}
_WIDE_ROWS, _WIDE_FEATURES = 20_000, 100_000
_LEVEL, _NOISE = 10.0, 1.0
_ROWS_A_FEATURE = 10


class Truth(NamedTuple):
    """What the data are generated from."""

    weights: Float64  # (D,)
    deviations: Float64  # (D,) standard deviations of the columns, up to a constant

    def distance(self, weights: Float64, others: Float64) -> float:
        """Return max |w - w'|·σ / max |w_true|·σ over the columns."""
        largest = np.max(np.abs(self.weights * self.deviations))
        return float(np.max(np.abs(weights - others) * self.deviations) / largest)


def demo(
    rows: Annotated[int, typer.Option(help="Rows of X, at least ten a feature.", min=10)] = 524_288,
    features: Annotated[int, typer.Option(help="Columns of X.", min=1)] = 256,
    memory_limit: Annotated[
        str, typer.Option(help="Memory that each fit may add to the process.")
    ] = "256 MiB",
    n_threads: o.NThreads = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the files in this new folder.")
    ] = None,
    progress: o.Progress = True,
) -> None:
    """Generate data larger than a memory limit; plan, fit with each solver, predict and score."""
    if rows < _ROWS_A_FEATURE * features:
        raise InputError(
            f"--rows {rows:,} are too few for --features {features:,}: with fewer than "
            f"{_ROWS_A_FEATURE} rows a feature the solvers need not agree to the digits shown"
        )
    limit = parse_nbytes(memory_limit)
    with _folder(keep) as folder:
        path = folder / "data.zarr"
        nbytes = 8 * rows * features
        show.write(
            f"1. Data: X ({rows:,}, {features:,}) float64, {format_nbytes(nbytes)}, at {path}"
        )
        seconds, truth = _timed(lambda: _generate(path, rows, features))
        show.write(
            f"   written in {seconds:.1f} s; the memory limit is {format_nbytes(limit)}, "
            f"{limit / nbytes:.2f} of it\n"
        )
        dataset = open_dataset(path)
        show.write("2. Plan, from metadata alone")
        show.write(fitting.plan_fit(dataset, FitConfig.parse(memory_limit=limit)).table())
        show.write("   passes of gd and cg are typical numbers, which these data may not need\n")
        show.write("3. Fit, by every solver that fits, each in a process of its own")
        runs = {}
        for name in _SOLVERS:
            config = FitConfig.parse(
                solver=name, memory_limit=limit, n_threads=n_threads, tol=_TOLERANCES[name]
            )
            try:
                runs[name] = fit_in_process(path, config, progress=progress)
            except MemoryLimitError as error:
                show.write(f"   {name}: {show.text_of(error)}")
        if not runs:
            raise MemoryLimitError(
                f"no solver fits {format_nbytes(limit)} (see above); raise --memory-limit, or pass "
                "fewer --features"
            )
        _compare(runs, truth, limit)
        show.write("\n4. Predict to disk, and score")
        _predict(dataset, runs, folder, limit, n_threads, progress=progress)
        show.write(f"\n5. Refusal: the closed form at D = {_WIDE_FEATURES:,}, nothing read")
        show.write(_refusal(folder, limit))
        if keep is not None:
            show.write(f"\nKept: {folder}")


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        if keep.exists():
            raise InputError(f"--keep {keep} exists; name a folder that does not")
        try:
            keep.mkdir()
        except OSError as error:
            raise InputError(f"--keep {keep} cannot be made: {error.strerror}") from error
        yield keep
        return
    if not os.access(Path.cwd(), os.W_OK | os.X_OK):
        raise InputError(f"this process may not write in {Path.cwd()}; run the demo elsewhere")
    folder = Path(tempfile.mkdtemp(prefix="streamreg-demo-", dir=Path.cwd()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        show.write(f"\nRemoved: {folder.name}")


def _generate(path: Path, rows: int, features: int) -> Truth:
    """Write correlated columns of different units, and y = Xw + b + noise."""
    rng = np.random.default_rng(20_240_229)
    scale = np.geomspace(0.01, 100.0, features)
    weights = rng.standard_normal(features) / scale
    names = {"feature_names": [f"x{j}" for j in range(features)]}
    with new_group(path, names, overwrite=False) as group:
        X, y = create_array(group, "X", (rows, features)), create_array(group, "y", (rows,))
        step, X_rows, y_rows = X.chunks[0], RowAppender(X), RowAppender(y)
        targets = np.empty(rows)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            block = rng.standard_normal((stop - start, features))
            # any two columns have a correlation of 0.2
            block += 0.5 * rng.standard_normal((stop - start, 1))
            block *= scale
            noise = _NOISE * rng.standard_normal(stop - start)
            targets[start:stop] = block @ weights + _LEVEL + noise
            X_rows.append(block)
        y_rows.append(targets)
        X_rows.close()
        y_rows.close()
    return Truth(weights, scale)


def _compare(runs: dict[str, Run], truth: Truth, limit: int) -> None:
    """Print one row for each solver."""
    weights = {name: run.model.coefficients[0] for name, run in runs.items()}
    first = next(iter(weights.values()))
    rows = [
        [
            name,
            f"{run.n_epochs}",
            f"{run.seconds:.1f} s",
            f"{truth.distance(weights[name], first):.1e}",
            f"{truth.distance(weights[name], truth.weights):.1e}",
            format_nbytes(run.peak_nbytes),
            format_nbytes(run.planned_nbytes),
            format_nbytes(limit),
        ]
        for name, run in runs.items()
    ]
    show.write_table(
        ("solver", "epochs", "time", "from first", "from truth", "peak", "planned", "limit"), rows
    )
    show.write("   weights times deviations: their distance from the first row's, and from those")
    show.write("   that the data were made with, which the noise hides beyond some digits")


def _predict(
    dataset: Dataset,
    runs: dict[str, Run],
    folder: Path,
    limit: int,
    n_threads: int | None,
    *,
    progress: bool,
) -> None:
    """Write the predictions of the first solver, and print R²."""
    name, run = next(iter(runs.items()))
    out = folder / "predictions.zarr"
    seconds, _ = _timed(
        lambda: prediction.predict_to(
            run.model,
            dataset,
            out,
            memory_limit=limit,
            n_threads=n_threads,
            progress=progress_of(progress, "   predict"),
        )
    )
    scores = prediction.score(
        run.model,
        dataset,
        memory_limit=limit,
        n_threads=n_threads,
        progress=progress_of(progress, "   score"),
    )
    show.write(
        f"   {dataset.n_rows:,} predictions of {name} written to {out.name} in {seconds:.1f} s; "
        f"R² {scores.r2[0]:.6f}"
    )


def _refusal(folder: Path, limit: int) -> str:
    """Return how a closed form with 100,000 features is refused; its arrays have no chunks."""
    path = folder / "wide.zarr"
    with new_group(path, overwrite=False) as group:
        create_array(group, "X", (_WIDE_ROWS, _WIDE_FEATURES))
        create_array(group, "y", (_WIDE_ROWS,))
    plan = fitting.plan_fit(
        open_dataset(path), FitConfig.parse(solver="closed_form", memory_limit=limit)
    )
    try:
        plan.require_fit()
    except MemoryLimitError as error:
        return f"   MemoryLimitError: {show.text_of(error)}"
    return f"   it fits: {format_nbytes(plan.candidates['closed_form'].peak_nbytes)}"


def _timed(work: Callable[[], Made]) -> tuple[float, Made]:
    """Return the seconds that ``work`` took, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
