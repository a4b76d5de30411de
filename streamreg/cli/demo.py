"""``streamreg demo``: the main job from end to end, on data larger than its memory limit."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.config.fit_config import FitConfig
from streamreg.errors import MemoryLimitError
from streamreg.fitting.fit import fit_dataset
from streamreg.fitting.plan import plan_fit
from streamreg.formatting import format_nbytes
from streamreg.output.zarr_writer import RowAppender, create_array, new_group
from streamreg.predict.predictions import predict_to
from streamreg.predict.scores import score
from streamreg.progress import progress_of

if TYPE_CHECKING:
    from streamreg.blocks import Float64

# with these tolerances weights of cg agree with the closed form to nine digits, those of gd to four
_TOLERANCES = {"closed_form": 1e-8, "gd": 1e-9, "cg": 1e-11}
_HEADINGS = ("solver", "epochs", "time", "from first", "from truth", "peak", "planned", "limit")
_WIDE_FEATURES = 100_000


def demo(
    rows: Annotated[int, typer.Option(help="Rows of X.", min=10)] = 524_288,
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
    config = FitConfig.parse(memory_limit=memory_limit, n_threads=n_threads)
    if keep is not None:
        keep.mkdir()
    # the working folder, because the system's folder of temporary files may be in memory
    temporary = TemporaryDirectory(prefix="streamreg-demo-", dir=".") if keep is None else None
    with temporary or nullcontext(str(keep)) as folder:
        try:
            _run(folder, rows, features, config, progress=progress)
        except BaseException as error:
            if keep is None:
                error.__notes__ = []  # they name files of the folder, which is removed
            raise
    show.write(f"{'Removed' if keep is None else 'Kept'}: {folder}")


def _run(folder: str, rows: int, features: int, config: FitConfig, *, progress: bool) -> None:
    path, nbytes, began = f"{folder}/data.zarr", 8 * rows * features, time.perf_counter()
    show.write(f"1. Data: X ({rows:,}, {features:,}) float64, {format_nbytes(nbytes)}, at {path}")
    true_weights, deviations = _generate(path, rows, features)
    seconds, dataset = time.perf_counter() - began, config.open_dataset(path)
    plan = plan_fit(dataset, config)
    show.write(
        f"   written in {seconds:.1f} s; the memory limit is {format_nbytes(plan.memory_limit)}, "
        f"{plan.memory_limit / nbytes:.2f} times the data\n"
    )
    show.write(f"2. Plan, from metadata alone\n{plan.table()}")
    plan.require_fit()
    show.write("   passes of gd and cg are typical numbers; these data may need fewer\n")

    show.write("3. Fit, by every solver that fits")
    models, table = [], []
    for solver, tolerance in _TOLERANCES.items():
        if not plan.candidates[solver].fits:
            continue
        began = time.perf_counter()
        own = replace(config, solver=solver, tol=tolerance)
        result = fit_dataset(dataset, own, progress_of(progress, "fit"))
        seconds = time.perf_counter() - began
        status = result.solution.status
        for message in result.warnings if status.converged else [*result.warnings, status.value]:
            show.warn(message)
        models.append(result.model(dataset))
        models[-1].save(f"{folder}/{solver}.json")
        errors = [
            np.max(np.abs(models[-1].coefficients[0] - other) * deviations)
            / np.max(np.abs(true_weights * deviations))
            for other in (models[0].coefficients[0], true_weights)
        ]
        sizes = result.peak_nbytes, plan.candidates[solver].peak_nbytes, plan.memory_limit
        row = [solver, str(result.solution.n_epochs), f"{seconds:.1f} s"]
        table.append([*row, *(f"{error:.1e}" for error in errors), *map(format_nbytes, sizes)])
    show.write_table(_HEADINGS, table)
    show.write(
        "   distances are those of weights times deviations, from the first row and from the\n"
        "   true weights, which no fit finds exactly because of noise. peak is the memory that\n"
        "   a fit added to this process; later fits reuse the memory of earlier ones\n"
    )
    show.write("4. Predict to disk, and score")
    out = f"{folder}/predictions.zarr"
    predict_to(models[0], dataset, out, config, progress_of(progress, "predict"))
    scores = score(models[0], dataset, config, progress_of(progress, "score"))
    show.write(f"{rows:,} predictions written to {out}\nR² {scores.evaluation.r2[0]:.9g}")

    show.write(f"\n5. Refusal: the closed form at D = {_WIDE_FEATURES:,}, nothing read")
    wide = np.broadcast_to(0.0, (20_000, _WIDE_FEATURES))  # takes 8 bytes
    try:
        fit_dataset(config.open_dataset(wide, wide[:, 0]), replace(config, solver="closed_form"))
    except MemoryLimitError as refusal:
        show.write(f"{show.text_of(refusal)}\n")


def _generate(path: str, rows: int, features: int) -> tuple[Float64, Float64]:
    """Write correlated columns of different units, and y = Xw + 10 + noise.

    Returns w, and the standard deviations of the columns, up to a constant.
    """
    rng = np.random.default_rng(20_240_229)
    deviations = np.geomspace(0.01, 100.0, features)
    weights = rng.standard_normal(features) / deviations
    names = {"feature_names": [f"x{j}" for j in range(features)]}
    with new_group(path, names, overwrite=False) as group:
        X = create_array(group, "X", (rows, features))
        X_rows, y_rows = RowAppender(X), RowAppender(create_array(group, "y", (rows,)))
        for start in range(0, rows, X.chunks[0]):
            n_rows = min(X.chunks[0], rows - start)
            block = rng.standard_normal((n_rows, features))
            # any two columns have a correlation of 0.2
            block += 0.5 * rng.standard_normal((n_rows, 1))
            block *= deviations
            X_rows.append(block)
            y_rows.append(block @ weights + 10 + rng.standard_normal(n_rows))
        X_rows.close()
        y_rows.close()
    return weights, deviations
