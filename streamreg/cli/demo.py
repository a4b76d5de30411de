"""``streamreg demo``: the main job from end to end, on data larger than its memory limit."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import psutil
import typer

from streamreg import fit as fitting
from streamreg import predict as prediction
from streamreg.cli import options as o
from streamreg.cli import show
from streamreg.config import FitConfig
from streamreg.errors import InputError, MemoryLimitError, Remedy, StreamregError
from streamreg.formatting import format_nbytes
from streamreg.model import Model
from streamreg.output.zarr_writer import RowAppender, create_array, new_group
from streamreg.progress import progress_of
from streamreg.sources.open import open_dataset
from streamreg.validate import parse_nbytes

if TYPE_CHECKING:
    from streamreg.blocks import Float64

# with these tolerances the weights of cg agree with the closed form's to nine digits, gd's to four
_TOLERANCES = {"closed_form": 1e-8, "gd": 1e-9, "cg": 1e-11}
_WIDE_ROWS, _WIDE_FEATURES = 20_000, 100_000
_INTERCEPT = 10.0
_ROWS_A_FEATURE = 10
_REFUSED, _NOT_CONVERGED = 3, 4


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
    limit, nbytes = parse_nbytes(memory_limit), 8 * rows * features
    if keep is not None:
        keep.mkdir()
    # not in the system's folder of temporary files, which may be in memory
    temporary = TemporaryDirectory(prefix="streamreg-demo-", dir=".") if keep is None else None
    with temporary or nullcontext(str(keep)) as folder:
        path, out = Path(folder, "data.zarr"), Path(folder, "predictions.zarr")
        show.write(
            f"1. Data: X ({rows:,}, {features:,}) float64, {format_nbytes(nbytes)}, at {path}"
        )
        began = time.perf_counter()
        true_weights, deviations = _generate(path, rows, features)
        show.write(
            f"   written in {time.perf_counter() - began:.1f} s; the memory limit is "
            f"{format_nbytes(limit)}, {limit / nbytes:.2f} of it\n"
        )
        dataset = open_dataset(path)
        show.write("2. Plan, from metadata alone")
        show.write(fitting.plan_fit(dataset, FitConfig.parse(memory_limit=limit)).table())
        show.write("   passes of gd and cg are typical numbers, which these data may not need\n")

        show.write("3. Fit, by every solver that fits, each in a process of its own")
        options = ["--memory-limit", memory_limit, *([] if progress else ["--no-progress"])]
        options += [] if n_threads is None else ["--n-threads", str(n_threads)]
        table, models, scale = [], [], np.abs(true_weights * deviations).max()
        for solver in _TOLERANCES:
            began, file = time.perf_counter(), Path(folder, f"{solver}.json")
            found = _fit(path, solver, [*options, "--out", str(file)])
            if found is None:
                continue
            models.append(Model.load(file))
            errors = [
                np.max(np.abs(models[-1].coefficients[0] - other) * deviations) / scale
                for other in (models[0].coefficients[0], true_weights)
            ]
            sizes = found["peak_memory"], found["planned_peak"], limit
            table.append(
                [
                    solver,
                    str(found["n_iter"]),
                    f"{time.perf_counter() - began:.1f} s",
                    *(f"{error:.1e}" for error in errors),
                    *map(format_nbytes, sizes),
                ]
            )
        if not models:
            raise typer.Exit(_REFUSED)
        show.write_table(
            ("solver", "epochs", "time", "from first", "from truth", "peak", "planned", "limit"),
            table,
        )
        show.write("   weights times deviations: their distance from the first row's, and from")
        show.write("   those that generated the data, whose last digits the noise hides\n")

        show.write("4. Predict to disk, and score")
        began = time.perf_counter()
        prediction.predict_to(
            models[0],
            dataset,
            out,
            memory_limit=limit,
            n_threads=n_threads,
            progress=progress_of(progress, "   predict"),
        )
        seconds = time.perf_counter() - began
        scores = prediction.score(
            models[0],
            dataset,
            memory_limit=limit,
            n_threads=n_threads,
            progress=progress_of(progress, "   score"),
        )
        show.write(
            f"   {rows:,} predictions of {table[0][0]} written to {out.name} in {seconds:.1f} s; "
            f"R² {scores.r2[0]:.6f}\n"
        )
        show.write(f"5. Refusal: the closed form at D = {_WIDE_FEATURES:,}, nothing read")
        _refuse(Path(folder, "wide.zarr"), limit)
    show.write(f"\n{'Removed' if keep is None else 'Kept'}: {folder}")


def _generate(path: Path, rows: int, features: int) -> tuple[Float64, Float64]:
    """Write correlated columns of different units, and y = Xw + b + noise.

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
            y_rows.append(block @ weights + _INTERCEPT + rng.standard_normal(n_rows))
        X_rows.close()
        y_rows.close()
    return weights, deviations


def _fit(path: Path, solver: str, options: list[str]) -> dict[str, Any] | None:
    """Run ``streamreg fit``, so that each fit is measured from the same start.

    Returns its JSON document, or ``None`` if the plan refuses it, which the command explains.
    """
    command = [sys.executable, "-m", "streamreg", "fit", str(path), "--solver", solver, "--json"]
    command += ["--tol", str(_TOLERANCES[solver]), *options]
    try:
        # in its own process group, because this process ends it on Ctrl-C
        process = subprocess.Popen(  # noqa: S603  (this program)
            command, stdout=subprocess.PIPE, text=True, process_group=0
        )
        document, _ = process.communicate()
    except BaseException:
        # not process.terminate(), because the interrupt may come before Popen returns
        for child in psutil.Process().children():
            child.terminate()
            child.wait()
        raise
    if process.returncode < 0:
        raise StreamregError(
            f"the process that fits by {solver} was killed, by the system if it was out of "
            "memory; pass a lower ",
            Remedy("memory_limit"),
            ", or free memory",
        )
    if process.returncode not in {0, _REFUSED, _NOT_CONVERGED}:
        raise typer.Exit(process.returncode)
    return None if process.returncode == _REFUSED else json.loads(document)


def _refuse(path: Path, limit: int) -> None:
    """Show how a closed form with 100,000 features is refused; its arrays have no chunks."""
    with new_group(path, overwrite=False) as group:
        create_array(group, "X", (_WIDE_ROWS, _WIDE_FEATURES))
        create_array(group, "y", (_WIDE_ROWS,))
    config = FitConfig.parse(solver="closed_form", memory_limit=limit)
    plan = fitting.plan_fit(open_dataset(path), config)
    try:
        plan.require_fit()
        show.write("   it fits")
    except MemoryLimitError as error:
        show.write(f"   MemoryLimitError: {show.text_of(error)}")
